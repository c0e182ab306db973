"""PostgreSQL's programs on this machine, and the account that a server of it may run as."""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvlm_ops.core.backup.errors import SourceError
from fastvlm_ops.core.programs import ProgramError, run

_UNPRIVILEGED = ("postgres", "nobody")
_VERSION = re.compile(r"\b(\d+)(?:\.\d+|devel|beta\d+|rc\d+)")


@dataclass(frozen=True)
class Programs:
    """A folder with programs of PostgreSQL, all of one version.

    :param folder: with the programs
    :param version: as they say it, as in ``16.4``
    """

    folder: Path
    version: str

    @property
    def major(self) -> int:
        """The first number of the version."""
        return int(re.split(r"\D", self.version, maxsplit=1)[0])

    def path(self, name: str) -> str:
        """Return the path of a program.

        :param name: as in ``pg_basebackup``
        :raises SourceError: it is not there
        """
        found = self.folder / name
        if not os.access(found, os.X_OK):
            raise SourceError(
                f"{found} is not there, beside other programs of PostgreSQL {self.version};"
                f" install {_package(name, self.major)}, or set [fastvlm_ops] postgresql_bin_dir"
            )
        return str(found)


def find_programs(
    minimum_major: int,
    *,
    exactly: bool = False,
    folder: Path | None = None,
    needed: Sequence[str] = ("pg_basebackup",),
) -> Programs:
    """Find PostgreSQL's programs: those of the version that is asked for, else the newest.

    :param minimum_major: what they must be at least: clients work with servers of their version and older
    :param exactly: whether a newer one will not do, as for a server that is to open existing data
    :param folder: the only place to look, as ``[fastvlm_ops] postgresql_bin_dir`` names it; where None, where
        packages put them, and PATH
    :param needed: programs that must be there, the first of which is asked for its version
    :raises SourceError: there are none; the message says what is there, and what to install
    """
    places = [folder] if folder is not None else list(_places(needed[0]))
    found = [one for place in places if (one := _programs_in(place, needed)) is not None]
    fitting = [
        one for one in found if one.major == minimum_major or (one.major > minimum_major and not exactly)
    ]
    if fitting:
        return min(fitting, key=lambda one: (one.major != minimum_major, -one.major))
    wanted = f"{minimum_major}" if exactly else f"{minimum_major} or newer"
    there = ", ".join(f"{one.version} in {one.folder}" for one in found) or "none"
    where = f"in {folder}" if folder is not None else "in /usr/lib/postgresql and on PATH of this worker"
    raise SourceError(
        f"{' and '.join(needed)} of PostgreSQL {wanted} must be {where}, where there is {there}; install"
        f" {_package(needed[0], minimum_major)}, or set [fastvlm_ops] postgresql_bin_dir"
    )


def _places(program: str) -> Iterator[Path]:
    """Folders that may hold the program, each once."""
    on_path = shutil.which(program)
    candidates = [
        *sorted(Path("/usr/lib/postgresql").glob("*/bin")),  # Debian, Ubuntu
        *sorted(Path("/usr").glob("pgsql-*/bin")),  # packages of the PostgreSQL project for Red Hat
        *([Path(on_path).resolve().parent] if on_path else []),
    ]
    yield from dict.fromkeys(candidates)


def _programs_in(folder: Path, needed: Sequence[str]) -> Programs | None:
    """Programs in a folder; None where one is missing, or does not say its version."""
    if not all(os.access(folder / name, os.X_OK) for name in needed):
        return None
    try:
        said = run(
            [str(folder / needed[0]), "--version"],
            name=needed[0],
            environment={"PATH": os.defpath, "LC_ALL": "C"},
            timeout_seconds=30,
        ).text
    except ProgramError:
        return None
    match = _VERSION.search(said)
    return None if match is None else Programs(folder, match[0])


def _package(program: str, major: int) -> str:
    """What to install, for people."""
    server = program in ("postgres", "initdb", "pg_ctl")
    return f"PostgreSQL's {'server' if server else 'client programs'} (Debian, Ubuntu:" + (
        f" postgresql-{major})" if server else f" postgresql-client-{major})"
    )


@dataclass(frozen=True)
class Account:
    """Who a server runs as, for it refuses root.

    :param name: of the user; None for oneself
    """

    name: str | None
    uid: int
    gid: int

    def popen_options(self) -> dict[str, Any]:
        """Return what :class:`subprocess.Popen` needs to start a program as this account."""
        if self.name is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def command(self, arguments: Sequence[str], *, die_with_parent: bool = False) -> list[str]:
        """Return a command that runs a program as this account.

        :param arguments: the program and its arguments
        :param die_with_parent: whether the kernel stops it (SIGINT) with the thread that starts it
        :raises SourceError: setpriv is needed for it, and is not there
        """
        options = []
        if self.name is not None:
            options += [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        if die_with_parent:  # set together with the user: a change of user afterwards would clear it
            options += ["--pdeathsig", "INT"]
        if not options:
            return list(arguments)
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise SourceError("setpriv (package util-linux) is needed to start PostgreSQL")
        return [setpriv, *options, *arguments]


def run_as() -> Account:
    """Return who a server of PostgreSQL can run as: oneself, or for root an unprivileged user.

    :raises SourceError: one is root, and there is no such user
    """
    if os.geteuid() != 0:
        return Account(None, os.geteuid(), os.getegid())
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise SourceError(f"PostgreSQL does not run as root, and there is no user {' or '.join(_UNPRIVILEGED)}")
