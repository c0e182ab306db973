"""Every way in which a copy can differ is seen."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fastvlm_ops.local.compare import compare_trees


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Return a folder and an exact copy of it."""
    original = tmp_path / "original"
    (original / "sub/empty").mkdir(parents=True)
    (original / "sub/a.txt").write_text("hello")
    (original / "b.txt").write_text("world")
    (original / "c.txt").write_text("other")
    (original / "link").symlink_to("b.txt")
    (original / "dangling").symlink_to("nowhere")
    copy = tmp_path / "copy"
    shutil.copytree(original, copy, symlinks=True)
    return original, copy


def test_an_exact_copy(pair: tuple[Path, Path]) -> None:
    found = compare_trees(*pair)
    assert (found.entries, found.size_bytes, found.differences) == (7, 15, [])


def rewrite(copy: Path) -> None:
    times = (copy / "b.txt").stat()
    (copy / "b.txt").write_text("World")
    os.utime(copy / "b.txt", ns=(times.st_atime_ns, times.st_mtime_ns))


def replace_by_link(copy: Path) -> None:
    (copy / "b.txt").unlink()
    (copy / "b.txt").symlink_to("c.txt")


def hard_link(copy: Path) -> None:
    times = copy.stat()
    (copy / "c.txt").unlink()
    os.link(copy / "b.txt", copy / "c.txt")
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))


def relink(copy: Path) -> None:
    (copy / "link").unlink()
    (copy / "link").symlink_to("c.txt")


def label(copy: Path) -> None:
    try:
        os.setxattr(copy / "b.txt", "user.note", b"x")
    except OSError:
        pytest.skip("this file system keeps no extended attributes")


CHANGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "contents": (rewrite, "b.txt", "contents"),
    "size": (lambda copy: (copy / "b.txt").write_text("longer"), "b.txt", "size"),
    "mode": (lambda copy: (copy / "b.txt").chmod(0o600), "b.txt", "mode"),
    "time": (lambda copy: os.utime(copy / "b.txt", ns=(1, 1)), "b.txt", "modification time"),
    "time of a folder": (lambda copy: os.utime(copy / "sub", ns=(1, 1)), "sub", "modification time"),
    "mode of a folder": (lambda copy: (copy / "sub/empty").chmod(0o700), "sub/empty", "mode"),
    "missing file": (lambda copy: (copy / "b.txt").unlink(), "b.txt", "entry"),
    "missing empty folder": (lambda copy: (copy / "sub/empty").rmdir(), "sub/empty", "entry"),
    "extra file": (lambda copy: (copy / "new").touch(), "new", "entry"),
    "kind": (replace_by_link, "b.txt", "kind"),
    "target": (relink, "link", "target"),
    "hard links": (hard_link, "c.txt", "contents"),
    "attributes": (label, "b.txt", "extended attributes"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_difference_is_seen(name: str, pair: tuple[Path, Path]) -> None:
    change, path, what = CHANGES[name]
    change(pair[1])
    found = {(difference.path, difference.what) for difference in compare_trees(*pair).differences}
    assert (path, what) in found


def test_hard_links_are_compared(pair: tuple[Path, Path]) -> None:
    original, copy = pair
    for folder in pair:
        os.link(folder / "b.txt", folder / "b2.txt")
        os.utime(folder / "b.txt", ns=(5, 5))
    assert compare_trees(original, copy).differences == []
    (copy / "b2.txt").unlink()
    shutil.copy2(copy / "b.txt", copy / "b2.txt")
    assert {difference.what for difference in compare_trees(original, copy).differences} == {"hard links"}


def test_an_absent_folder_is_no_equal_folder(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError):
        compare_trees(tmp_path, tmp_path / "absent")
