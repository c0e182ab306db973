"""``fastvlm-ops reap-faults``: what it says, and its exit codes."""

from __future__ import annotations

import fcntl
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvlm_ops.cli import main
from fastvlm_ops.core.disaster_recovery.fault_entries import make_folder


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def once(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, str]]]:
    code = main(["reap-faults", "--once", "--drill-dir", str(folder)])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_nothing_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert once(tmp_path / "drills", capsys) == (0, [])


def test_what_cannot_be_read_fails_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (make_folder(tmp_path) / "odd.json").write_text("garbage")
    code, said = once(tmp_path, capsys)
    assert code == 1
    assert [(one["event"], one["fault_id"]) for one in said] == [("unreadable", "odd")]


def test_another_one_is_at_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folder(tmp_path)
    with (tmp_path / "reaper.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, said = once(tmp_path, capsys)
    assert code == 4
    assert [one["event"] for one in said] == ["busy"]


def test_a_folder_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["reap-faults", "--once", "--drill-dir", str(tmp_path / "file")]) == 1
    assert "cannot be made" in capsys.readouterr().err
