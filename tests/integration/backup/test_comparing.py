"""Whether a source has changed since it was published, and quick signatures of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fastvlm_ops.core.backup import (
    FolderSource,
    Repository,
    SourceError,
    create_snapshot,
    publish_set,
)
from fastvlm_ops.core.backup.compare import published_equal, quick_signature

pytestmark = pytest.mark.integration
NAME = "configuration"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with one of each thing that can change."""
    folder = tmp_path / "tree"
    (folder / "regions").mkdir(parents=True)
    (folder / "service.yaml").write_text("port: 8080\n")
    (folder / "regions" / "eu.yaml").write_text("name: eu\n")
    (folder / "current").symlink_to("regions/eu.yaml")
    (folder / "linked.yaml").write_text("linked\n")
    os.link(folder / "linked.yaml", folder / "linked_too.yaml")
    with (folder / "sparse").open("wb") as file:
        file.write(b"begin")
        file.truncate(1 << 20)
    os.mkfifo(folder / "pipe")
    return folder


def publish(repository: Repository, source: FolderSource, run: str, kind: str = "full") -> str:
    create_snapshot(repository, source, component=NAME, kind="incremental", run_key=run)
    moment = datetime(2026, 1, 4, tzinfo=UTC)
    return publish_set(
        repository, set_id=run, kind=kind, run_key=run, components=[NAME], timestamp=moment
    ).set_id


def equal(repository: Repository, source: FolderSource) -> str | None:
    found = published_equal(repository, source, NAME)
    return found.set_id if found else None


def test_nothing_is_published_at_first(repository: Repository, tree: Path) -> None:
    assert equal(repository, FolderSource(tree)) is None
    create_snapshot(repository, FolderSource(tree), component=NAME, kind="full", run_key="a")
    assert equal(repository, FolderSource(tree)) is None, "a snapshot that no set has counts for nothing"


def test_a_tree_equals_what_was_published_of_it(repository: Repository, tree: Path) -> None:
    source = FolderSource(tree)
    publish(repository, source, "full-1")
    before = [info.name for info in repository.storage.list("")]
    assert equal(repository, source) == "full-1"
    assert [info.name for info in repository.storage.list("")] == before, "nothing is sent to find out"


def test_times_alone_are_no_change_but_give_another_signature(repository: Repository, tree: Path) -> None:
    source = FolderSource(tree)
    publish(repository, source, "full-1")
    signature = quick_signature(source)
    assert quick_signature(source) == signature
    content = (tree / "service.yaml").read_text()
    (tree / "new").write_text(content)
    (tree / "new").replace(tree / "service.yaml")  # as editors save, with the time of the folder changed
    assert quick_signature(source) != signature
    assert equal(repository, source) == "full-1"


def rename(tree: Path) -> None:
    (tree / "service.yaml").rename(tree / "service.yml")


def rewrite_with_the_same_size_and_time(tree: Path) -> None:
    path = tree / "service.yaml"
    times = path.stat()
    path.write_text("port: 8081\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def point_elsewhere(tree: Path) -> None:
    (tree / "current").unlink()
    (tree / "current").symlink_to("regions/us.yaml")


def cut_a_link(tree: Path) -> None:
    (tree / "linked_too.yaml").unlink()
    (tree / "linked_too.yaml").write_text("linked\n")


def write_into_a_hole(tree: Path) -> None:
    with (tree / "sparse").open("r+b") as file:
        file.seek(1 << 19)
        file.write(b"x")


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "added").write_text(""),
        lambda tree: (tree / "zz_last").mkdir(),
        lambda tree: (tree / "regions" / "eu.yaml").unlink(),
        lambda tree: (tree / "pipe").unlink(),
        lambda tree: (tree / "service.yaml").chmod(0o600),
        lambda tree: (tree / "regions").chmod(0o700),
        lambda tree: os.setxattr(tree / "service.yaml", "user.note", b"1"),
        rename,
        rewrite_with_the_same_size_and_time,
        point_elsewhere,
        cut_a_link,
        write_into_a_hole,
    ],
    ids=[
        *("file", "folder", "unlink", "last", "mode", "folder mode", "xattr"),
        *("rename", "content", "symlink", "hard link", "hole"),
    ],
)
def test_every_change_is_seen(change: Callable[[Path], object], repository: Repository, tree: Path) -> None:
    source = FolderSource(tree)
    publish(repository, source, "full-1")
    signature = quick_signature(source)
    change(tree)
    assert quick_signature(source) != signature
    assert equal(repository, source) is None
    publish(repository, source, "configuration-1", kind="configuration")
    assert equal(repository, source) == "configuration-1"


def test_what_is_excluded_does_not_count(repository: Repository, tree: Path) -> None:
    source = FolderSource(tree, exclude=("*.swp",))
    publish(repository, source, "full-1")
    signature = quick_signature(source)
    mtime = tree.stat().st_mtime_ns
    (tree / ".service.yaml.swp").write_text("an editor's")
    os.utime(tree, ns=(mtime, mtime))  # its folder's time would change the signature, as it should
    assert quick_signature(source) == signature
    assert equal(repository, source) == "full-1"


def test_a_source_that_is_gone_is_an_error(repository: Repository, tree: Path, tmp_path: Path) -> None:
    publish(repository, FolderSource(tree), "full-1")
    gone = FolderSource(tmp_path / "gone")
    for look in (lambda: quick_signature(gone), lambda: published_equal(repository, gone, NAME)):
        with pytest.raises(SourceError, match="does not exist"):
            look()
