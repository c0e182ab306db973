"""`make demo`: a real backup, an incremental one and a restore, by Airflow, against a real S3 server.

Everything is made and started on this machine, below one folder, and listens on loopback only.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvlm_ops.core.programs.proc import UnsupportedSystemError
from fastvlm_ops.local.airflow_api import AirflowError
from fastvlm_ops.local.console import Console
from fastvlm_ops.local.processes import ProcessStartError
from fastvlm_ops.local.report import login_text, story_text
from fastvlm_ops.local.round_trip import RoundTripError, run_round_trip
from fastvlm_ops.local.stack import Stack
from fastvlm_ops.local.state import DEFAULT, DemoState, StateError

_FAILURES = (
    AirflowError,
    OSError,
    ProcessStartError,
    StateError,
    UnsupportedSystemError,
)


@dataclass(frozen=True)
class Demo:
    """What a demo does.

    :param name: as in ``make demo``
    :param description: for its help
    :param failures: of its own, which end it with their message
    :param story: runs on a stack that is up; returns what is printed at the end
    :param stack: makes the stack, of the state and the project's folder
    :param folder: for its state, unless another is named
    :param ends: whether everything is stopped at the end
    """

    name: str
    description: str
    failures: tuple[type[Exception], ...]
    story: Callable[[Stack, Console], str]
    stack: Callable[[DemoState, Path], Stack] = Stack
    folder: Path = DEFAULT
    ends: bool = False


def main() -> int:
    """Start Airflow and S3 here, back a demo kit up and restore it. It stays up until `make down`."""
    return run_demo(Demo("make demo", str(main.__doc__), (RoundTripError,), _back_up_and_restore))


def run_demo(demo: Demo, options: Sequence[argparse.ArgumentParser] = ()) -> int:
    """Run a demo by the command line's arguments; return the exit code.

    :param demo: what it does
    :param options: of its own, without help
    """
    parser = argparse.ArgumentParser(prog=demo.name, description=demo.description, parents=list(options))
    parser.add_argument("--state-dir", type=Path, default=demo.folder, help="default: %(default)s")
    parser.add_argument("--project-dir", type=Path, default=Path.cwd(), help="default: the current folder")
    parser.add_argument("--exit", action="store_true", default=demo.ends, help="stop everything at the end")
    arguments = parser.parse_args()
    state = DemoState(arguments.state_dir)
    signal.signal(signal.SIGTERM, _interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character is no reason to fail
    foreseen: tuple[type[Exception], ...] = (*_FAILURES, *demo.failures)
    with Console() as console:
        try:
            return _run(demo, state, arguments.project_dir.resolve(), console, leave=arguments.exit)
        except KeyboardInterrupt:
            console.write("\nInterrupted. `make down` stops what was started.")
            return 130
        except foreseen as error:
            logs = f"Logs: {state.logs}. `make down` stops what runs."
            console.write(f"\n{demo.name} failed: {error}\n{logs}")
            return 1


def _back_up_and_restore(stack: Stack, console: Console) -> str:
    story = run_round_trip(stack, console)
    return story_text(story, stack.seconds)


def _run(demo: Demo, state: DemoState, project: Path, console: Console, *, leave: bool) -> int:
    with state.claim():
        if facts := state.running():
            console.write("The demo is up already; `make down` stops it.\n\n" + login_text(facts))
            return 0
        _start_afresh(state, console)
        stack = demo.stack(state, project)
        try:
            stack.start(console)
            text = demo.story(stack, console)
            facts = stack.facts()
            console.say("done")
            console.write(f"\n{text}\n")
            if not leave:
                state.processes.note(ready=facts, driver=None)
                console.write(login_text(facts))
        finally:
            if leave:
                console.say("stopping everything")
                state.stop()
    return 0


def _start_afresh(state: DemoState, console: Console) -> None:
    if state.processes.alive():
        console.say("cleaning up what an earlier demo left")
        state.stop()
    state.clear()
    for folder in (state.scratch, state.restored):
        folder.mkdir()
    # Libraries that put files into the temporary folder put them there too.
    os.environ["TMPDIR"] = str(state.scratch)
    tempfile.tempdir = None
    state.note_driver()


def _interrupt(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
