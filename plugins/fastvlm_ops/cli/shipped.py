"""The files that ``init`` puts in place: in the wheel below ``shipped``, in a checkout where they are."""

from __future__ import annotations

from pathlib import Path

import fastvlm_ops
from fastvlm_ops.cli.errors import CommandError

PLUGIN = "plugins/fastvlm_ops_plugin.py"


def shipped_files() -> dict[str, bytes]:
    """Return the contents of each file by its name, such as ``dags/backup_create.py``, in order.

    :raises CommandError: the installation lacks them
    """
    package = Path(fastvlm_ops.__file__).parent
    top = next((place for place in (package / "shipped", package.parents[1]) if _is_complete(place)), None)
    if top is None:
        raise CommandError(f"{package} lacks the files to put in place; install fastvlm-ops again")
    paths = [
        path for part in ("dags", "include") for path in (top / part).rglob("*") if _is_shipped(path, top)
    ]
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in sorted([*paths, top / PLUGIN])}


def _is_complete(top: Path) -> bool:
    return (top / PLUGIN).is_file() and (top / "dags").is_dir() and (top / "include").is_dir()


def _is_shipped(path: Path, top: Path) -> bool:
    parts = path.relative_to(top).parts
    return path.is_file() and "__pycache__" not in parts and not any(part.startswith(".") for part in parts)
