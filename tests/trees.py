"""Making trees for tests, and describing them so that two can be compared."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import stat
from pathlib import Path
from typing import Any


def describe(root: Path) -> dict[bytes, dict[str, Any]]:
    """Everything a backup has to bring back, by path: contents, modes, owners, times, links, attributes."""
    found: dict[bytes, dict[str, Any]] = {}
    inodes: dict[int, bytes] = {}
    top = os.fsencode(root)
    for folder, folders, files in os.walk(top):
        for name in (b"", *sorted(folders), *sorted(files)) if folder == top else sorted(folders + files):
            path = os.path.join(folder, name) if name else folder
            status = os.lstat(path)
            about: dict[str, Any] = {
                "type": stat.S_IFMT(status.st_mode),
                "mode": stat.S_IMODE(status.st_mode),
                "owner": (status.st_uid, status.st_gid),
                "mtime_ns": status.st_mtime_ns,
            }
            if stat.S_ISLNK(status.st_mode):
                about["target"] = os.readlink(path)
            else:
                about["xattrs"] = {
                    item: os.getxattr(path, item, follow_symlinks=False)
                    for item in os.listxattr(path, follow_symlinks=False)
                }
            relative = os.path.relpath(path, top)
            if stat.S_ISREG(status.st_mode):
                about["size"] = status.st_size
                about["same_file_as"] = inodes.setdefault(status.st_ino, relative)
                with open(path, "rb") as file:
                    about["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
            found[relative] = about
    return found


def make_plain_tree(root: Path, *, seed: int = 1, files: int = 40, large_bytes: int = 3 << 20) -> Path:
    """A kit in small: a weight file, many texts in folders of various modes."""
    rng = random.Random(seed)
    (root / "model.mlpackage").mkdir(parents=True)
    (root / "model.mlpackage" / "weight.bin").write_bytes(rng.randbytes(large_bytes))
    for number in range(files):
        folder = root / f"group-{number % 5}"
        folder.mkdir(exist_ok=True)
        file = folder / f"file-{number}.yaml"
        file.write_text(f"name: {number}\nvalue: {rng.random()}\n" * rng.randrange(1, 40))
        file.chmod(rng.choice((0o600, 0o644, 0o640, 0o755)))
    return root


def make_hard_tree(root: Path) -> Path:
    """What file systems hold besides plain files."""
    make_plain_tree(root)
    (root / "empty-folder").mkdir(mode=0o711)
    (root / "empty-file").touch()
    (root / "no-access").write_text("mode 000")
    (root / "no-access").chmod(0)
    (root / "set-id").write_bytes(b"#!/bin/true\n")
    (root / "set-id").chmod(0o6755)
    (root / "dangling").symlink_to("nowhere/at/all")
    (root / "absolute").symlink_to("/etc/hostname")
    (root / "loop").symlink_to("loop")
    (root / "to-folder").symlink_to("group-1")
    os.link(root / "group-0" / "file-0.yaml", root / "second-name")
    os.link(root / "group-0" / "file-0.yaml", root / "zz-third-name")
    os.mkfifo(root / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as unix:
        here = os.getcwd()
        os.chdir(root)  # the path of a socket may have 107 characters at most
        unix.bind("socket")
        os.chdir(here)
    with (root / "sparse").open("wb") as sparse:
        sparse.seek(5 << 20)
        sparse.write(b"in the middle" * 1000)
        sparse.truncate(64 << 20)
    with (root / "hole-only").open("wb") as hole:
        hole.truncate(8 << 20)
    for name in (
        b"line\nbreak",
        b"not-utf8-\xff\xfe",
        "nfc-é".encode(),
        b"nfd-e\xcc\x81",
        b"x" * 255,
        b" ",
        b"-rf",
    ):
        (root / os.fsdecode(name)).write_bytes(b"named " + name)
    os.setxattr(root / "empty-file", "user.origin", b"\x00binary\xff")
    os.utime(root / "empty-file", ns=(1, 1_000_000_007))
    os.utime(root / "empty-folder", ns=(1, 987_654_321_123_456_789))
    (root / "empty-folder").chmod(0o555)
    return root
