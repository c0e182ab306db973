"""Core ML packages on disk: finding them, what they consist of, and whether that can be trusted.

A package is a folder that anybody may have written. Its manifest names files, and coremltools follows it
wherever it leads: out of the package, by absolute paths, through links. Here it leads to its own files.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from blake3 import blake3

from fastvlm_ops.core.config.coreml import VERSION_PLACEHOLDER, ModelDefinition
from fastvlm_ops.core.coreml.errors import PackageRefusedError

MANIFEST = "Manifest.json"
_DATA = "Data"
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
_MANIFEST_BYTES = 1 << 20
_MODEL_BYTES = (1 << 31) - 1  # what protobuf can read
_FILES = 1000
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ModelPackage:
    """One version of a model.

    :param name: of the model, as in ``coreml.yaml``
    :param version: what stands for ``{version}`` in its path
    :param path: of the package
    """

    name: str
    version: str
    path: Path

    @cached_property
    def digest(self) -> str:
        """See :func:`digest`. All of the package is read, once."""
        return digest(self.path)


@dataclass(frozen=True)
class PackageFiles:
    """What a package consists of: regular files inside it, and nothing else.

    :param root: the package; of an ``.mlmodel``: the file
    :param manifest: its manifest; None of an ``.mlmodel``
    :param model_file: the specification, a protobuf
    :param weight_files: sizes of the files that weights may be in, by path, relative to the specification's
        folder
    :param size_bytes: of all files
    """

    root: Path
    manifest: Path | None
    model_file: Path
    weight_files: dict[str, int]
    size_bytes: int


def find_packages(model: ModelDefinition, root: Path) -> list[ModelPackage]:
    """Return the packages of a model, the newest version first.

    Versions are compared number by number: 10 is newer than 9, and 2.0 than 2.0-rc1.

    :param model: of ``coreml.yaml``
    :param root: what relative paths start from
    :raises PackageRefusedError: a name has something for a version that cannot be one
    """
    parts = (root / model.path).parts
    place = max(number for number, part in enumerate(parts) if VERSION_PLACEHOLDER in part)
    before, after = parts[place].split(VERSION_PLACEHOLDER)
    folder = Path(*parts[:place])
    found = []
    for name in _names_in(folder):
        if not (name.startswith(before) and name.endswith(after) and len(name) > len(before + after)):
            continue
        path = folder.joinpath(name, *parts[place + 1 :])
        version = name[len(before) : len(name) - len(after)]
        if not os.path.lexists(path):
            continue
        if not _VERSION.fullmatch(version):
            reason = f"{version!r} cannot be a version; expected letters, digits, '_', '.', '+' and '-'"
            raise PackageRefusedError(path, f"{reason}. Rename it, or take it away")
        found.append(ModelPackage(model.name, version, path))
    return sorted(found, key=lambda package: version_key(package.version), reverse=True)


def version_key(version: str) -> tuple[object, ...]:
    """Return what orders versions as people do.

    :param version: of a package
    """
    # A word after a number is a step towards it (2.0-rc1), so it stands below the end, and numbers above.
    words = re.findall(r"[0-9]+|[A-Za-z]+", version)
    keys = [(2, int(word), "") if word[0].isdigit() else (0, 0, word.lower()) for word in words]
    return (*keys, (1, 0, ""), version)


def open_package(path: Path) -> PackageFiles:
    """Tell what a package consists of, without reading more of it than the manifest.

    :param path: of an ``.mlpackage``, or of an ``.mlmodel``
    :raises PackageRefusedError: it is broken, of another kind, or leads out of itself
    """
    if path.suffix == ".mlmodelc":
        raise PackageRefusedError(path, "is compiled for a device; give the .mlpackage that it was made from")
    status = _status(path, path)
    if path.suffix == ".mlmodel" and stat.S_ISREG(status.st_mode):
        _check_model_size(path, path, status.st_size)
        return PackageFiles(path, None, path, {}, status.st_size)
    if path.suffix != ".mlpackage" or not stat.S_ISDIR(status.st_mode):
        raise PackageRefusedError(
            path, "is no Core ML package; expected a folder whose name ends in .mlpackage"
        )
    sizes = dict(_files(path))
    entries, root_entry = _manifest_entries(path, sizes)
    model = entries[root_entry]
    if model not in sizes:
        raise PackageRefusedError(path, f"{MANIFEST} names {model!r} as the model, which is no file in it")
    _check_model_size(path, path / model, sizes[model])
    folder = PurePosixPath(model).parent
    weights = {}
    for name in _entry_files(path, sizes, [entry for key, entry in entries.items() if key != root_entry]):
        if sizes[name] == 0:
            raise PackageRefusedError(path, f"{name} is empty: the package was not copied completely")
        if PurePosixPath(name).is_relative_to(folder):
            weights[PurePosixPath(name).relative_to(folder).as_posix()] = sizes[name]
    return PackageFiles(path, path / MANIFEST, path / model, weights, sum(sizes.values()))


def digest(path: Path) -> str:
    """Return what identifies a package: the BLAKE3 hash of its files' names, sizes and bytes, in hexadecimal.

    :param path: of the package
    :raises PackageRefusedError: something in it is no regular file, or it changes while it is read
    """
    hasher = blake3()
    for name, size in _files(path):
        encoded = os.fsencode(name)
        hasher.update(len(encoded).to_bytes(8, "little") + encoded + size.to_bytes(8, "little"))
        read = 0
        for chunk in read_regular(path, path / name if name else path):
            hasher.update(chunk)
            read += len(chunk)
        if read != size:
            raise PackageRefusedError(path, f"{name} changed while it was read; try again")
    return hasher.hexdigest()


def read_regular(package: Path, path: Path) -> Iterator[bytes]:
    """Read a file that has to be a regular one, even when somebody exchanges it meanwhile.

    :param package: that it is of, for the message
    :param path: of the file
    :raises PackageRefusedError: it is something else, or cannot be read
    """
    try:
        # A pipe would block for ever, and a link could lead anywhere.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PackageRefusedError(package, f"{path.name} cannot be read: {error.strerror}") from error
    with open(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PackageRefusedError(package, f"{path.name} is no regular file")
        try:
            while chunk := file.read(_CHUNK):
                yield chunk
        except OSError as error:
            raise PackageRefusedError(package, f"{path.name} cannot be read: {error.strerror}") from error


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PackageRefusedError(folder, f"cannot be listed: {error.strerror}") from error


def _status(package: Path, path: Path) -> os.stat_result:
    try:
        return path.lstat()
    except OSError as error:
        raise PackageRefusedError(package, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise PackageRefusedError(package, f"cannot be a path: {error}") from error


def _check_model_size(package: Path, path: Path, size: int) -> None:
    if size == 0:
        raise PackageRefusedError(package, f"{path.name} is empty: it was not written completely")
    if size > _MODEL_BYTES:
        raise PackageRefusedError(
            package, f"{path.name} has {size} bytes, more than a specification can have"
        )


def _files(package: Path) -> Iterator[tuple[str, int]]:
    """Yield relative names and sizes of a package's files, in the order of the names' bytes."""
    status = _status(package, package)
    if stat.S_ISREG(status.st_mode):
        yield "", status.st_size
        return
    if not stat.S_ISDIR(status.st_mode):
        raise PackageRefusedError(package, "is neither a folder nor a file; links are not followed")
    found: dict[str, int] = {}
    folders = [package]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    name = Path(entry.path).relative_to(package).as_posix()
                    mode = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(mode.st_mode):
                        folders.append(Path(entry.path))
                    elif stat.S_ISREG(mode.st_mode):
                        found[name] = mode.st_size
                    else:
                        kind = "a symbolic link" if stat.S_ISLNK(mode.st_mode) else "no regular file"
                        raise PackageRefusedError(
                            package, f"{name} is {kind}; expected files and folders only"
                        )
        except OSError as error:
            raise PackageRefusedError(package, f"cannot be read: {error.strerror}") from error
        if len(found) + len(folders) > _FILES:
            raise PackageRefusedError(package, f"has more than {_FILES} files and folders")
    yield from sorted(found.items(), key=lambda item: os.fsencode(item[0]))


def _manifest_entries(package: Path, sizes: dict[str, int]) -> tuple[dict[str, str], str]:
    """Return paths below the package, by id, and the id of the model."""
    if MANIFEST not in sizes:
        raise PackageRefusedError(package, f"has no {MANIFEST}")
    if sizes[MANIFEST] > _MANIFEST_BYTES:
        raise PackageRefusedError(package, f"{MANIFEST} has more than {_MANIFEST_BYTES} bytes")
    try:
        text = b"".join(read_regular(package, package / MANIFEST))
        content = json.loads(text, object_pairs_hook=_without_duplicates)
        items, root = content["itemInfoEntries"], content["rootModelIdentifier"]
        entries = {key: item["path"] for key, item in items.items()}
    except (ValueError, RecursionError) as error:
        raise PackageRefusedError(package, f"{MANIFEST} is not JSON as expected: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        message = f"{MANIFEST} lacks itemInfoEntries with a path each, or rootModelIdentifier"
        raise PackageRefusedError(package, message) from error
    if not isinstance(root, str) or root not in entries:
        raise PackageRefusedError(package, f"{MANIFEST} names a model, {root!r}, that is none of its entries")
    return {key: _confined(package, path) for key, path in entries.items()}, root


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Readers differ in which of two they take, so that one could be checked and the other be used.
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _confined(package: Path, path: object) -> str:
    """Return a path of the manifest as one below the package."""
    if not isinstance(path, str) or not path or "\0" in path or "\\" in path:
        raise PackageRefusedError(package, f"{MANIFEST} has {path!r} for a path")
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or pure == PurePosixPath():
        message = f"{MANIFEST} leads out of the package: {path!r}; expected a path below {_DATA}"
        raise PackageRefusedError(package, message)
    return (PurePosixPath(_DATA) / pure).as_posix()


def _entry_files(package: Path, sizes: dict[str, int], entries: list[str]) -> list[str]:
    """Return the files that entries of the manifest stand for."""
    names = []
    for entry in entries:
        found = [name for name in sizes if name == entry or name.startswith(f"{entry}/")]
        if not found and not (package / entry).is_dir():
            raise PackageRefusedError(package, f"{MANIFEST} names {entry!r}, which is not in it")
        names += found
    return names
