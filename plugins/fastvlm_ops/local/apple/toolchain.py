"""A stand-in for Apple's toolchain: programs of the same names, in a folder that goes first on PATH.

They take what the real ones take and answer in the same shapes. What a device would do is done by a process
here: it speaks the ModelRunner's side of the protocol, and predicts by the reference. The times that it tells
are those of the script. None of this is evidence of how Apple's own tools and devices behave.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

from fastvlm_ops.local.apple.script import AppleScript
from fastvlm_ops.local.apple.state import VARIABLE, State, is_alive

PROGRAMS = ("xcrun", "devicectl", "xcodebuild", "sw_vers", "sysctl", "ioreg", "pmset")
_ROOT = Path(__file__).resolve().parents[3]


class AppleToolchain:
    """The programs and their state.

    :param folder: that takes both
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = State(folder / "state")

    def install(self, script: AppleScript | None = None) -> dict[str, str]:
        """Write the programs, and what they play.

        :param script: what is played; one iPhone that works where None
        :returns: what has to be added to the environment of those who use them
        """
        self.state.folder.mkdir(parents=True, exist_ok=True)
        self.state.script = script or AppleScript()
        programs, startup = self.folder / "bin", self.folder / "startup"
        programs.mkdir(exist_ok=True)
        startup.mkdir(exist_ok=True)
        for name in PROGRAMS:
            _write_program(programs / name, name)
        (startup / "sitecustomize.py").write_text(_STARTUP.format(root=str(_ROOT)))
        paths = [str(startup), str(_ROOT), *_others("PYTHONPATH", startup, _ROOT)]
        return {
            "PATH": os.pathsep.join([str(programs), *_others("PATH", programs)]),
            "PYTHONPATH": os.pathsep.join(paths),
            VARIABLE: str(self.state.folder),
        }

    def environment(self, script: AppleScript | None = None) -> dict[str, str]:
        """Install, and return a whole environment: this process's with the additions.

        :param script: as in :meth:`install`
        """
        return {**os.environ, **self.install(script)}

    def calls(self) -> list[list[str]]:
        """Return the programs that were run, with their arguments, in order."""
        file = self.state.folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def apps(self) -> list[int]:
        """Return the process ids of the apps that run on the devices."""
        files = self.state.folder.glob("devices/*/apps/*/pid")
        pids = [int(file.read_text() or 0) for file in files]
        return [pid for pid in pids if is_alive(pid)]

    def left_behind(self) -> list[str]:
        """Return the files that lie in the containers of the devices' apps."""
        containers = self.state.folder.glob("devices/*/apps/*/container")
        return sorted(
            str(path.relative_to(container))
            for container in containers
            for path in container.rglob("*")
            if path.is_file()
        )


def _others(variable: str, *mine: Path) -> list[str]:
    paths = os.environ.get(variable, "").split(os.pathsep)
    return [path for path in paths if path and path not in map(str, mine)]


def _write_program(file: Path, name: str) -> None:
    # Without site: its start-up files cost more time than the program itself.
    code = (
        f"import sys; sys.path[:0] = [{str(_ROOT)!r}]; "
        f"from fastvlm_ops.local.apple.programs import main; sys.exit(main({name!r}, sys.argv[1:]))"
    )
    file.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -SE -c {shlex.quote(code)} "$@"\n')
    file.chmod(0o755)


# Python runs this when it starts. In place of Core ML's library it offers coremltools the stand-in's.
_STARTUP = """\
import sys
sys.path[:0] = [{root!r}] if {root!r} not in sys.path else []
from fastvlm_ops.local.apple import startup
startup.install()
"""
