"""Whatever happens to a tree between backups, each snapshot brings back exactly its moment."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastvlm_ops.core.backup import (
    FolderSource,
    Repository,
    S3Storage,
    create_snapshot,
    initialise_repository,
    restore_snapshot,
    sources,
)
from fastvlm_ops.core.backup.sources import entry_from_status
from fastvlm_ops.core.backup.tree import Entry
from tests.integration.backup.conftest import PASSPHRASE
from tests.trees import describe

NAMES = ("a", "b", "b.x", "c.mlpackage", "É", "a/a", "a/b", "c.mlpackage/w", "c.mlpackage/a/b", "z/y/x")
SECOND = 1_000_000_000
KEPT = "kept"  # an empty tree would be refused

Edit = Callable[[Path, Path, random.Random], None]
History = list[tuple[list[tuple[Edit, str, str, int]], str]]  # edits, then a backup of this kind


def _lines(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 5, 5, 5, 4096, 70_000)))


def _clear(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


def _make_room(path: Path, root: Path) -> None:
    """Only folders above a path, and nothing in its place."""
    for above in reversed(path.relative_to(root).parents[:-1]):
        if (root / above).is_symlink() or not (root / above).is_dir():
            _clear(root / above)
            (root / above).mkdir()
    _clear(path)


def write(path: Path, other: Path, rng: random.Random) -> None:
    path.write_bytes(_lines(rng))


def append(path: Path, other: Path, rng: random.Random) -> None:
    with path.open("ab") as file:
        file.write(_lines(rng))


def truncate(path: Path, other: Path, rng: random.Random) -> None:
    os.truncate(path, path.stat().st_size * rng.randrange(3) // 2)  # longer, too: a hole at the end


def overwrite(path: Path, other: Path, rng: random.Random) -> None:
    """Other bytes, the same size, and the time it had before."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(status.st_size // 2)
        file.write(rng.randbytes(status.st_size - status.st_size // 2))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def touch_old(path: Path, other: Path, rng: random.Random) -> None:
    os.utime(path, ns=(0, rng.choice((0, 1, 1_000_000_000, 1_600_000_000_123_456_789))))


def chmod(path: Path, other: Path, rng: random.Random) -> None:
    path.chmod(rng.choice((0o600, 0o644, 0o755, 0o700)))


def attribute(path: Path, other: Path, rng: random.Random) -> None:
    os.setxattr(path, "user.note", rng.randbytes(3))


def exchange(path: Path, other: Path, rng: random.Random) -> None:
    """Two files of one size and time, each now where the other was."""
    between = path.with_name("between")
    other.write_bytes(rng.randbytes(path.stat().st_size))
    os.utime(other, ns=(0, path.stat().st_mtime_ns))
    path.rename(between)
    other.rename(path)
    between.rename(other)


def rename(path: Path, other: Path, rng: random.Random) -> None:
    path.rename(other)


def hard_link(path: Path, other: Path, rng: random.Random) -> None:
    os.link(path, other)


def symlink(path: Path, other: Path, rng: random.Random) -> None:
    _clear(path)
    path.symlink_to(other.name)


def delete(path: Path, other: Path, rng: random.Random) -> None:
    _clear(path)


def folder(path: Path, other: Path, rng: random.Random) -> None:
    _clear(path)
    path.mkdir()
    (path / "inside").write_bytes(_lines(rng))


EDITS: tuple[Edit, ...] = (
    write,
    append,
    truncate,
    overwrite,
    touch_old,
    chmod,
    attribute,
    exchange,
    rename,
    hard_link,
    symlink,
    delete,
    folder,
)
ON_ANYTHING = (symlink, delete, folder, chmod)
WITH_ROOM = (exchange, rename, hard_link)


def apply(edit: Edit, root: Path, name: str, other: str, seed: int) -> None:
    """Do an edit, after whatever it needs to be possible."""
    rng = random.Random(seed)
    path, beside = root / name, root / other
    real = path.is_file() and not path.is_symlink() and not _through_link(path, root)
    if not real and not (edit in ON_ANYTHING and path.is_dir() and not _through_link(path, root)):
        _make_room(path, root)
        path.write_bytes(_lines(rng))
    if edit in WITH_ROOM:
        if name == other or path in beside.parents or beside in path.parents:
            return
        _make_room(beside, root)
    edit(path, beside, rng)


def _through_link(path: Path, root: Path) -> bool:
    return any((root / part).is_symlink() for part in path.relative_to(root).parents) or path.is_symlink()


a_name = st.sampled_from(NAMES)
an_edit = st.tuples(st.sampled_from(EDITS), a_name, a_name, st.integers(0, 99))
a_history = st.lists(
    st.tuples(st.lists(an_edit, max_size=8), st.sampled_from(("incremental", "incremental", "full"))),
    min_size=2,
    max_size=5,
)


def restored(repository: Repository, snapshot_id: str, target: Path) -> dict[bytes, dict[str, object]]:
    result = restore_snapshot(repository, snapshot_id, target)
    assert result.warnings == ()
    return describe(target)


def coarsen(root: Path) -> None:
    """Times of whole seconds, as some file systems keep them."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, ns=(0, path.stat().st_mtime_ns // SECOND * SECOND))


def coarse_entry(path: bytes, status: os.stat_result) -> Entry | None:
    entry = entry_from_status(path, status)
    if entry is not None:
        entry.ctime_ns = entry.ctime_ns // SECOND * SECOND
    return entry


@pytest.mark.parametrize("clock", ["fine", "coarse"])
@settings(
    max_examples=11,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(history=a_history)
def test_every_snapshot_is_its_moment(
    storage: S3Storage,
    tmp_path: Path,
    clock: str,
    history: History,
) -> None:
    """Edits follow backups within a tick of the file system's clock, so that times alone do not tell."""
    with pytest.MonkeyPatch.context() as patch:
        if clock == "coarse":
            patch.setattr(sources, "entry_from_status", coarse_entry)
        live_through(history, storage, tmp_path, clock)


def live_through(
    history: History,
    storage: S3Storage,
    tmp_path: Path,
    clock: str,
) -> None:
    work = Path(tempfile.mkdtemp(dir=tmp_path))
    repository = initialise_repository(S3Storage(storage.client, storage.bucket, work.name), PASSPHRASE)
    root = work / "source"
    root.mkdir()
    (root / KEPT).write_text("always there")
    moments = []
    for number, (edits, kind) in enumerate(history):
        for edit, name, other, seed in edits:
            apply(edit, root, name, other, seed)
        if clock == "coarse":
            coarsen(root)
        snapshot = create_snapshot(
            repository,
            FolderSource(root),
            component="models",
            kind="full" if kind == "full" else "incremental",
            run_key=f"run-{number}",
        )
        assert snapshot.warnings == ()
        moments.append((snapshot.snapshot_id, describe(root)))
    for number, (snapshot_id, moment) in enumerate(moments):
        assert restored(repository, snapshot_id, work / f"target-{number}") == moment
    shutil.rmtree(work)
