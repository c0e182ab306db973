"""Compares two folders: names, kinds, contents, modes, owners, times, links and extended attributes."""

from __future__ import annotations

import filecmp
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same.

    :param path: relative to both folders
    :param what: that differs, as in ``mode``
    :param expected: in the first folder
    :param found: in the second
    """

    path: str
    what: str
    expected: object
    found: object

    def __str__(self) -> str:
        return f"{self.path}: {self.what} is {self.found!r}, expected {self.expected!r}"


@dataclass(frozen=True)
class Comparison:
    """What came of comparing two folders.

    :param entries: files, folders and links in the first
    :param size_bytes: of its files, each hard link counted once
    :param differences: that were found
    """

    entries: int
    size_bytes: int
    differences: list[Difference]


def compare_trees(expected: Path, found: Path) -> Comparison:
    """Compare a folder with what should be its copy, byte for byte.

    Of the folders themselves only the kind and what is in them is compared: who restores into a new folder
    chooses where it is and who may enter.

    :param expected: the original
    :param found: the copy
    """
    first, second = _entries(expected), _entries(found)
    differences = [Difference(path, "entry", "present", "absent") for path in first if path not in second]
    differences += [Difference(path, "entry", "absent", "present") for path in second if path not in first]
    size = 0
    counted: set[tuple[int, int]] = set()
    for path in sorted(first.keys() & second.keys()):
        differences += _compare(path, expected / path, found / path)
        status = first[path]
        if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in counted:
            counted.add((status.st_dev, status.st_ino))
            size += status.st_size
    differences += _compare_hard_links(first, second)
    return Comparison(len(first), size, differences)


def _entries(folder: Path) -> dict[str, os.stat_result]:
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(parent, name)
            found[str(path.relative_to(folder))] = path.lstat()
    return found


def _compare(path: str, expected: Path, found: Path) -> Iterator[Difference]:
    first, second = expected.lstat(), found.lstat()
    if (kinds := (stat.S_IFMT(first.st_mode), stat.S_IFMT(second.st_mode)))[0] != kinds[1]:
        yield Difference(path, "kind", *(stat.filemode(kind)[0] for kind in kinds))
        return
    pairs: list[tuple[str, object, object]] = [
        ("mode", oct(stat.S_IMODE(first.st_mode)), oct(stat.S_IMODE(second.st_mode))),
        ("owner", (first.st_uid, first.st_gid), (second.st_uid, second.st_gid)),
        ("modification time", first.st_mtime_ns, second.st_mtime_ns),
        ("extended attributes", _attributes(expected), _attributes(found)),
    ]
    if stat.S_ISLNK(first.st_mode):
        pairs.append(("target", os.readlink(expected), os.readlink(found)))
    if stat.S_ISREG(first.st_mode):
        pairs.append(("size", first.st_size, second.st_size))
    yield from (Difference(path, what, one, other) for what, one, other in pairs if one != other)
    same_size = stat.S_ISREG(first.st_mode) and first.st_size == second.st_size
    if same_size and not filecmp.cmp(expected, found, shallow=False):
        yield Difference(path, "contents", "the original's", "others")


def _attributes(path: Path) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False) if hasattr(os, "listxattr") else []
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def _compare_hard_links(
    first: dict[str, os.stat_result], second: dict[str, os.stat_result]
) -> Iterator[Difference]:
    groups = _hard_links(first), _hard_links(second)
    for path in sorted(groups[0].keys() | groups[1].keys()):
        one, other = groups[0].get(path, []), groups[1].get(path, [])
        if one != other and path in first and path in second:
            yield Difference(path, "hard links", one, other)


def _hard_links(entries: dict[str, os.stat_result]) -> dict[str, list[str]]:
    """Return, for each name of a file that has several, all of its names in the folder."""
    names: dict[tuple[int, int], list[str]] = {}
    for path, status in sorted(entries.items()):
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            names.setdefault((status.st_dev, status.st_ino), []).append(path)
    return {path: group for group in names.values() for path in group if len(group) > 1}
