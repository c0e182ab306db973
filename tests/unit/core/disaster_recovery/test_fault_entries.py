"""Entries of faults: as they were written, or refused."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from fastvlm_ops.core.disaster_recovery.fault_entries import (
    LockBusyError,
    entry_file,
    locked,
    new_entry,
    read_entry,
    write_entry,
)
from fastvlm_ops.core.disaster_recovery.fault_types import LinkFault
from fastvlm_ops.core.disaster_recovery.faults.errors import EntryError, FaultError
from fastvlm_ops.core.disaster_recovery.holding import arm, inject, release
from fastvlm_ops.core.disaster_recovery.reaper import reap
from tests.dying import every_death

LINK = LinkFault(control="unix:/nowhere/control.sock", link="replica-1", disturbance="reset")


def entry_of(fault_id: str = "f1", seconds: float = 5):
    return new_entry(fault_id=fault_id, run_key="drill/run", fault=LINK, time_to_live_seconds=seconds)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return arm(tmp_path, entry_of())


def test_what_was_written_is_read(file: Path) -> None:
    assert read_entry(file) == entry_of().changed(armed_at=read_entry(file).armed_at)
    assert read_entry(file).state == "armed"
    assert read_entry(file).seconds_left is None
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_arming_again_changes_nothing_and_another_is_refused(file: Path, tmp_path: Path) -> None:
    before = file.read_bytes()
    assert arm(tmp_path, entry_of()) == file
    assert file.read_bytes() == before
    with pytest.raises(EntryError, match="another fault"):
        arm(tmp_path, entry_of(seconds=6))


@pytest.mark.parametrize("fault_id", ["", "../x", "a/b", "a" * 65, ".hidden", "a\n"])
def test_odd_ids_are_refused(fault_id: str) -> None:
    with pytest.raises(EntryError, match="fault_id"):
        entry_of(fault_id)


@pytest.mark.parametrize("seconds", [0, -1, 86_401, float("nan"), float("inf")])
def test_odd_times_to_live_are_refused(seconds: float) -> None:
    with pytest.raises(EntryError, match="time_to_live_seconds"):
        entry_of(seconds=seconds)


def edited(document: bytes, old: str, new: str) -> bytes:
    assert old.encode() in document
    return document.replace(old.encode(), new.encode())


def with_digest(document: bytes, **changes: object) -> bytes:
    """What somebody writes who knows how the digest is made, and not what an entry is."""
    import hashlib

    entry = {**json.loads(document)["entry"], **changes}
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    return json.dumps({"entry": entry, "sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()


HOSTILE = {
    "empty": lambda text: b"",
    "cut short": lambda text: text[: len(text) // 2],
    "one byte less": lambda text: text[:-1],
    "garbage": lambda text: bytes(range(256)),
    "zeros": lambda text: bytes(len(text)),
    "other JSON": lambda text: b"[]",
    "no digest": lambda text: json.dumps({"entry": json.loads(text)["entry"]}).encode(),
    "nested": lambda text: b"[" * 100_000,
    "other link": lambda text: edited(text, "replica-1", "replica-2"),
    "other state": lambda text: edited(text, '"armed"', '"undone"'),
    "other version": lambda text: with_digest(text, version=2),
    "unknown key": lambda text: with_digest(text, more=1),
    "unknown kind": lambda text: with_digest(text, fault={"kind": "bomb"}),
    "wrong type": lambda text: with_digest(text, time_to_live_seconds="5"),
    "other id": lambda text: with_digest(text, fault_id="f2"),
    "too large": lambda text: text + b" " * (1 << 20),
}


@pytest.mark.parametrize("damage", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_not_as_it_was_written_is_refused_and_reported(file: Path, tmp_path: Path, damage) -> None:
    file.write_bytes(damage(file.read_bytes()))
    before = file.read_bytes()
    with pytest.raises(EntryError, match=r"f1\.json"):
        read_entry(file)
    for act in (inject, release):
        with pytest.raises(EntryError, match=r"f1\.json"):
            act(file, 1)
    with pytest.raises(EntryError, match=r"f1\.json"):
        arm(tmp_path, entry_of())
    (result,) = reap(tmp_path)
    assert (result.fault_id, result.outcome, result.ok) == ("f1", "unreadable", False)
    assert "f1.json" in str(result)
    assert file.read_bytes() == before


def test_links_pipes_and_files_that_others_may_write_are_refused(file: Path, tmp_path: Path) -> None:
    file.chmod(0o620)
    with pytest.raises(EntryError, match="by others"):
        read_entry(file)
    elsewhere = tmp_path / "elsewhere.json"
    file.chmod(0o600)
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    with pytest.raises(EntryError, match="cannot be read"):
        read_entry(file)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(EntryError, match="not a file"):
        read_entry(file)


def test_an_entry_of_another_user_is_refused(file: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(file, 65534, -1)
    with pytest.raises(EntryError, match="of the user"):
        read_entry(file)


def test_what_was_called_off_is_never_injected(file: Path) -> None:
    entry = release(file, 5)
    assert (entry.state, entry.undone_by) == ("never_injected", "task")
    assert release(file, 5) == entry
    with pytest.raises(FaultError, match="called off"):
        inject(file, 5)
    assert not file.with_suffix(".log").exists()  # no holder was started


def test_one_that_was_never_armed_is_not_released(tmp_path: Path) -> None:
    with pytest.raises(EntryError, match="never armed here"):
        release(entry_file(tmp_path, "f1"), 1)


def test_a_death_while_an_entry_is_written_leaves_the_old_or_the_new(file: Path) -> None:
    old = read_entry(file)
    new = old.changed(problem="x" * 1000)
    for _ in every_death(lambda: write_entry(file, new)):
        assert read_entry(file) in (old, new)
        write_entry(file, old)
    assert read_entry(file) == new


def _hold(file: Path, ready, over) -> None:
    with locked(file, 1):
        ready.set()
        over.wait(60)


def test_the_lock_is_one_holders_and_ends_with_it(file: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, over = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(file, ready, over))
    other.start()
    assert ready.wait(60)
    with pytest.raises(LockBusyError), locked(file, 0.1):
        pass
    other.kill()
    other.join()
    with locked(file, 5):
        pass
