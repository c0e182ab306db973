"""Folders of a snapshot, the addresses of their pages, and what is kept of them."""

from __future__ import annotations

import pytest

from fastvlm_ops.core.backup.tree import Entry
from fastvlm_ops.ui.backups.files import (
    FolderNotFoundError,
    Item,
    Listing,
    ListingCache,
    decode_path,
    encode_path,
)


def entry(path: bytes, kind: str = "file", size: int = 0, hard_link: bytes | None = None) -> Entry:
    return Entry(path, kind, 0o644, 0, 0, 0, size=size, hard_link=hard_link)


ENTRIES = [
    entry(b".", "directory"),
    entry(b"b", "directory"),
    entry(b"b/c", "directory"),
    entry(b"b/c/deep", size=5),
    entry(b"b/\xff", size=7),
    entry(b"empty", "directory"),
    entry(b"first", size=100),
    entry(b"link", "symlink"),
    entry(b"same", hard_link=b"first"),
]


def test_folders_come_first_and_have_the_size_of_all_below_them() -> None:
    listing = Listing(ENTRIES)
    found = [(item.name, item.type, item.size, item.files) for item in listing.folder(b"")]
    assert found == [
        (b"b", "directory", 12, 2),
        (b"empty", "directory", 0, 0),
        (b"first", "file", 100, 0),
        (b"link", "symlink", 0, 0),
        (b"same", "file", 100, 0),
    ]
    assert [item.path for item in listing.folder(b"b")] == [b"b/c", b"b/\xff"]
    assert listing.folder(b"empty") == []
    assert listing.entries == len(ENTRIES) - 1


@pytest.mark.parametrize("path", [b"first", b"..", b"b/..", b"/", b"b/", b"nowhere", b"."])
def test_what_is_no_folder_of_it_is_not_found(path: bytes) -> None:
    with pytest.raises(FolderNotFoundError):
        Listing(ENTRIES).folder(path)


def test_a_single_file_has_its_place() -> None:
    (item,) = Listing([entry(b".", "directory"), entry(b"application.db", size=3)]).folder(b"")
    assert (item.name, item.size) == (b"application.db", 3)


@pytest.mark.parametrize("path", [b"", b"a", b"a/\xff\n<b>", bytes(range(1, 256))])
def test_any_path_goes_through_an_address(path: bytes) -> None:
    assert decode_path(encode_path(path)) == path


@pytest.mark.parametrize("text", ["a", "a b", "%", "ü", "A" * 8200])
def test_other_addresses_are_not_found(text: str) -> None:
    with pytest.raises(FolderNotFoundError):
        decode_path(text)


@pytest.mark.parametrize("mtime_ns", [10**30, -(10**30)])
def test_a_time_that_no_calendar_has_is_unknown(mtime_ns: int) -> None:
    assert Item(b"n", b"n", "file", 0, 0, mtime_ns).changed_at is None


def test_keeps_no_more_entries_than_it_may_and_those_looked_at_last() -> None:
    cache = ListingCache(entries=20)
    one, two, three = (Listing(ENTRIES) for _ in range(3))
    cache.put("r", "1", one)
    cache.put("r", "2", two)
    assert cache.get("r", "1") is one
    cache.put("r", "3", three)
    assert cache.get("r", "2") is None
    assert cache.get("r", "1") is one
    assert cache.get("r", "3") is three
    assert cache.get("other repository", "1") is None


def test_one_that_is_larger_than_the_cache_is_not_kept() -> None:
    cache = ListingCache(entries=3)
    cache.put("r", "1", Listing(ENTRIES))
    assert cache.get("r", "1") is None
