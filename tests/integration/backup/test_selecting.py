"""Choosing what to restore: which backup, which paths, over what."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.backup import (
    BackupNotFoundError,
    FolderSource,
    Repository,
    RestoreTargetError,
    create_snapshot,
    publish_set,
    restore_snapshot,
    select_set,
)
from tests.trees import describe, make_hard_tree, make_plain_tree


def back_up(repository: Repository, folder: Path, run_key: str, kind: str = "full") -> str:
    result = create_snapshot(
        repository,
        FolderSource(folder),
        component="models",
        kind="full" if kind == "full" else "incremental",
        run_key=run_key,
    )
    publish_set(
        repository,
        set_id=f"set-{run_key}",
        kind=kind,
        run_key=run_key,
        components=["models"],
        timestamp=datetime(2001, 1, 1, tzinfo=UTC),  # a clock that is far off decides nothing
    )
    return result.snapshot_id


def test_by_id_latest_and_point_in_time(repository: Repository, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "source", large_bytes=1000)
    before = datetime.now(UTC) - timedelta(seconds=5)
    moments = []
    for number, kind in enumerate(("full", "incremental", "configuration", "incremental")):
        back_up(repository, tree, str(number), kind)
        moments.append(datetime.now(UTC))
        time.sleep(1.2)  # S3 stamps whole seconds
    assert select_set(repository, "set-1").set_id == "set-1"
    assert select_set(repository, "latest").set_id == "set-3"
    assert select_set(repository, "latest-configuration").set_id == "set-2"
    assert select_set(repository, "latest-full").set_id == "set-0"
    by_then = [select_set(repository, moment.isoformat()).set_id for moment in moments]
    assert by_then == ["set-0", "set-1", "set-1", "set-3"]
    assert select_set(repository, moments[0].replace(tzinfo=None).isoformat()).set_id == "set-0"
    with pytest.raises(BackupNotFoundError, match=r"no backup .* was published by .*; the newest are set-3"):
        select_set(repository, before.isoformat())
    for absent in ("latest-weekly", "set-9", "2026-99-99"):
        with pytest.raises(BackupNotFoundError, match=f"no backup '{absent}'"):
            select_set(repository, absent)


PATHS = {
    ("group-1",): lambda path: path.startswith(b"group-1/"),
    ("group-1/**", "group-2/"): lambda path: path.startswith((b"group-1/", b"group-2/")),
    ("*/file-7.yaml",): lambda path: path.endswith(b"/file-7.yaml"),
    ("not-utf8-*", "empty-folder"): lambda path: path.startswith((b"not-utf8", b"empty-folder")),
    ("second-name", "zz-third-name"): lambda path: path in (b"second-name", b"zz-third-name"),
    ("*",): lambda path: path != b".",
}


@pytest.mark.parametrize("patterns", PATHS)
def test_by_path(repository: Repository, tmp_path: Path, patterns: tuple[str, ...]) -> None:
    tree = make_hard_tree(tmp_path / "source")
    snapshot = back_up(repository, tree, "run")
    result = restore_snapshot(repository, snapshot, tmp_path / "target", paths=patterns)
    original, restored = describe(tree), describe(tmp_path / "target")
    wanted = {path for path in original if PATHS[patterns](path)}
    folders = {os.path.dirname(path) for path in wanted} - {b""} | {b"."}
    assert set(restored) == wanted | {path for path in folders if path in original}
    assert result.files == sum("sha256" in original[path] for path in wanted)
    for path in wanted:
        original[path].pop("same_file_as", None)
        restored[path].pop("same_file_as", None)  # of hard links, the first may not be restored
        assert restored[path] == original[path], path
    if "second-name" in patterns:  # what were links to one file are again
        assert os.path.samefile(tmp_path / "target" / "second-name", tmp_path / "target" / "zz-third-name")


def test_a_path_that_is_not_there_is_refused(repository: Repository, tmp_path: Path) -> None:
    snapshot = back_up(repository, make_plain_tree(tmp_path / "source"), "run")
    with pytest.raises(BackupNotFoundError, match="has no path like grop-1"):
        restore_snapshot(repository, snapshot, tmp_path / "target", paths=["grop-1"])
    assert not (tmp_path / "target").exists()


def change(tree: Path) -> dict[bytes, dict[str, Any]]:
    """Make a tree differ in every way that overwriting may meet; returns it as it is then."""
    (tree / "group-1" / "file-1.yaml").write_text("changed by somebody\n")
    (tree / "group-2" / "file-2.yaml").unlink()
    (tree / "group-3" / "own.txt").write_text("not in the backup")
    (tree / "group-3" / "file-3.yaml").unlink()
    (tree / "group-3" / "file-3.yaml").symlink_to("/etc/hostname")
    (tree / "group-4").chmod(0o750)
    return describe(tree)


def test_overwriting_replaces_what_differs_and_can_be_undone(repository: Repository, tmp_path: Path) -> None:
    tree = make_plain_tree(tmp_path / "source")
    snapshot = back_up(repository, tree, "run")
    original = describe(tree)
    untouched = (tree / "model.mlpackage" / "weight.bin").stat().st_ino
    changed = change(tree)
    kept = tmp_path / "replaced"
    plan = restore_snapshot(repository, snapshot, tree, overwrite=True, keep_replaced=kept, dry_run=True)
    assert describe(tree) == changed
    result = restore_snapshot(repository, snapshot, tree, overwrite=True, keep_replaced=kept)
    assert (plan.replaced_files, plan.kept_files) == (result.replaced_files, result.kept_files)
    assert (result.replaced_files, result.replaced_in) == (2, os.fspath(kept))
    after = describe(tree)
    assert after.pop(b"group-3/own.txt") == changed[b"group-3/own.txt"]
    assert after == original
    assert (tree / "model.mlpackage" / "weight.bin").stat().st_ino == untouched  # equal: not written again
    before = {path: about for path, about in describe(kept).items() if about["type"] != 0o040000}
    assert set(before) == {b"group-1/file-1.yaml", b"group-3/file-3.yaml"}
    assert all(before[path]["mtime_ns"] == changed[path]["mtime_ns"] for path in before)
    again = restore_snapshot(repository, snapshot, tree, overwrite=True, keep_replaced=kept)
    assert (again.replaced_files, again.fetched_bytes < 100_000) == (0, True)


def test_overwriting_never_turns_folders_into_files_nor_follows_links(
    repository: Repository, tmp_path: Path
) -> None:
    tree = make_plain_tree(tmp_path / "source")
    snapshot = back_up(repository, tree, "run")
    outside = tmp_path / "outside"
    outside.mkdir()
    (tree / "group-1" / "file-1.yaml").unlink()
    (tree / "group-1" / "file-1.yaml").mkdir()
    (tree / "group-2").rename(tmp_path / "moved")
    (tree / "group-2").symlink_to(outside)
    changed = describe(tree)
    for dry_run in (True, False):
        with pytest.raises(RestoreTargetError, match=r"2 places differ: group-1/file-1.yaml is a directory"):
            restore_snapshot(
                repository, snapshot, tree, overwrite=True, keep_replaced=tmp_path / "kept", dry_run=dry_run
            )
    assert describe(tree) == changed
    assert list(outside.iterdir()) == []
    with pytest.raises(RestoreTargetError, match="needs a folder for what it replaces"):
        restore_snapshot(repository, snapshot, tree, overwrite=True)
