"""A first ``components.yaml``, from what a person named on the command line."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from fastvlm_ops.cli.errors import CommandError
from fastvlm_ops.core.config import DefinitionError, load_components

COMPONENTS = "include/components.yaml"
_HEAD = """\
# yaml-language-server: $schema=schemas/components.schema.json
#
# What is backed up. Each component is one task of a backup; all of them together are one backup set.
"""


def components_text(named: Sequence[str]) -> bytes | None:
    """Return the file that backs these up; None where nothing is named.

    :param named: each as ``NAME=PATH``; a folder, or an SQLite database
    :raises CommandError: one cannot be used; the message names it
    """
    if not named:
        return None
    components = [_component(item) for item in named]
    body = yaml.safe_dump({"version": 1, "components": components}, sort_keys=False, allow_unicode=True)
    text = (_HEAD + body).encode()
    _check(text)
    return text


def _component(item: str) -> dict[str, str]:
    name, separator, written = item.partition("=")
    if not separator or not name or not written:
        raise CommandError(f"--back-up {item!r}: expected NAME=PATH, as in documents=/srv/documents")
    path = Path(written).expanduser().absolute()
    if path.is_dir():
        kind = "files"
    elif path.is_file() and _is_sqlite(path):
        kind = "sqlite"
    elif path.exists():
        raise CommandError(f"--back-up {item!r}: {path} is neither a folder nor an SQLite database")
    else:
        raise CommandError(f"--back-up {item!r}: {path} does not exist")
    return {"name": name, "kind": kind, "path": str(path)}


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _check(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "components.yaml").write_bytes(text)
        try:
            load_components(Path(folder))
        except DefinitionError as error:
            problems = "; ".join(str(problem) for problem in error.problems)
            raise CommandError(f"--back-up: {problems}") from error
