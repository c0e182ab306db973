"""A tar archive read member by member as it arrives, without the copies that tarfile makes of the contents.

Headers are decoded by tarfile. The end is strict: an archive that stops before its two blocks of zeros is an
error, which tarfile lets pass where it stops between two members.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from fastvlm_ops.core.backup.chunking import ReadInto
from fastvlm_ops.core.backup.errors import DumpError, SourceError

_BLOCK = tarfile.BLOCKSIZE
_BUFFER_BYTES = 1 << 20
_EXTENSION_BYTES = 1 << 20  # names and PAX records; more of them is no archive of ours
_LONG_NAME, _LONG_LINK = b"L", b"K"
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE)
_PAX_READ = ("path", "size", "mtime", "uid", "gid")


@dataclass(frozen=True)
class Member:
    """A directory or a file of an archive.

    :param name: relative, its components joined by ``/``
    :param size_bytes: of a file's contents
    :param user: name of the user, as the archive has it
    """

    name: bytes
    is_directory: bool
    size_bytes: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    user: str = ""
    group: str = ""


class TarStream:
    """An archive that comes through ``read_into``.

    :param read_into: fills a buffer with what comes next; 0 at the end
    :param name: what the archive is of, for messages
    """

    def __init__(self, read_into: ReadInto, name: str) -> None:
        self._source = read_into
        self._name = name
        self._ahead = memoryview(bytearray(_BUFFER_BYTES))
        self._start = self._end = 0
        self._left = self._padding = 0

    def members(self) -> Iterator[Member]:
        """Yield the members; what was not read of one's contents is passed over when the next is asked for.

        :raises DumpError: the archive ends too early
        :raises SourceError: it is no archive, or holds what a base backup does not have
        """
        records: dict[str, str] = {}
        while True:
            block = self._take(_BLOCK)
            if not any(block):
                return self._expect_end()
            info = self._decode(block)
            if info.type in (_LONG_NAME, _LONG_LINK, *_PAX):
                records |= self._extension(info)
                continue
            member = self._member(info, records)
            self._left, self._padding = member.size_bytes, -member.size_bytes % _BLOCK
            yield member
            self._skip()
            records = {}

    def read_into(self, buffer: memoryview) -> int:
        """Fill a buffer with what comes next of the member's contents; 0 at their end.

        :raises DumpError: the archive ends too early
        """
        wanted = min(len(buffer), self._left)
        if not wanted:
            return 0
        if self._start < self._end:
            count = min(wanted, self._end - self._start)
            buffer[:count] = self._ahead[self._start : self._start + count]
            self._start += count
        else:
            count = self._source(buffer[:wanted])  # straight to where it is wanted
            if not count:
                raise self._too_short()
        self._left -= count
        return count

    def _too_short(self) -> DumpError:
        return DumpError(f"the stream of {self._name} ended before it was complete")

    def _take(self, count: int) -> bytes:
        """Return the next bytes of the archive itself, at most a buffer full."""
        if self._end - self._start < count:
            rest = self._end - self._start
            self._ahead[:rest] = bytes(self._ahead[self._start : self._end])
            self._start, self._end = 0, rest
            while self._end < count:
                got = self._source(self._ahead[self._end :])
                if not got:
                    raise self._too_short()
                self._end += got
        self._start += count
        return bytes(self._ahead[self._start - count : self._start])

    def _skip(self) -> None:
        scratch = memoryview(bytearray(min(self._left, _BUFFER_BYTES)))
        while self.read_into(scratch):
            pass
        if self._padding:
            self._take(self._padding)

    def _expect_end(self) -> None:
        """Take the second block of zeros, and whatever fills the last record; nothing else may follow."""
        if any(self._take(_BLOCK)):
            raise SourceError(f"the stream of {self._name} goes on after the end of its archive")
        while True:
            if any(self._ahead[self._start : self._end]):
                raise SourceError(f"the stream of {self._name} goes on after the end of its archive")
            self._start = 0
            self._end = self._source(self._ahead)
            if not self._end:
                return

    def _decode(self, block: bytes) -> tarfile.TarInfo:
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise SourceError(f"the stream of {self._name} is no tar archive: {error}") from None

    def _extension(self, info: tarfile.TarInfo) -> dict[str, str]:
        """What a header of GNU or PAX says of the member after it."""
        if info.size > _EXTENSION_BYTES:
            raise SourceError(f"the stream of {self._name} has a header of {info.size} bytes")
        content = b""
        while len(content) < info.size:
            content += self._take(min(_BLOCK, info.size - len(content)))
        self._take(-info.size % _BLOCK)
        if info.type == _LONG_NAME:
            return {"path": content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
        if info.type != tarfile.XHDTYPE:
            return {}  # of a link, which is refused; of all members, which says nothing that is used here
        return {name: value for name, value in self._records(content) if name in _PAX_READ}

    def _records(self, content: bytes) -> Iterator[tuple[str, str]]:
        """PAX records, each ``<length> <name>=<value>\\n``."""
        position = 0
        try:
            while position < len(content):
                length = int(content[position : content.index(b" ", position)])
                record = content[position : position + length]
                if length < 5 or len(record) < length or not record.endswith(b"\n"):
                    raise ValueError
                text = record[:-1].decode("utf-8", "surrogateescape")
                name, _, value = text.partition(" ")[2].partition("=")
                yield name, value
                position += length
        except ValueError:
            raise SourceError(f"the stream of {self._name} has a malformed PAX header") from None

    def _member(self, info: tarfile.TarInfo, records: dict[str, str]) -> Member:
        name = records.get("path", info.name)
        path = name.rstrip("/").removeprefix("./").encode("utf-8", "surrogateescape")
        if any(part in (b"", b".", b"..") or b"\0" in part for part in path.split(b"/")):
            raise SourceError(f"the stream of {self._name} holds the unsafe path {name!r}")
        is_directory = info.type == tarfile.DIRTYPE
        if not is_directory and info.type not in _FILES:
            raise SourceError(
                f"the stream of {self._name} holds {name!r}, which is neither a directory nor a file;"
                " links in a data folder cannot be backed up"
            )
        size, mtime_ns, uid, gid = self._numbers(info, records)
        if size < 0 or (is_directory and size):
            raise SourceError(f"the stream of {self._name} says that {name!r} has {size} bytes")
        mode = info.mode & 0o7777
        return Member(path, is_directory, size, mode, uid, gid, mtime_ns, info.uname, info.gname)

    def _numbers(self, info: tarfile.TarInfo, records: dict[str, str]) -> tuple[int, int, int, int]:
        """Size, modification time in ns, and owner of a member."""
        try:
            mtime_ns = int(Decimal(records.get("mtime", info.mtime)) * 10**9)
            size, uid, gid = (int(records.get(name, getattr(info, name))) for name in ("size", "uid", "gid"))
        except (ValueError, InvalidOperation):
            raise SourceError(f"the stream of {self._name} has a malformed PAX header") from None
        return size, mtime_ns, uid, gid
