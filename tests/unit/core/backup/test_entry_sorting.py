"""Entries in any order become a tree."""

from __future__ import annotations

import random

import pytest

from fastvlm_ops.core.backup.entry_sorting import SortedEntries, reader_of
from fastvlm_ops.core.backup.errors import SourceError
from fastvlm_ops.core.backup.tree import Entry, TreeValidator, decode_entry

# Beside each other, these sort otherwise by bytes than by components.
PATHS = [b".", b"a", b"a/b", b"a/b/c", b"a-", b"a-/x", b"a.b", b"a0", b"ab", b"a/\xff", b"z", b"a/b-c"]
FOLDERS = {b".", b"a", b"a/b", b"a-"}


def entry(path: bytes, kind: str = "") -> Entry:
    return Entry(path, kind or ("directory" if path in FOLDERS else "file"), 0o700, 0, 0, 0)


def lines_of(entries: list[Entry]) -> list[bytes]:
    with SortedEntries() as kept:
        for item in entries:
            kept.add(item)
        return list(kept.lines())


@pytest.mark.parametrize("seed", range(8))
def test_any_order_gives_the_same_tree(seed: int) -> None:
    shuffled = PATHS.copy()
    random.Random(seed).shuffle(shuffled)
    validator = TreeValidator()
    found = []
    for line in lines_of([entry(path) for path in shuffled]):
        validator.check(decoded := decode_entry(line.rstrip(b"\n")))
        found.append(decoded.path)
    assert sorted(PATHS, key=lambda path: entry(path).parts) == found


def test_a_path_that_comes_twice_is_refused() -> None:
    with pytest.raises(SourceError, match="a/b came twice"):
        lines_of([entry(b"a/b"), entry(b"a"), entry(b"a/b", "file")])


@pytest.mark.parametrize("missing", [b"a", b"a/b"])
def test_an_entry_without_its_directory_is_refused(missing: bytes) -> None:
    with pytest.raises(SourceError, match="came without the directory that it is in"):
        lines_of([entry(path) for path in (b".", b"a", b"a/b", b"a/b/c") if path != missing])


def test_an_entry_below_a_file_is_refused() -> None:
    with pytest.raises(SourceError, match="f/x came without the directory"):
        lines_of([entry(b"."), entry(b"f", "file"), entry(b"f/x", "file")])


@pytest.mark.parametrize("room", [1, 3, 100])
def test_pieces_fill_buffers(room: int) -> None:
    read_into, buffer, found = reader_of(iter([b"ab", b"", b"cdefg"])), memoryview(bytearray(room)), b""
    while count := read_into(buffer):
        found += buffer[:count]
    assert found == b"abcdefg"
    assert read_into(buffer) == 0
