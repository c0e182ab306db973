"""Disks that are full or read-only: real file systems of a few MiB, in memory, mounted for the test."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvlm_ops.core.disaster_recovery.fault_types import DiskFault
from fastvlm_ops.core.disaster_recovery.faults import describe, inject, is_left, revert
from fastvlm_ops.core.disaster_recovery.faults.disk import MAX_BYTES, disk_fault
from fastvlm_ops.core.disaster_recovery.faults.errors import FaultError
from fastvlm_ops.core.disaster_recovery.mounts import mount_of

pytestmark = pytest.mark.integration

OPTIONS = "nosuid,nodev,noexec"


def mount(folder: Path, options: str = "size=2m") -> None:
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"{options},{OPTIONS}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose name has a space in it, with a small file system of its own; unmounted at the end."""
    folder = tmp_path.resolve() / "a disk"
    mount(folder)
    try:
        (folder / "file").write_bytes(b"before")
        yield folder
    finally:
        while any(str(folder.parent) in str(point) for point in _mounted(folder.parent)):
            for point in _mounted(folder.parent):
                subprocess.run(["umount", str(point)], check=True, capture_output=True)


def _mounted(parent: Path) -> list[Path]:
    return [point for point in parent.iterdir() if mount_of(point)]


def files(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_a_full_disk_takes_nothing_until_the_fault_is_taken_back(folder):
    fault = disk_fault(folder, "full")
    assert is_left(fault) is None
    inject(fault)
    with pytest.raises(OSError, match="No space left") as raised:
        (folder / "more").write_bytes(b"x")
    assert raised.value.errno == errno.ENOSPC
    assert (folder / "file").read_bytes() == b"before"
    assert "bytes is in" in (is_left(fault) or "")
    with pytest.raises(FaultError, match="left of an earlier drill"):
        inject(fault)
    assert "filler was removed" in revert(fault)
    (folder / "more").write_bytes(bytes(1 << 20))
    assert files(folder) == ["file", "more"]
    assert is_left(fault) is None
    assert "nothing had to be done" in revert(fault)


def test_a_read_only_disk_is_mounted_as_it_was_again(folder):
    before, size = mount_of(folder), os.statvfs(folder).f_blocks
    fault = disk_fault(folder, "read_only")
    inject(fault)
    with pytest.raises(OSError, match="Read-only") as raised:
        (folder / "more").write_bytes(b"x")
    assert raised.value.errno == errno.EROFS
    assert is_left(fault) == f"{folder} is mounted read-only"
    assert "rw," in revert(fault)
    assert (mount_of(folder), os.statvfs(folder).f_blocks) == (before, size)
    assert files(folder) == ["file"]
    (folder / "more").write_bytes(b"x")
    assert is_left(fault) is None
    assert "nothing had to be done" in revert(fault)


def test_what_was_only_begun_is_taken_back(folder):
    fault = disk_fault(folder, "read_only")
    inject(fault)
    # As after a revert that was killed between its two steps.
    subprocess.run(["mount", "-o", f"remount,{fault.options}", str(folder)], check=True)
    assert "is in" in (is_left(fault) or "")
    assert "it was writable" in revert(fault)
    assert files(folder) == ["file"]


@pytest.mark.parametrize("how", ["full", "read_only"])
def test_another_file_system_mounted_there_is_not_touched(folder, how):
    fault = disk_fault(folder, how)
    inject(fault)
    subprocess.run(["umount", str(folder)], check=True)
    assert is_left(fault) is None
    assert "nothing is mounted" in revert(fault)
    # Read-only by somebody's own wish; the kernel may well have given it the same number.
    mount(folder, "size=2m,ro")
    for claimed in (fault, fault.model_copy(update={"device": folder.stat().st_dev})):
        assert is_left(claimed) is None
        assert "nothing of this fault" in revert(claimed)
    assert mount_of(folder).is_read_only


def test_a_disk_that_is_not_the_one_that_was_armed_is_not_hit(folder):
    armed = disk_fault(folder, "full")
    for changes in ({"device": armed.device + 1}, {"options": "rw,relatime"}):
        with pytest.raises(FaultError, match="make a new plan"):
            inject(armed.model_copy(update=changes))
    assert files(folder) == ["file"]


def test_a_disk_under_another_number_is_not_made_writable(folder):
    fault = disk_fault(folder, "read_only")
    other = fault.model_copy(update={"device": fault.device + 1})
    # As it would be after a boot that numbered the devices in another way, and an administrator's change.
    Path(describe(other)[0].split(",")[0].removeprefix("write ")).touch()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    with pytest.raises(FaultError, match="by hand"):
        revert(other)
    assert mount_of(folder).is_read_only


def test_a_link_in_the_place_of_the_filler_is_not_followed(folder, tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    fault = disk_fault(folder, "full")
    Path(describe(fault)[1].removeprefix("remove ")).symlink_to(precious)
    for act in (inject, revert, is_left):
        with pytest.raises(FaultError, match="left"):
            act(fault)
    assert precious.read_bytes() == b"precious"


def test_a_disk_with_a_file_open_for_writing_is_not_made_read_only(folder):
    fault = disk_fault(folder, "read_only")
    with (folder / "file").open("ab"):
        with pytest.raises(FaultError, match="open for writing"):
            inject(fault)
        assert "it was writable" in revert(fault)
    assert files(folder) == ["file"]


def test_only_a_small_file_system_of_its_own_may_be_hit(folder, tmp_path):
    (folder / "inside").mkdir()
    for place in (folder / "inside", tmp_path, Path("/")):
        with pytest.raises(FaultError, match="no file system of its own"):
            disk_fault(place, "read_only")
    large = tmp_path / "large"
    mount(large, f"size={(MAX_BYTES >> 20) + 1}m")
    assert isinstance(disk_fault(large, "read_only"), DiskFault)
    with pytest.raises(FaultError, match="has 65 MiB; at most 64"):
        disk_fault(large, "full")
    seen = tmp_path / "seen here too"
    seen.mkdir()
    subprocess.run(["mount", "--bind", str(folder), str(seen)], check=True)
    for place, other in ((folder, seen), (seen, folder)):
        with pytest.raises(FaultError, match=f"mounted elsewhere too .*{other.name}"):
            disk_fault(place, "full")
    subprocess.run(["umount", str(seen)], check=True)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    with pytest.raises(FaultError, match="read-only already"):
        disk_fault(folder, "full")
    assert os.listdir(large) == []
