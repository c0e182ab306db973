"""Files of a folder that is no cluster: packages, YAML and JSON are parsed, SQLite databases checked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fastvlm_ops.core.disaster_recovery.soundness.findings import Soundness
from fastvlm_ops.core.disaster_recovery.soundness.sqlite import check_sqlite, is_sqlite

_PACKAGE = ".mlpackage"
_YAML, _JSON = (".yaml", ".yml"), (".json",)
_SQLITE = (".db", ".sqlite", ".sqlite3")
_LARGEST_BYTES = 256 << 20  # of a file that is parsed, which takes several times as much memory


def check_files(folder: Path, inspect_package: Callable[[Path], object] | None) -> Soundness:
    """Check whatever in a folder is of a kind that can be.

    :param folder: that was restored
    :param inspect_package: raises what is wrong with a package; None where nothing here can tell
    """
    found = Soundness()
    for path in _files_and_packages(folder):
        name = path.relative_to(folder).as_posix()
        if path.suffix == _PACKAGE and path.is_dir():
            _check_package(path, name, inspect_package, found)
        elif path.suffix in _YAML:
            _parse(path, name, "yaml", _parse_yaml, found)
        elif path.suffix in _JSON:
            _parse(path, name, "json", json.loads, found)
        elif path.suffix in _SQLITE and is_sqlite(path):
            check_sqlite(path, name, found)
    return found


def _files_and_packages(folder: Path) -> Iterator[Path]:
    """Regular files, and packages as one; links are not followed."""
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in [name for name in folders if name.endswith(_PACKAGE)]:
            folders.remove(name)
            yield Path(parent, name)
        for name in sorted(files):
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _check_package(
    path: Path, name: str, inspect_package: Callable[[Path], object] | None, found: Soundness
) -> None:
    if inspect_package is None:
        found.unchecked.append(f"{name}: nothing here can parse packages")
        return
    try:
        inspect_package(path)
    except ImportError as error:
        found.unchecked.append(f"{name}: {error}; install the extra coreml on this worker")
    except Exception as error:  # of many kinds, by what is wrong with it
        found.problems.append(f"{name} cannot be used: {str(error).removeprefix(f'{path}: ')}")
    else:
        found.counts["packages"] += 1


def _parse(path: Path, name: str, kind: str, parse: Callable[[bytes], object], found: Soundness) -> None:
    if path.stat().st_size > _LARGEST_BYTES:
        found.unchecked.append(f"{name}: too large to be parsed, {path.stat().st_size} bytes")
        return
    try:
        parse(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        found.problems.append(f"{name} is not {kind.upper()}: {' '.join(str(error).split())}")
    else:
        found.counts[kind] += 1


def _parse_yaml(data: bytes) -> None:
    """By its grammar alone: tags are for the program that reads it.

    :raises ValueError: it is none
    """
    import yaml

    try:
        for _ in yaml.compose_all(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            pass
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
