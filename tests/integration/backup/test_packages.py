"""A Core ML package is backed up as one thing: all of one version, or it says that it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fastvlm_ops.core.backup import (
    FolderSource,
    Repository,
    SnapshotResult,
    SourceError,
    create_snapshot,
    restore_snapshot,
)
from fastvlm_ops.core.backup.sources import OnChange, ScannedEntry, SourceView

FILES = ("Data/weights/weight.bin", "Manifest.json")


class Meddling(FolderSource):
    """A folder in which something happens whenever a package's last file is opened."""

    def __init__(self, path: Path, happens: Callable[[], None], on_change: OnChange = "warn") -> None:
        super().__init__(path, on_change=on_change)
        self.happens = happens

    def _scan(
        self, directory: int, path: bytes, name: bytes, package: bytes | None, view: SourceView
    ) -> ScannedEntry | None:
        scanned = super()._scan(directory, path, name, package, view)
        if scanned is not None and name == b"Manifest.json":
            opening = scanned.open

            def meddle() -> int:
                self.happens()
                return opening()

            scanned.open = meddle
        return scanned


def write(package: Path, version: int) -> None:
    """A new version comes as people copy them: file by file, over the old one."""
    for name in FILES:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(f"version {version}" + "." * version)


def back_up(repository: Repository, source: FolderSource, run_key: str = "run") -> SnapshotResult:
    return create_snapshot(repository, source, component="models", kind="full", run_key=run_key)


def versions(folder: Path) -> set[str]:
    return {(folder / "kit.mlpackage" / name).read_text() for name in FILES}


def test_a_package_replaced_while_it_is_read_is_read_again(repository: Repository, tmp_path: Path) -> None:
    package = tmp_path / "source" / "kit.mlpackage"
    write(package, 1)
    (tmp_path / "source" / "other.txt").write_text("beside it")
    times = 0

    def replace_once() -> None:
        nonlocal times
        times += 1
        if times == 1:
            write(package, 2)

    result = back_up(repository, Meddling(tmp_path / "source", replace_once))
    restore_snapshot(repository, result.snapshot_id, tmp_path / "target")
    assert versions(tmp_path / "target") == {"version 2.."}
    assert (times, result.warnings, result.files) == (2, (), 3)


@pytest.mark.parametrize("on_change", ["warn", "fail"])
def test_a_package_that_never_stands_still(
    repository: Repository, tmp_path: Path, on_change: OnChange
) -> None:
    package = tmp_path / "source" / "kit.mlpackage"
    write(package, 1)
    times = 1

    def replace_always() -> None:
        nonlocal times
        times += 1
        write(package, times)

    source = Meddling(tmp_path / "source", replace_always, on_change)
    if on_change == "fail":
        with pytest.raises(SourceError, match=r"kit\.mlpackage.* changed while it was read, 3 times"):
            back_up(repository, source)
        assert repository.refresh().snapshots == {}
        return
    result = back_up(repository, source)
    assert any("kit.mlpackage: the package changed while it was read" in item for item in result.warnings)
    restore_snapshot(repository, result.snapshot_id, tmp_path / "target")


def test_a_package_that_vanishes_is_left_out_and_said_so(repository: Repository, tmp_path: Path) -> None:
    package = tmp_path / "source" / "kit.mlpackage"
    write(package, 1)
    (tmp_path / "source" / "other.txt").write_text("beside it")
    result = back_up(repository, Meddling(tmp_path / "source", lambda: _move(package, tmp_path / "moved")))
    assert any("vanished" in item for item in result.warnings)
    restore_snapshot(repository, result.snapshot_id, tmp_path / "target")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["other.txt"]


def _move(package: Path, where: Path) -> None:
    if package.exists():
        package.rename(where)
