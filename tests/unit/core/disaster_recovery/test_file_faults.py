"""Files that are damaged or removed, and come back: whole, always, and nothing else is touched."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from fastvlm_ops.core.disaster_recovery import faults
from fastvlm_ops.core.disaster_recovery.fault_entries import new_entry, read_entry, write_entry
from fastvlm_ops.core.disaster_recovery.fault_types import Fault, FileFault, ProcessFault
from fastvlm_ops.core.disaster_recovery.faults import file as file_faults
from fastvlm_ops.core.disaster_recovery.faults.errors import FaultError
from fastvlm_ops.core.disaster_recovery.holding import arm
from fastvlm_ops.core.disaster_recovery.reaper import reap
from fastvlm_ops.core.programs.proc import process_id
from fastvlm_ops.core.services.instances import ProcessIdentity
from fastvlm_ops.core.services.places import MARKER_FILE
from tests.dying import Dead, dying_after, every_death

WEIGHTS = bytes(range(256)) * 40
CASES = [
    ("corrupt", "models/small.mlpackage/weights.bin"),
    ("truncate", "models/small.mlpackage/weights.bin"),
    ("delete", "models/small.mlpackage/weights.bin"),
    ("delete", "models"),
    ("delete", ""),
]
NAMES = [f"{how} {path or 'all'}" for how, path in CASES]


def make_place(folder: Path) -> Path:
    place = folder / "store"
    (place / "models/small.mlpackage").mkdir(parents=True)
    (place / "models/small.mlpackage/weights.bin").write_bytes(WEIGHTS)
    (place / "models/small.mlpackage/Manifest.json").write_text('{"a": 1}')
    (place / "manifest.json").write_text("{}")
    (place / "latest").symlink_to("models")
    (place / MARKER_FILE).write_text('{"service": "demo", "environment": "demo"}')
    os.utime(place / "models/small.mlpackage/weights.bin", ns=(10**18, 10**18 + 7))
    return place


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # hundreds of deaths, and none of the kernel


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make_place(tmp_path)


def fault_in(place: Path, how: str, path: str, **rest: int) -> FileFault:
    return FileFault.model_validate(
        {"how": how, "place": str(place), "path": path, "kept": str(place.parent / "kept-f1"), **rest}
    )


def contents(folder: Path) -> dict[str, object]:
    """All there is below a folder: kinds, modes, times, bytes, targets of links."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        what: object = status.st_mode
        if path.is_symlink():
            what = path.readlink()
        elif path.is_file():
            what = (status.st_mode, status.st_mtime_ns, path.read_bytes())
        found[str(path.relative_to(folder))] = what
    return found


@pytest.mark.parametrize(("how", "path"), CASES, ids=NAMES)
def test_it_is_there_and_comes_back(place: Path, how: str, path: str) -> None:
    before = contents(place)
    fault = fault_in(place, how, path, bytes=3)
    faults.inject(fault)
    assert contents(place) != before
    assert "still kept" in (faults.is_left(fault) or "")
    faults.revert(fault)
    assert contents(place) == before
    assert faults.is_left(fault) is None
    assert os.listdir(place.parent) == ["store"]
    assert "nothing had to be done" in faults.revert(fault)  # again changes nothing
    assert contents(place) == before


def test_what_each_does(place: Path) -> None:
    weights = place / "models/small.mlpackage/weights.bin"
    before = weights.stat()
    fault = fault_in(place, "corrupt", "models/small.mlpackage/weights.bin", bytes=3)
    faults.inject(fault)
    after = weights.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_mode) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_mode,
    )
    different = [
        at for at, (one, two) in enumerate(zip(weights.read_bytes(), WEIGHTS, strict=True)) if one != two
    ]
    assert len(different) == 3
    assert different[0] == (len(WEIGHTS) - 3) // 2
    faults.revert(fault)
    fault = fault_in(place, "truncate", "models/small.mlpackage/weights.bin")
    faults.inject(fault)
    assert weights.read_bytes() == WEIGHTS[: len(WEIGHTS) // 2]
    faults.revert(fault)
    faults.inject(fault_in(place, "delete", ""))
    assert os.listdir(place) == [MARKER_FILE]  # what the place belongs to stays known


def test_damage_wider_than_what_is_read_at_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_faults, "_CHUNK_BYTES", 1000)
    weights = place / "models/small.mlpackage/weights.bin"
    whole = os.urandom(5003)
    weights.write_bytes(whole)
    fault = fault_in(place, "corrupt", "models/small.mlpackage/weights.bin", bytes=2501)
    faults.inject(fault)
    damaged = weights.read_bytes()
    assert sum(one != two for one, two in zip(damaged, whole, strict=True)) == 2501
    faults.revert(fault)
    assert weights.read_bytes() == whole


@pytest.mark.parametrize(("how", "path"), CASES, ids=NAMES)
def test_a_death_while_it_is_injected_leaves_what_comes_back(tmp_path: Path, how: str, path: str) -> None:
    deaths = 0
    place = make_place(tmp_path)
    before = contents(place)
    fault = fault_in(place, how, path)
    for changes in every_death(lambda: faults.inject(fault)):
        deaths += 1
        faults.revert(fault)
        assert contents(place) == before, changes
        assert faults.is_left(fault) is None
        assert os.listdir(tmp_path) == ["store"], changes
    assert deaths >= 5


@pytest.mark.parametrize(("how", "path"), CASES, ids=NAMES)
def test_a_death_while_it_comes_back_leaves_what_comes_back(tmp_path: Path, how: str, path: str) -> None:
    place = make_place(tmp_path)
    before = contents(place)
    fault = fault_in(place, how, path)

    def run() -> None:
        if faults.is_left(fault) is None:  # the death before was so late that it was back already
            return
        faults.revert(fault)

    faults.inject(fault)
    deaths = 0
    for changes in every_death(run):
        deaths += 1
        # A second death, of the one who tries again, and then one who lives.
        with contextlib.suppress(Dead), dying_after(changes // 2):
            run()
        run()
        assert contents(place) == before
        assert faults.is_left(fault) is None
        assert os.listdir(tmp_path) == ["store"]
        faults.inject(fault)
    faults.revert(fault)
    assert contents(place) == before
    assert deaths >= 3


def test_the_same_contents_by_hash_stay(place: Path) -> None:
    fault = fault_in(place, "delete", "models")
    copy = place.parent / "copy"
    shutil.copytree(place / "models", copy)
    faults.inject(fault)
    shutil.copytree(copy, place / "models")
    restored = (place / "models/small.mlpackage/weights.bin").stat().st_ino
    assert "the same contents were there already" in faults.revert(fault)
    assert (place / "models/small.mlpackage/weights.bin").stat().st_ino == restored


@pytest.mark.parametrize(("how", "path"), CASES[:4], ids=NAMES[:4])
def test_what_came_in_its_place_is_set_aside(place: Path, how: str, path: str) -> None:
    before = contents(place)
    fault = fault_in(place, how, path)
    faults.inject(fault)
    target = place / path
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    target.write_bytes(b"an older backup, or a new model")
    assert "what had come in its place is in" in faults.revert(fault)
    assert contents(place) == before
    assert (place.parent / "kept-f1.replaced" / path).read_bytes() == b"an older backup, or a new model"


def test_a_place_that_was_removed_altogether_comes_back(place: Path) -> None:
    fault = fault_in(place, "delete", "models/small.mlpackage/weights.bin")
    faults.inject(fault)
    shutil.rmtree(place)
    faults.revert(fault)
    assert (place / "models/small.mlpackage/weights.bin").read_bytes() == WEIGHTS


REFUSED = {
    "outside": {"path": "../elsewhere"},
    "absolute": {"path": "/etc/hostname"},
    "not there": {"path": "models/other"},
    "marker": {"path": MARKER_FILE},
    "through a link": {"path": "latest/small.mlpackage/weights.bin"},
    "folder": {"path": "models", "how": "corrupt"},
    "link": {"path": "latest", "how": "truncate"},
    "no path": {"path": "", "how": "truncate"},
    "too small": {"path": "manifest.json", "how": "corrupt", "bytes": 3},
    "kept inside": {"kept": "{place}/kept"},
    "kept around": {"kept": "{parent}"},
    "kept is there": {"kept": "{parent}/there"},
    "kept nowhere": {"kept": "{parent}/absent/kept"},
    "kept relative": {"kept": "kept"},
    "other file system": {"kept": "/dev/shm/fastvlm-ops-kept-test"},
    "place is a link": {"place": "{parent}/link"},
    "place is a file": {"place": "{place}/manifest.json"},
    "place is relative": {"place": "store"},
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_as_it_should_be_is_not_touched(place: Path, case: dict[str, object]) -> None:
    parent = place.parent
    (parent / "elsewhere").write_text("of others")
    (parent / "there").mkdir()
    (parent / "there/file").write_text("of others")
    (parent / "link").symlink_to(place)
    before = contents(parent)
    values = {"how": "delete", "place": str(place), "path": "manifest.json", "kept": str(parent / "kept-f1")}
    changed = {
        key: value.format(place=place, parent=parent) if isinstance(value, str) else value
        for key, value in case.items()
    }
    fault = FileFault.model_validate({**values, **changed})
    with pytest.raises(FaultError):
        faults.inject(fault)
    assert contents(place) == {
        name.removeprefix("store/"): what for name, what in before.items() if name.startswith("store/")
    }
    if fault.kept not in (str(parent), str(parent / "there")):
        faults.revert(fault)
    else:
        with pytest.raises(FaultError, match="was not made by this fault"):
            faults.revert(fault)
    assert contents(parent) == before


def test_a_kept_folder_that_was_tampered_with_is_left_alone(place: Path) -> None:
    fault = fault_in(place, "delete", "models")
    faults.inject(fault)
    about = Path(fault.kept) / "about.json"
    true = about.read_text()
    for text in ("{", "[]", true.replace('"delete"', '"corrupt"'), true.replace('"models"', '"../models"')):
        about.write_text(text)
        kept = contents(Path(fault.kept))
        with pytest.raises(FaultError):
            faults.revert(fault)
        assert contents(Path(fault.kept)) == kept
        assert faults.is_left(fault)
    about.write_text(true)
    faults.revert(fault)
    assert json.loads((place / "models/small.mlpackage/Manifest.json").read_text()) == {"a": 1}


def test_a_link_that_was_put_in_the_way_is_not_followed(place: Path) -> None:
    fault = fault_in(place, "delete", "models/small.mlpackage/weights.bin")
    faults.inject(fault)
    outside = place.parent / "outside"
    (place / "models").rename(outside)
    (place / "models").symlink_to(outside)
    with pytest.raises(FaultError, match="reached by a link by now"):
        faults.revert(fault)
    assert not (outside / "small.mlpackage/weights.bin").exists()
    (place / "models").unlink()
    outside.rename(place / "models")
    faults.revert(fault)
    assert (place / "models/small.mlpackage/weights.bin").read_bytes() == WEIGHTS


def test_words_of_a_dry_run_touch_nothing(place: Path) -> None:
    before = contents(place.parent)
    said = faults.describe(fault_in(place, "delete", ""))
    assert said[0].startswith(f"remove all that is in {place}")
    assert said[1].startswith("taken back")
    assert contents(place.parent) == before


def held_in_another_container(drill_dir: Path, fault: Fault) -> Path:
    """The entry of a fault whose time is over, and whose holder ended with its container."""
    entry = new_entry(fault_id="f1", run_key="drill/run", fault=fault, time_to_live_seconds=5)
    file = arm(drill_dir, entry)
    over = {"expires_at": entry.armed_at, "expires_monotonic_ns": time.monotonic_ns() - 10**10}
    began = {"fault_at": entry.armed_at, "fault_monotonic_ns": 1, "injected_monotonic_ns": 2}
    write_entry(file, entry.changed(state="injected", namespace="pid:[1]", **began, **over))
    return file


def test_a_file_comes_back_though_the_container_that_removed_it_is_gone(place: Path, tmp_path: Path) -> None:
    before, fault = contents(place), fault_in(place, "delete", "models")
    faults.inject(fault)
    file = held_in_another_container(tmp_path / "drills", fault)
    (result,) = reap(tmp_path / "drills")
    assert result.outcome == "taken_back"
    assert contents(place) == before
    assert read_entry(file).undone_by == "reaper"


def test_processes_of_another_container_are_left_to_the_reaper_there(tmp_path: Path) -> None:
    this = process_id(os.getpid())
    assert this is not None
    fault = ProcessFault(
        how="stop", control="unix:/nowhere.sock", instance="replica-1", identity=ProcessIdentity.of(this)
    )
    held_in_another_container(tmp_path, fault)
    (result,) = reap(tmp_path)
    assert (result.outcome, "another container" in result.detail) == ("left", True)
