"""Entries of a snapshot's tree, and how they are written (docs/backup-format.md §7)."""

from __future__ import annotations

import base64
import json
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fastvlm_ops.core.backup.errors import CorruptionError

_METADATA = ("type", "mode", "uid", "gid", "user", "group", "mtime_ns")
_OF_A_FILE = (*_METADATA, "size", "ctime_ns", "inode", "device")
_told = operator.itemgetter(*_OF_A_FILE)
_found = operator.attrgetter(*_OF_A_FILE)
TYPES = ("directory", "file", "symlink", "fifo", "socket")
_ROOT = b"."
MODE_MASK = 0o7777


@dataclass(frozen=True)
class IdList:
    """Ids of chunks in order, or of chunks that hold such ids."""

    ids: tuple[bytes, ...] = ()
    nested: bool = False

    def to_json(self) -> dict[str, list[str]]:
        return {"lists" if self.nested else "chunks": [item.hex() for item in self.ids]}

    @classmethod
    def from_json(cls, content: dict[str, Any], name: str) -> IdList:
        nested = "lists" in content
        items = content.get("lists" if nested else "chunks", [])
        ids = tuple(bytes.fromhex(item) for item in items)
        if any(len(item) != 32 for item in ids):
            raise CorruptionError(f"{name}: a chunk id is not 32 bytes")
        return cls(ids, nested)


@dataclass
class Entry:
    """One file, directory, link or node. ``path`` is relative, components joined by ``/``."""

    path: bytes
    type: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    user: str = ""
    group: str = ""
    size: int = 0
    blake3: str = ""
    contents: IdList = field(default_factory=IdList)
    ctime_ns: int = 0
    inode: int = 0
    device: int = 0
    extents: list[tuple[int, int]] | None = None
    hard_link: bytes | None = None
    target: bytes | None = None
    xattrs: dict[str, bytes] = field(default_factory=dict)
    line: bytes | None = field(default=None, compare=False, repr=False)  # as encoded, where that is known

    @property
    def parts(self) -> tuple[bytes, ...]:
        return split_path(self.path)

    @property
    def stored_bytes(self) -> int:
        """Bytes the id list holds: without the holes of a sparse file."""
        return self.size if self.extents is None else sum(length for _, length in self.extents)

    def same_file(self, size: int, mtime_ns: int, ctime_ns: int, inode: int) -> bool:
        """Whether a file's status says that its contents are still these."""
        return (self.size, self.mtime_ns, self.ctime_ns, self.inode) == (size, mtime_ns, ctime_ns, inode)


def split_path(path: bytes) -> tuple[bytes, ...]:
    """Path components; the root has none."""
    return () if path == _ROOT else tuple(path.split(b"/"))


def _put_bytes(content: dict[str, Any], key: str, value: bytes) -> None:
    try:
        content[key] = value.decode()
    except UnicodeDecodeError:
        content[f"{key}_b64"] = base64.b64encode(value).decode()


def _get_bytes(content: dict[str, Any], key: str) -> bytes | None:
    if key in content:
        return str(content[key]).encode()
    encoded = content.get(f"{key}_b64")
    return None if encoded is None else base64.b64decode(encoded, validate=True)


def encode_entry(entry: Entry) -> bytes:
    """One line of the tree, line end included."""
    if entry.line is not None:
        return entry.line + b"\n"
    content: dict[str, Any] = {}
    _put_bytes(content, "path", entry.path)
    for name in _METADATA:
        content[name] = getattr(entry, name)
    if entry.hard_link is not None:
        _put_bytes(content, "hard_link", entry.hard_link)
    elif entry.type == "file":
        for name in ("size", "blake3", "ctime_ns", "inode", "device"):
            content[name] = getattr(entry, name)
        content.update(entry.contents.to_json())
        if entry.extents is not None:
            content["extents"] = entry.extents
    if entry.target is not None:
        _put_bytes(content, "target", entry.target)
    if entry.xattrs:
        content["xattrs"] = {name: base64.b64encode(value).decode() for name, value in entry.xattrs.items()}
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def decode_line(line: bytes) -> dict[str, Any]:
    """:raises CorruptionError: when the line is not a JSON object."""
    try:
        content = json.loads(line.decode())  # as text, or json would first guess the encoding
    except ValueError as error:
        raise CorruptionError(f"an entry of the tree is malformed: {error}") from error
    if not isinstance(content, dict):
        raise CorruptionError("an entry of the tree is malformed: it is no JSON object")
    return content


def path_of(content: dict[str, Any]) -> bytes:
    """:raises CorruptionError: when the line has none."""
    path = _get_bytes(content, "path")
    if path is None:
        raise CorruptionError("an entry of the tree has no path")
    return path


def is_line_of(content: dict[str, Any], entry: Entry) -> bool:
    """Whether a line is a file's whose status is this entry's in everything; False also means that only the
    decoded entry can tell. Attributes are not looked at: to change one sets the status's change time.
    """
    try:
        same = _told(content) == _found(entry) and content["path"].encode() == entry.path
    except KeyError:  # a path that is not UTF-8, or an entry of another kind
        return False
    return same and "blake3" in content


def decode_entry(line: bytes | dict[str, Any]) -> Entry:
    """:raises CorruptionError: when the line is not a well-formed entry."""
    try:
        content = decode_line(line) if isinstance(line, bytes) else line
        path = path_of(content)
        shown = path.decode(errors="backslashreplace")
        if content["type"] not in TYPES:
            raise CorruptionError(f"{shown}: unknown type {content['type']!r}")
        extents = content.get("extents")
        return Entry(
            path=path,
            type=content["type"],
            mode=int(content["mode"]) & MODE_MASK,
            uid=int(content["uid"]),
            gid=int(content["gid"]),
            mtime_ns=int(content["mtime_ns"]),
            user=content.get("user", ""),
            group=content.get("group", ""),
            size=int(content.get("size", 0)),
            blake3=content.get("blake3", ""),
            contents=IdList.from_json(content, shown),
            ctime_ns=int(content.get("ctime_ns", 0)),
            inode=int(content.get("inode", 0)),
            device=int(content.get("device", 0)),
            extents=None if extents is None else [(int(start), int(length)) for start, length in extents],
            hard_link=_get_bytes(content, "hard_link"),
            target=_get_bytes(content, "target"),
            xattrs={name: base64.b64decode(value) for name, value in content.get("xattrs", {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptionError(f"an entry of the tree is malformed: {error}") from error


def split_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of a tree that comes in pieces cut anywhere, without their ends."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    if rest:
        raise CorruptionError("the tree ends in the middle of an entry")


class TreeValidator:
    """Accepts entries in order, refuses every path that could leave the target or stands twice.

    Order by components makes it enough to remember the directories above the last entry.
    """

    def __init__(self) -> None:
        self._last: tuple[bytes, ...] | None = None
        self._directories: list[bytes] = []
        self._files: set[bytes] = set()

    def check(self, entry: Entry) -> None:
        """:raises CorruptionError: naming the path and the reason."""
        shown = entry.path.decode(errors="backslashreplace")
        parts = entry.parts
        if any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
            raise CorruptionError(f"unsafe path {shown!r} in the tree")
        if self._last is None:
            if parts or entry.type != "directory":
                raise CorruptionError(f"the tree does not begin with its root but with {shown!r}")
        elif parts <= self._last:
            raise CorruptionError(f"path {shown!r} stands twice or out of order")
        elif (
            list(parts[:-1]) != self._directories[: len(parts) - 1] or len(parts) > len(self._directories) + 1
        ):
            raise CorruptionError(f"path {shown!r} passes through something that is not a directory")
        self._check_contents(entry, shown)
        self._last = parts
        self._directories = list(parts if entry.type == "directory" else parts[:-1])

    def _check_contents(self, entry: Entry, shown: str) -> None:
        if entry.hard_link is not None:
            if entry.type != "file" or entry.hard_link not in self._files:
                raise CorruptionError(f"{shown!r} is a hard link to something that is no earlier file")
        elif entry.type == "file":
            self._files.add(entry.path)
        if (entry.target is not None) != (entry.type == "symlink"):
            raise CorruptionError(f"{shown!r}: only symlinks have a target, and all have one")
        position = 0
        for start, length in entry.extents or ():
            if start < position or length <= 0 or start + length > entry.size:
                raise CorruptionError(f"{shown!r}: extents overlap or pass the end of the file")
            position = start + length
        if entry.size < 0 or entry.size > 1 << 62:
            raise CorruptionError(f"{shown!r}: impossible size {entry.size}")
