"""Processes are found and stopped, and no others."""

from __future__ import annotations

import dataclasses
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvlm_ops.core.programs.proc import process_id
from fastvlm_ops.local.processes import MARKER, Processes, ProcessStartError, tail

# A leader that ignores SIGTERM, and starts a child that leaves its session.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; print('away', flush=True); time.sleep(60)"],
                 start_new_session=True)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    yield made
    made.stop(patience_seconds=0)


def start(processes: Processes, code: str = "import time; time.sleep(60)", name: str = "sleeper"):
    return processes.start(
        name, [sys.executable, "-c", code], environment=dict(os.environ), log=processes.folder / f"{name}.log"
    )


def wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def test_stops_what_it_started(processes: Processes) -> None:
    process = start(processes)
    process.check()
    assert [member.pid for member in processes.alive()] == [process.id.pid]
    assert processes.stop() == []
    assert not process.id.alive
    assert not processes.file.exists()
    with pytest.raises(ProcessStartError, match="sleeper has ended"):
        process.check()


def test_stops_also_what_ignores_it_and_what_left_the_session(processes: Processes) -> None:
    process = start(processes, STUBBORN)
    wait_for(process.log, "ready")
    wait_for(process.log, "away")
    assert len(processes.alive()) == 2
    assert processes.stop(patience_seconds=0.3) == []
    assert processes.alive() == []


def test_another_object_stops_them_also_without_the_state_file(processes: Processes) -> None:
    process = start(processes)
    processes.file.unlink()
    assert Processes(processes.folder).stop() == []
    assert process.id.pid not in [member.pid for member in processes.alive()]


def test_a_process_that_got_the_number_later_is_left_alone(processes: Processes) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        identity = process_id(stranger.pid)
        assert identity is not None
        earlier = dataclasses.replace(identity, started=identity.started - 1)
        other_boot = dataclasses.replace(identity, boot="0")
        for old in (earlier, other_boot):
            entry = {"name": "old", "id": dataclasses.asdict(old), "log": "/dev/null"}
            processes.note(processes=[entry])
            assert not old.alive
            assert not old.signal(signal.SIGKILL)
            assert processes.stop(patience_seconds=0) == []
            assert stranger.poll() is None
        stranger.kill()


def test_a_process_of_another_state_folder_is_left_alone(processes: Processes, tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    other = Processes(beside)
    process = start(other)
    start(processes)
    assert processes.stop() == []
    assert process.id.alive
    other.stop(patience_seconds=0)


def test_the_state_file_is_for_its_owner_only(processes: Processes) -> None:
    start(processes)
    assert stat.S_IMODE(processes.file.stat().st_mode) == 0o600
    processes.note(ready={"a": 1})
    assert stat.S_IMODE(processes.file.stat().st_mode) == 0o600
    assert processes.read()["ready"] == {"a": 1}
    assert [process.name for process in processes.recorded()] == ["sleeper"]


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_broken_state_file_does_not_keep_it_from_stopping_them(processes: Processes, content: str) -> None:
    process = start(processes)
    processes.file.write_text(content)
    assert processes.stop() == []
    assert not process.id.alive
    assert not processes.file.exists()


def test_children_carry_the_marker(processes: Processes) -> None:
    process = start(processes, f"import os; print(os.environ[{MARKER!r}])")
    assert processes.wait(process) == 0
    assert process.log.read_text().strip() == str(processes.folder)


def test_tail(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == ""
    log.write_text("\n".join(str(number) for number in range(100)))
    assert tail(log, lines=2) == "98\n99"


def test_folders_outside_are_noted_once_each(processes: Processes, tmp_path: Path) -> None:
    assert processes.outside() == []
    for name in ("b", "a", "b"):
        processes.note_outside(tmp_path / name)
    assert processes.outside() == [tmp_path / "a", tmp_path / "b"]


def test_two_that_record_at_once_lose_nothing(processes: Processes, tmp_path: Path) -> None:
    """As a supervisor does beside what started it."""
    code = (
        "import sys; from pathlib import Path; from fastvlm_ops.local.processes import Processes;"
        "[Processes(Path(sys.argv[1])).note_outside(Path(f'/{sys.argv[2]}-{n}')) for n in range(50)]"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    writers = [subprocess.Popen([*command, name]) for name in ("a", "b", "c")]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(processes.outside()) == 150
