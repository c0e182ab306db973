"""Trees at the edges of what file systems allow come back equal, or it is said what stands in the way."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import random
import resource
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fastvlm_ops.core.backup import (
    FolderSource,
    Repository,
    RestoreTargetError,
    S3Storage,
    SourceError,
    create_snapshot,
    files,
    open_repository,
    restore_snapshot,
)
from fastvlm_ops.core.backup.sources import OnChange, ScannedEntry, SourceView
from tests.integration.backup.conftest import PASSPHRASE
from tests.trees import describe

if TYPE_CHECKING:
    from fastvlm_ops.core.backup import RestoreResult, SnapshotResult
    from fastvlm_ops.local.seaweedfs import SeaweedFS

NOBODY = 65534
EDGES = sorted({0, 1, *(edge + by for edge in (64 << 10, 1 << 20, 4 << 20) for by in (-1, 0, 1))})
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter, and that goes however deep it has become."""
    path = Path(tempfile.mkdtemp(prefix="hard-trees-"))
    path.chmod(0o777)
    yield path
    subprocess.run(["rm", "-rf", path], check=True)


def back_up(repository: Repository, source: Path | FolderSource, run_key: str = "run") -> SnapshotResult:
    if isinstance(source, Path):
        source = FolderSource(source)
    return create_snapshot(repository, source, component="models", kind="incremental", run_key=run_key)


def round_trip(repository: Repository, folder: Path) -> tuple[SnapshotResult, RestoreResult]:
    snapshot = back_up(repository, folder / "source")
    return snapshot, restore_snapshot(repository, snapshot.snapshot_id, folder / "target")


# -- deep ------------------------------------------------------------------------------------------


def nest(root: Path, names: list[bytes], *, beside: bool = True) -> None:
    """Folders in each other, a file beside each or only the outermost, and a second name of that one deep
    down; made without ever naming a whole path.
    """
    root.mkdir()
    directory = os.open(root, os.O_RDONLY)
    top = os.dup(directory)
    for number, name in enumerate(names):
        if beside or not number:
            file = os.open(b"file", os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=directory)
            os.write(file, b"level %d" % number)
            os.close(file)
        os.mkdir(name, 0o750, dir_fd=directory)
        below = os.open(name, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.link(b"file", b"link", src_dir_fd=top, dst_dir_fd=directory)
    os.close(directory)
    os.close(top)


def describe_deep(root: Path) -> dict[str, tuple[Any, ...]]:
    """As :func:`describe`, by open directories; keyed by a hash, since the paths are long."""
    found = {}

    def add(key: bytes, name: bytes, directory: int) -> bytes:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        digest = b""
        if stat.S_ISREG(status.st_mode):
            with open(os.open(name, os.O_RDONLY, dir_fd=directory), "rb") as file:
                digest = file.read()
        key = hashlib.sha256(key + b"/" + name).digest()
        found[key.hex()] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, digest)
        return key

    directory, key = os.open(root, os.O_RDONLY), b""
    while directory >= 0:
        below = -1
        for name in map(os.fsencode, sorted(os.listdir(directory))):
            inner = add(key, name, directory)
            if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                below, key_below = os.open(name, os.O_RDONLY, dir_fd=directory), inner
        os.close(directory)
        directory, key = below, key_below if below >= 0 else b""
    return found


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize(
    "names",
    [
        pytest.param([b"%03d-" % number + b"n" * 240 for number in range(40)], id="path-of-9800-bytes"),
        pytest.param([b"d"] * 300, id="300-levels"),
        pytest.param([b"d"] * 1100, id="1100-levels"),
    ],
)
def test_deep_folders_come_back(
    repository: Repository, folder: Path, names: list[bytes], beside: bool
) -> None:
    nest(folder / "source", names, beside=beside)
    snapshot, restored = round_trip(repository, folder)
    assert (snapshot.warnings, restored.warnings) == ((), ())
    assert snapshot.files == (len(names) if beside else 1) + 1
    assert describe_deep(folder / "target") == describe_deep(folder / "source")


@pytest.mark.parametrize("hard_link", [False, True])
def test_hard_links_between_files_with_long_paths(
    repository: Repository, folder: Path, hard_link: bool
) -> None:
    """The first name of a linked file is a path that no system call would take."""
    names = [b"n" * 250] * 20
    nest(folder / "source", names)
    directory = os.open(folder / "source", os.O_RDONLY)
    for name in names:
        below = os.open(name, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.rename(b"link", b"other", src_dir_fd=directory, dst_dir_fd=directory)
    if hard_link:
        os.unlink(b"other", dir_fd=directory)
        os.close(os.open(b"a", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=directory))
        os.link(b"a", b"b", src_dir_fd=directory, dst_dir_fd=directory)
    os.close(directory)
    round_trip(repository, folder)
    assert describe_deep(folder / "target") == describe_deep(folder / "source")


@contextlib.contextmanager
def open_files_limited(count: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_deeper_than_files_may_be_open_is_said(repository: Repository, folder: Path) -> None:
    nest(folder / "source", [b"d"] * 900)
    with open_files_limited(512), pytest.raises(SourceError, match="cannot be read: Too many open files"):
        back_up(repository, folder / "source")
    assert repository.refresh().snapshots == {}
    snapshot = back_up(repository, folder / "source")
    with open_files_limited(512), pytest.raises(RestoreTargetError, match="Too many open files"):
        restore_snapshot(repository, snapshot.snapshot_id, folder / "target")
    restore_snapshot(repository, snapshot.snapshot_id, folder / "target")  # what is missing
    assert describe_deep(folder / "target") == describe_deep(folder / "source")


# -- wide and large --------------------------------------------------------------------------------


def test_5000_files_in_one_folder_with_few_open_at_once(repository: Repository, folder: Path) -> None:
    source = folder / "source"
    source.mkdir()
    for number in range(5000):
        (source / f"{number}.txt").write_text(f"{number}\n")
    with open_files_limited(1024):
        snapshot, _ = round_trip(repository, folder)
    assert snapshot.files == 5000
    assert describe(folder / "target") == describe(source)


def test_a_huge_sparse_file_stays_sparse_and_is_quick(repository: Repository, folder: Path) -> None:
    source = folder / "source"
    source.mkdir()
    with (source / "disk.img").open("wb") as file:
        for offset in (0, 3 << 30, (3 << 30) + (1 << 20), 9 << 30):
            file.seek(offset)
            file.write(random.Random(offset).randbytes(100_000))
        file.truncate(10 << 30)
    began = time.monotonic()
    snapshot, _ = round_trip(repository, folder)
    assert time.monotonic() - began < 10
    assert snapshot.new_bytes < 1 << 20
    assert (snapshot.size_bytes, (folder / "target" / "disk.img").stat().st_size) == (10 << 30, 10 << 30)
    assert (folder / "target" / "disk.img").stat().st_blocks * 512 < 1 << 20
    for offset in (0, 3 << 30, (3 << 30) + (1 << 20), 9 << 30, (10 << 30) - 4096):
        data = [_read_at(folder / name / "disk.img", offset, 200_000) for name in ("source", "target")]
        assert data[0] == data[1]


def _read_at(path: Path, offset: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(count)


@pytest.mark.parametrize("fill", ["random", "zeros"])
def test_files_of_sizes_at_the_edges_of_chunks(repository: Repository, folder: Path, fill: str) -> None:
    source = folder / "source"
    source.mkdir()
    for size in EDGES:
        (source / f"{size}").write_bytes(
            random.Random(size).randbytes(size) if fill == "random" else bytes(size)
        )
    snapshot, restored = round_trip(repository, folder)
    assert (snapshot.warnings, restored.warnings) == ((), ())
    assert snapshot.size_bytes == sum(EDGES)
    assert describe(folder / "target") == describe(source)


# -- names, modes, times, attributes ---------------------------------------------------------------


def make_odd_tree(root: Path) -> None:
    """Case pairs, modes that keep people out, times far away, attributes, links across folders."""
    for name in (
        "README",
        "Readme",
        "readme",
        "dir/x",
        "Dir/x",
        "dir.x/y",
        "dir-/z",
        "sealed/a/b",
        "closed/c",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    os.link(root / "dir" / "x", root / "Dir" / "first-comes-before")
    os.link(root / "dir" / "x", root / "sealed" / "a" / "link")
    os.link(root / "dir" / "x", root / "zz")
    os.setxattr(root / "dir", "user.note", b"a folder has them too\0")
    os.setxattr(root / "closed", "user.empty", b"")
    for name, when in (("README", -86_400_000_000_001), ("Readme", 7_000_000_000_000_000_001)):
        os.utime(root / name, ns=(0, when))
    os.utime(root / "dir-", ns=(0, -1))
    (root / "shared").mkdir()
    (root / "shared").chmod(0o2775)
    (root / "shared" / "inherits").mkdir()
    (root / "shared" / "inherits" / "file").write_text("of the group")
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    (root / "long-target").symlink_to("x/" * 2047)
    (root / "closed").chmod(0)
    (root / "sealed" / "a").chmod(0o555)
    (root / "sealed").chmod(0o555)


def test_odd_tree_comes_back(repository: Repository, folder: Path) -> None:
    make_odd_tree(folder / "source")
    snapshot, restored = round_trip(repository, folder)
    assert (snapshot.warnings, restored.warnings) == ((), ())
    assert describe(folder / "target") == describe(folder / "source")


@as_root
def test_owners_that_have_no_name_come_back(repository: Repository, folder: Path) -> None:
    make_odd_tree(folder / "source")
    for number, path in enumerate(sorted((folder / "source").rglob("*"))):
        mode = path.lstat().st_mode
        os.chown(path, 3_000_000_000 + number, 54_321 + number, follow_symlinks=False)
        if not stat.S_ISLNK(mode):
            path.chmod(stat.S_IMODE(mode))  # changing the owner may take the set-id bits
    (folder / "source" / "dangling").symlink_to("nowhere")
    os.chown(folder / "source" / "dangling", 4_000_000_000, 1, follow_symlinks=False)
    snapshot, restored = round_trip(repository, folder)
    assert (snapshot.warnings, restored.warnings) == ((), ())
    assert describe(folder / "target") == describe(folder / "source")


# -- by somebody who is not root -------------------------------------------------------------------


def as_nobody(action: Callable[[], Any]) -> Any:
    """What ``action`` returns or raises in a process of a user with no rights."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            try:
                result = (True, action())
            except Exception as error:  # handed to the parent
                result = (False, (type(error).__name__, str(error)))
            with open(writing, "wb") as pipe:
                pickle.dump(result, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    returned, value = pickle.loads(data)  # noqa: S301 - of our own child
    if not returned:
        raise RuntimeError(": ".join(value))
    return value


@pytest.fixture
def open_again(repository: Repository, seaweedfs: SeaweedFS) -> Callable[[], Repository]:
    """The repository over a connection of its own: a child must not use its parent's."""
    storage = repository.storage

    def reopen() -> Repository:
        return open_repository(S3Storage(seaweedfs.client(), storage.bucket, "some/prefix"), PASSPHRASE)

    return reopen


@as_root
@pytest.mark.parametrize("name", ["file", "folder", "unlistable", "unenterable"])
def test_what_may_not_be_read_is_named(
    folder: Path, open_again: Callable[[], Repository], repository: Repository, name: str
) -> None:
    source = folder / "source"
    (source / "in").mkdir(parents=True)
    (source / "in" / "other").write_text("readable")
    if name == "file":
        (source / "in" / "file").write_text("secret")
        (source / "in" / "file").chmod(0o600)
    else:
        (source / "in" / name).mkdir()
        (source / "in" / name / "x").write_text("secret")
        (source / "in" / name).chmod({"folder": 0o700, "unlistable": 0o711, "unenterable": 0o744}[name])
    with pytest.raises(RuntimeError, match=rf"SourceError: .*source/in/{name}.* cannot be read: Permission"):
        as_nobody(lambda: back_up(open_again(), source))
    assert repository.refresh().snapshots == {}
    assert back_up(repository, source).warnings == ()


@as_root
def test_a_tree_of_root_restored_by_another(
    folder: Path, open_again: Callable[[], Repository], repository: Repository
) -> None:
    make_odd_tree(folder / "source")
    os.mkfifo(folder / "source" / "fifo", 0o640)
    (folder / "source" / "program").write_bytes(b"#!/bin/true\n")
    (folder / "source" / "link").symlink_to("README")
    snapshot = back_up(repository, folder / "source")
    target = folder / "target"
    warnings = as_nobody(
        lambda: restore_snapshot(open_again(), snapshot.snapshot_id, target).as_dict()["warnings"]
    )
    assert any("README: owner 0:0 needs root to be restored" in item for item in warnings)
    assert all("needs root" in item for item in warnings)
    expected = describe(folder / "source")
    for about in expected.values():
        about["owner"] = (NOBODY, NOBODY)
    assert describe(target) == expected


@as_root
def test_an_own_tree_needs_no_root_at_all(folder: Path, open_again: Callable[[], Repository]) -> None:
    def there_and_back() -> tuple[Any, Any]:
        (folder / "source").mkdir()
        make_odd_tree(folder / "source")
        (folder / "source" / "closed").chmod(0o500)
        snapshot, restored = round_trip(open_again(), folder)
        return snapshot.warnings, restored.warnings

    assert as_nobody(there_and_back) == ((), ())
    assert describe(folder / "target") == describe(folder / "source")


# -- what changes while it is read -----------------------------------------------------------------


class Meddling(FolderSource):
    """A folder in which something happens to the file ``victim`` whenever it is about to be opened."""

    def __init__(self, path: Path, happens: Callable[[Path], None], on_change: OnChange = "warn") -> None:
        super().__init__(path, on_change=on_change)
        self.happens = happens

    def _scan(
        self, directory: int, path: bytes, name: bytes, package: bytes | None, view: SourceView
    ) -> ScannedEntry | None:
        scanned = super()._scan(directory, path, name, package, view)
        if scanned is not None and name == b"victim":
            opening = scanned.open

            def meddle() -> int:
                self.happens(self.path / os.fsdecode(path))
                return opening()

            scanned.open = meddle
        return scanned


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more" * 50_000)


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    other = path.with_name("new")
    other.write_bytes(os.urandom(70_000))
    other.chmod(0o604)
    os.utime(other, ns=(0, 1_000_000_000_000_000_007))
    other.rename(path)


def become(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def happen(path: Path) -> None:
        path.unlink()
        make(path)

    return happen


GONE = {
    "vanishes": Path.unlink,
    "fifo": become(os.mkfifo),
    "symlink": become(lambda path: path.symlink_to("other")),
    "folder": become(Path.mkdir),
}


def make_victim(folder: Path, *, sparse: bool = False) -> Path:
    source = folder / "source"
    source.mkdir()
    (source / "other").write_text("beside it")
    with (source / "victim").open("wb") as file:
        for offset in range(0, (64 << 20) if sparse else 300_000, (32 << 10) if sparse else 100_000):
            file.seek(offset)
            file.write(os.urandom(4096) if sparse else os.urandom(100_000))
    os.link(source / "victim", source / "zz-second-name")
    return source


@pytest.mark.parametrize("happens", [grow, shrink, replace])
def test_a_file_changed_before_it_is_read_is_what_it_is_now(
    repository: Repository, folder: Path, happens: Callable[[Path], None]
) -> None:
    """Contents, mode and times of one moment, and the other name has not become a link to something else."""
    source = make_victim(folder)
    snapshot = back_up(repository, Meddling(source, happens))
    restore_snapshot(repository, snapshot.snapshot_id, folder / "target")
    now, restored = describe(source), describe(folder / "target")
    for path in (b"victim", b"other", b"zz-second-name"):
        assert restored[path] == now[path]
    again = back_up(repository, source, "run-2")
    restore_snapshot(repository, again.snapshot_id, folder / "target-2")
    assert describe(folder / "target-2") == describe(source)


@pytest.mark.parametrize("on_change", ["warn", "fail"])
@pytest.mark.parametrize("name", GONE)
def test_a_file_that_is_none_any_more_is_left_out_and_named(
    repository: Repository, folder: Path, name: str, on_change: OnChange
) -> None:
    source = make_victim(folder)
    meddling = Meddling(source, GONE[name], on_change)
    if on_change == "fail":
        with pytest.raises(SourceError, match=r"victim: left out, .* when it was opened"):
            back_up(repository, meddling)
        assert repository.refresh().snapshots == {}
        return
    snapshot = back_up(repository, meddling)
    assert [item.split(",")[0] for item in snapshot.warnings] == ["victim: left out"]
    restore_snapshot(repository, snapshot.snapshot_id, folder / "target")
    restored = describe(folder / "target")
    assert sorted(restored) == [b".", b"other", b"zz-second-name"]
    assert restored[b"zz-second-name"]["sha256"] == describe(source)[b"zz-second-name"]["sha256"]


@pytest.mark.parametrize("on_change", ["warn", "fail"])
@pytest.mark.parametrize("sparse", [False, True], ids=["plain", "sparse"])
@pytest.mark.parametrize("happens", [grow, shrink])
def test_a_file_that_never_stands_still_is_named(
    repository: Repository,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    happens: Callable[[Path], None],
    sparse: bool,
    on_change: OnChange,
) -> None:
    """It changes after its extents were looked up, each time; a sparse one has thousands of them."""
    source = make_victim(folder, sparse=sparse)
    look_up = files.data_extents

    def meddle(descriptor: int, status: os.stat_result) -> files.Extents | None:
        extents = look_up(descriptor, status)
        if status.st_ino == (source / "victim").stat().st_ino:
            happens(source / "victim")
        return extents

    monkeypatch.setattr(files, "data_extents", meddle)
    if on_change == "fail":
        with pytest.raises(SourceError, match="victim: changed while it was read, 3 times"):
            back_up(repository, FolderSource(source, on_change=on_change))
        return
    snapshot = back_up(repository, source)
    assert snapshot.warnings == ("victim: changed while it was read, 3 times",)
    restore_snapshot(repository, snapshot.snapshot_id, folder / "target")
    monkeypatch.undo()
    again = back_up(repository, source, "run-2")
    restore_snapshot(repository, again.snapshot_id, folder / "target-2")
    assert describe(folder / "target-2") == describe(source)


def test_a_linked_file_renamed_inside_a_package_meanwhile(repository: Repository, folder: Path) -> None:
    """The package is read again, and nothing is a link to the name it had the first time."""
    package = folder / "source" / "kit.mlpackage"
    package.mkdir(parents=True)
    (package / "a").write_text("weights")
    (package / "victim").write_text("manifest")
    os.link(package / "a", folder / "source" / "zz-outside")

    def rename_once(path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            path.with_name("a").rename(path.with_name("b"))

    snapshot = back_up(repository, Meddling(folder / "source", rename_once))
    restore_snapshot(repository, snapshot.snapshot_id, folder / "target")
    assert describe(folder / "target") == describe(folder / "source")


def meddle_until(stop: threading.Event, source: Path) -> None:
    rng = random.Random(1)
    while not stop.is_set():
        path = source / f"file-{rng.randrange(8)}"
        with contextlib.suppress(OSError):  # it may be of any kind, or gone
            change = rng.randrange(7)
            if change < 2:
                # Not to wait for a reader where it has become a FIFO.
                descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
                try:
                    os.write(descriptor, rng.randbytes(200_000))
                finally:
                    os.close(descriptor)
            elif change == 2:
                os.truncate(path, rng.randrange(500_000))
            elif change == 3:
                replace(path)
            elif change == 4:
                path.rename(source / f"file-{rng.randrange(8)}")
            elif path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                become(rng.choice((Path.mkdir, Path.touch, os.mkfifo)))(path)


def test_a_folder_in_which_everything_changes_all_the_time(repository: Repository, folder: Path) -> None:
    """Each snapshot restores whole, whatever was caught; the first one of a still folder is equal to it."""
    source = folder / "source"
    source.mkdir()
    (source / "other").write_text("stands still")
    for number in range(8):
        (source / f"file-{number}").write_bytes(os.urandom(300_000))
    stop = threading.Event()
    meddler = threading.Thread(target=meddle_until, args=(stop, source))
    meddler.start()
    try:
        snapshots = [back_up(repository, source, f"run-{number}") for number in range(12)]
    finally:
        stop.set()
        meddler.join()
    assert any(snapshot.warnings for snapshot in snapshots)
    for snapshot in snapshots:
        target = folder / snapshot.snapshot_id
        restore_snapshot(repository, snapshot.snapshot_id, target)
        assert (target / "other").read_text() == "stands still"
    still = back_up(repository, source, "still")
    assert still.warnings == ()
    restore_snapshot(repository, still.snapshot_id, folder / "target")
    assert describe(folder / "target") == describe(source)
