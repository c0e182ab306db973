"""A file or folder of a place that is corrupted, cut short or deleted, and comes back.

What was there is kept, as the very same files, in a folder of the fault's own beside the place::

    <kept>/about.json      what is hit; written first, and again before anything is touched
    <kept>/original/       what was there, by its path in the place
    <kept>.replaced/       what lay in its way when it came back, unless that was the damage, or the same
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fastvlm_ops.core.disaster_recovery.fault_types import FileFault
from fastvlm_ops.core.disaster_recovery.faults.errors import FaultError
from fastvlm_ops.core.disaster_recovery.flushing import flush_folder, write_flushed
from fastvlm_ops.core.services.places import MARKER_FILE

_CHUNK_BYTES = 1 << 20
_FLIPPED = bytes(byte ^ 0xFF for byte in range(256))


def inject(fault: FileFault) -> None:
    """Damage or remove what is in the place.

    :raises FaultError: the place, the path or the folder to keep it in is not what it should be
    """
    place, kept = Path(fault.place), _Kept(fault)
    names = _names(fault, place)
    for name in names:
        _check(place, name, damaged=fault.how != "delete")
    kept.make(place)
    if fault.how == "delete":
        kept.note("kept", names)
        for name in names:
            source = kept.original(name)
            source.parent.mkdir(parents=True, exist_ok=True)
            (place / name).rename(source)
            flush_folder((place / name).parent)
        return
    (name,) = names
    target, original, damaged = place / name, kept.original(name), kept.folder / "damaged"
    _make_damaged(fault, target, damaged)
    original.parent.mkdir(parents=True, exist_ok=True)
    original.hardlink_to(target)
    flush_folder(original.parent)
    kept.note("kept", names)
    damaged.replace(target)
    flush_folder(target.parent)


def revert(fault: FileFault) -> str:
    """Bring back what was there; what is the same by its contents already stays as it is.

    :raises FaultError: what is kept is not this fault's
    """
    kept = _Kept(fault)
    if not os.path.lexists(kept.folder):
        return "nothing is kept, so that nothing had to be done"
    done = []
    for name in kept.names():
        if os.path.lexists(kept.original(name)):
            done.append(f"{name}: {_bring_back(fault, kept, name)}")
    kept.remove()
    return "; ".join(done) or "nothing had been touched"


def is_left(fault: FileFault) -> str | None:
    """Return that what was there has not come back."""
    return f"what was there is still kept in {fault.kept}" if os.path.lexists(fault.kept) else None


def describe(fault: FileFault) -> list[str]:
    """Return what is done to the files in words."""
    what = f"{fault.place}/{fault.path}" if fault.path else f"all that is in {fault.place}"
    how = {
        "corrupt": f"change {fault.bytes} bytes in the middle of {what}",
        "truncate": f"cut off the second half of {what}",
        "delete": f"remove {what}",
    }
    return [
        f"{how[fault.how]}; what was there is kept in {fault.kept}",
        "taken back: what was there comes back, unless the same contents are there by then",
    ]


class _Kept:
    """The folder of a fault.

    :param fault: whose it is
    """

    def __init__(self, fault: FileFault) -> None:
        self.folder = Path(fault.kept)
        self._about = self.folder / "about.json"
        self._fault = fault

    def original(self, name: str) -> Path:
        """Return where what was at a path of the place is kept."""
        return self.folder / "original" / name

    def make(self, place: Path) -> None:
        """Make it.

        :raises FaultError: it is there, or cannot be where it is to be
        """
        parent = self.folder.parent
        if not self.folder.is_absolute() or parent.resolve() != parent or not parent.is_dir():
            raise FaultError(f"{self.folder} cannot be made: {parent} is no folder, or is reached by a link")
        if self.folder.is_relative_to(place) or place.is_relative_to(self.folder):
            raise FaultError(f"{self.folder} is to keep what was there, and has to be outside {place}")
        if parent.stat().st_dev != place.stat().st_dev:
            raise FaultError(f"{self.folder} and {place} are not on the same file system")
        try:
            self.folder.mkdir(mode=0o700)
        except FileExistsError:
            raise FaultError(f"{self.folder} is there already; it is not this fault's to use") from None
        flush_folder(parent)
        self.note("keeping", [])

    def note(self, phase: str, names: list[str]) -> None:
        """Write how far it is: ``kept`` from the moment on in which something may be touched."""
        content = {"version": 1, "fault": self._fault.model_dump(), "phase": phase, "names": names}
        write_flushed(self._about, json.dumps(content, indent=1))

    def names(self) -> list[str]:
        """Return the paths in the place that may have been touched.

        :raises FaultError: the folder is not this fault's
        """
        try:
            about: dict[str, Any] = json.loads(self._about.read_bytes())
        except FileNotFoundError:
            if set(self.folder.iterdir()) - set(self._unfinished()):  # nothing is made in it before that file
                raise FaultError(f"{self.folder} was not made by this fault, and is left alone") from None
            return []
        except (ValueError, NotADirectoryError):
            raise FaultError(f"{self._about} is damaged; look at {self.folder} by hand") from None
        if not isinstance(about, dict) or about.get("fault") != self._fault.model_dump():
            raise FaultError(f"{self.folder} is another fault's, and is left alone")
        names = [str(name) for name in about["names"]] if about["phase"] == "kept" else []
        for name in names:
            _check_path(name)
        return names

    def remove(self) -> None:
        """Remove it, once all is back. Anything that is not known stays in the way, and raises."""
        (self.folder / "damaged").unlink(missing_ok=True)
        original = self.folder / "original"
        untouched = not self.names() and self._about.exists()
        if untouched and original.exists():
            shutil.rmtree(original)  # more names of files that are where they were
        for folder, _, _ in os.walk(original, topdown=False):
            os.rmdir(folder)
        for file in self._unfinished():
            file.unlink()
        self._about.unlink(missing_ok=True)
        self.folder.rmdir()
        flush_folder(self.folder.parent)

    def _unfinished(self) -> list[Path]:
        """What was being written when its writer died."""
        return list(self.folder.glob(f".{self._about.name}.*.tmp"))


def _names(fault: FileFault, place: Path) -> list[str]:
    if not place.is_absolute() or not place.is_dir() or place.resolve() != place:
        raise FaultError(f"{place} is no folder, or is reached by a link; nothing was touched")
    if fault.path:
        return [fault.path]
    if fault.how != "delete":
        raise FaultError(f"to {fault.how} needs the path of one file")
    # What the place belongs to stays known: the guards of the next drill ask for it.
    names = sorted(entry.name for entry in place.iterdir() if entry.name != MARKER_FILE)
    if not names:
        raise FaultError(f"{place} is empty: there is nothing to delete")
    return names


def _check(place: Path, name: str, *, damaged: bool) -> None:
    _check_path(name)
    target = place / name
    if target.parent.resolve() != target.parent:
        raise FaultError(f"{target} is reached by a link, and may lie elsewhere; nothing was touched")
    if not os.path.lexists(target):
        raise FaultError(f"{target} is not there; nothing was touched")
    if target.parent.stat().st_dev != place.stat().st_dev:
        raise FaultError(f"{target} is not on the file system of {place}; nothing was touched")
    if damaged and not stat.S_ISREG(target.lstat().st_mode):
        raise FaultError(f"{target} is not a file; nothing was touched")


def _check_path(name: str) -> None:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or name == MARKER_FILE:
        raise FaultError(f"{name!r} is no path inside a place, or says what the place is; it is not touched")


@dataclass(frozen=True)
class _Damage:
    """How the bytes of a file change.

    :param length: of the damaged file
    :param start: of the bytes that change
    :param end: of them
    """

    length: int
    start: int
    end: int

    @classmethod
    def of(cls, fault: FileFault, size: int) -> _Damage:
        if fault.how == "truncate":
            return cls(size // 2, 0, 0)
        start = max(0, (size - fault.bytes) // 2)
        return cls(size, start, min(size, start + fault.bytes))

    def copy(self, source: Path, write: Callable[[bytes], object]) -> None:
        """Write the damaged bytes of a file."""
        position = 0
        with source.open("rb") as file:
            while chunk := file.read(min(_CHUNK_BYTES, self.length - position)):
                first, last = max(0, self.start - position), max(0, self.end - position)
                changed = chunk[first:last].translate(_FLIPPED)
                write(chunk[:first] + changed + chunk[first + len(changed) :])
                position += len(chunk)


def _make_damaged(fault: FileFault, target: Path, damaged: Path) -> None:
    status = target.stat()
    damage = _Damage.of(fault, status.st_size)
    if status.st_size < 2 or (fault.how == "corrupt" and status.st_size < fault.bytes):
        raise FaultError(f"{target} has only {status.st_size} bytes; nothing was touched")
    with damaged.open("xb") as file:
        damage.copy(target, file.write)
        file.flush()
        os.fsync(file.fileno())
    os.chown(damaged, status.st_uid, status.st_gid)
    damaged.chmod(stat.S_IMODE(status.st_mode))
    if fault.how == "corrupt":
        os.utime(damaged, ns=(status.st_atime_ns, status.st_mtime_ns))


def _bring_back(fault: FileFault, kept: _Kept, name: str) -> str:
    original, target = kept.original(name), Path(fault.place) / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.parent.resolve() != target.parent:
        raise FaultError(f"{target} is reached by a link by now; what was there stays in {original}")
    said = "is back"
    if os.path.lexists(target):
        if _same(original, target):
            _remove(original)
            return "the same contents were there already"
        if not _is_damage(fault, original, target):
            said = f"is back; what had come in its place is in {_set_aside(kept, target, name)}"
    original.replace(target)
    flush_folder(target.parent)
    return said


def _is_damage(fault: FileFault, original: Path, target: Path) -> bool:
    """Whether a file is nothing but what this fault made of the original."""
    if fault.how == "delete" or not stat.S_ISREG(target.lstat().st_mode):
        return False
    expected = hashlib.sha256()
    _Damage.of(fault, original.stat().st_size).copy(original, expected.update)
    return expected.hexdigest() == _digest(target)


def _set_aside(kept: _Kept, target: Path, name: str) -> Path:
    aside = kept.folder.with_name(f"{kept.folder.name}.replaced") / name
    aside.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(aside):
        raise FaultError(f"{aside} is in the way of what has to be set aside; move it away")
    target.rename(aside)
    return aside


def _same(one: Path, other: Path) -> bool:
    """Whether two paths hold the same, by the contents of every file."""
    kinds = {stat.S_IFMT(path.lstat().st_mode) for path in (one, other)}
    if kinds == {stat.S_IFLNK}:
        return one.readlink() == other.readlink()
    if kinds == {stat.S_IFREG}:
        return _digest(one) == _digest(other)
    if kinds != {stat.S_IFDIR}:
        return False
    names = sorted(os.listdir(one))
    return names == sorted(os.listdir(other)) and all(_same(one / name, other / name) for name in names)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
