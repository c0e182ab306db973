"""Archives read as a stream: whole, cut, hostile, and of every form that tarfile writes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest

from fastvlm_ops.core.backup.errors import DumpError, SourceError
from fastvlm_ops.core.backup.postgresql.tar_stream import Member, TarStream

LONG = "pg_wal/" + "n" * 240
FILES = {"a": b"", "base/1/2": b"x" * 8192, "global/pg_control": b"y" * 700, "ü/z": b"1", LONG: b"long"}
FORMATS = [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def archive(files: dict[str, bytes] = FILES, form: int = tarfile.GNU_FORMAT) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=form) as tar:
        folder = tarfile.TarInfo("base/")
        folder.type, folder.mode, folder.uid = tarfile.DIRTYPE, 0o700, 101
        tar.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime, info.uname = len(content), 0o640, 1_700_000_001, "postgres"
            tar.addfile(info, io.BytesIO(content))
    return output.getvalue()


def pieces_of(data: bytes, count: int) -> Callable[[memoryview], int]:
    """Give at most so many bytes at a time, as a pipe may."""
    source = io.BytesIO(data)
    return lambda buffer: source.readinto(buffer[:count])


def read_all(stream: TarStream) -> dict[str, bytes]:
    found = {}
    for member in stream.members():
        if not member.is_directory:
            content, buffer = b"", memoryview(bytearray(1000))
            while count := stream.read_into(buffer):
                content += buffer[:count]
            found[member.name.decode()] = content
    return found


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("count", [1, 511, 512, 700, 1 << 20])
def test_members_come_with_their_contents(form: int, count: int) -> None:
    assert read_all(TarStream(pieces_of(archive(form=form), count), "it")) == FILES


def test_what_a_header_says() -> None:
    first, second, *_ = TarStream(pieces_of(archive(), 1 << 20), "it").members()
    assert first == Member(b"base", True, 0, 0o700, 101, 0, 0)
    assert second == Member(b"a", False, 0, 0o640, 0, 0, 1_700_000_001 * 10**9, "postgres", "")


def test_contents_that_nobody_reads_are_passed_over() -> None:
    stream = TarStream(pieces_of(archive(), 1000), "it")
    assert [member.name.decode() for member in stream.members()] == ["base", *FILES]


@pytest.mark.parametrize("form", FORMATS)
def test_sizes_above_8_gib(form: int) -> None:
    info = tarfile.TarInfo("base/1/big")
    info.size = 9 << 30
    stream = TarStream(pieces_of(info.tobuf(form), 1 << 20), "it")
    assert next(stream.members()).size_bytes == 9 << 30


def test_an_archive_cut_anywhere_is_refused() -> None:
    data = archive({"a": b"1" * 600, "b": b""})
    data = data.rstrip(b"\0")
    whole = data + b"\0" * (-len(data) % 512 + 1024)  # the two blocks at the end, and no more
    assert read_all(TarStream(pieces_of(whole, 1000), "it"))
    for length in range(len(whole)):
        with pytest.raises(DumpError, match="the stream of it ended before it was complete"):
            read_all(TarStream(pieces_of(whole[:length], 1000), "it"))


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../x", "a//b", "./", "a/./b"])
def test_paths_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(SourceError, match="holds the unsafe path"):
        read_all(TarStream(pieces_of(archive({name: b"1"}), 1000), "it"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_what_a_base_does_not_have_is_refused(kind: bytes) -> None:
    info = tarfile.TarInfo("pg_tblspc/16384")
    info.type, info.linkname = kind, "/srv/cold"
    with pytest.raises(SourceError, match="neither a directory nor a file"):
        read_all(TarStream(pieces_of(info.tobuf() + bytes(1024), 1000), "it"))


@pytest.mark.parametrize("place", ["header", "end", "after"])
def test_damage_is_refused(place: str) -> None:
    data = bytearray(archive({"a": b"1" * 600}))
    end = -(-len(data.rstrip(b"\0")) // 512) * 512  # where the first block of zeros begins
    if place == "after":
        data += b"x" * 512
    else:
        data[{"header": 3, "end": end + 600}[place]] ^= 1
    with pytest.raises(SourceError, match=r"is no tar archive|goes on after the end"):
        read_all(TarStream(pieces_of(bytes(data), 1000), "it"))


@pytest.mark.parametrize("record", [b"9 size=-1\n", b"12 size=many\n", b"nonsense", b"99 path=x\n", b"3 x"])
def test_malformed_extensions_are_refused(record: bytes) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(record)
    data = header.tobuf() + record.ljust(512, b"\0") + tarfile.TarInfo("a").tobuf() + bytes(1024)
    with pytest.raises(SourceError, match=r"malformed PAX header|has -1 bytes"):
        read_all(TarStream(pieces_of(data, 1000), "it"))


def test_an_extension_as_large_as_memory_is_refused() -> None:
    header = tarfile.TarInfo("long")
    header.type, header.size = b"L", 1 << 40
    with pytest.raises(SourceError, match="has a header of 1099511627776 bytes"):
        read_all(TarStream(pieces_of(header.tobuf(tarfile.GNU_FORMAT), 1000), "it"))
