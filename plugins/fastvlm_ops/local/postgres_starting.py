"""What every PostgreSQL server of a demo or a test is started with: who it runs as, where, and on what."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fastvlm_ops.core.backup.errors import SourceError
from fastvlm_ops.core.backup.postgresql.programs import Account, run_as
from fastvlm_ops.local.processes import ProcessStartError


def account() -> Account:
    """Return who a server runs as, which is not root.

    :raises ProcessStartError: there is no such user
    """
    try:
        return run_as()
    except SourceError as error:
        raise ProcessStartError(str(error)) from None


def scratch_folder(owner: Account) -> Path:
    """Make an empty folder of an account, where it can reach it.

    :param owner: of the folder
    """
    parent = Path(tempfile.gettempdir()).resolve()
    if owner.name is not None and not all(path.stat().st_mode & 0o001 for path in (parent, *parent.parents)):
        parent = Path("/var/tmp")  # noqa: S108 - TMPDIR lies where the other user cannot reach it
    scratch = Path(tempfile.mkdtemp(prefix="fastvlm-ops-postgres-", dir=parent))
    os.chown(scratch, owner.uid, owner.gid)
    return scratch


def environment(scratch: Path) -> dict[str, str]:
    """Return all of the environment that a server, or a program of PostgreSQL, gets.

    :param scratch: its home
    """
    return {"PATH": os.defpath, "HOME": str(scratch), "LC_ALL": "C", "TZ": "UTC"}


def as_account(owner: Account, arguments: Sequence[str], *, die_with_parent: bool) -> list[str]:
    """Return a command that runs a program as an account.

    :param owner: whom it runs as
    :param arguments: the program and its arguments
    :param die_with_parent: whether the kernel ends it with the thread that starts it
    :raises ProcessStartError: setpriv is needed for it, and is not there
    """
    try:
        return owner.command(arguments, die_with_parent=die_with_parent)
    except SourceError as error:
        raise ProcessStartError(str(error)) from None


def write_private(file: Path, text: str, owner: Account) -> None:
    """Write a file that only an account can read.

    :param file: made or replaced
    :param text: its contents
    :param owner: of the file
    """
    file.touch(mode=0o600)
    file.write_text(text)
    os.chown(file, owner.uid, owner.gid)


def initialise(
    programs: Path, data: Path, *, account: Account, user: str, password: str, segment_mb: int
) -> None:
    """Make an empty cluster, with one superuser.

    :param programs: folder of its programs, which the account can run
    :param data: its folder, in a folder of the account
    :param account: whose it is
    :param user: the superuser
    :param password: of the superuser
    :param segment_mb: size of its WAL segments in MiB, a power of two
    :raises ProcessStartError: it could not be made
    """
    secret = data.with_name(f"{data.name}.password")
    write_private(secret, password, account)
    arguments = [
        str(programs / "initdb"),
        *("--pgdata", str(data)),
        *("--username", user),
        *("--pwfile", str(secret)),
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--data-checksums",
        f"--wal-segsize={segment_mb}",
        "--no-sync",
        "--no-instructions",
    ]
    result = subprocess.run(
        arguments,
        env=environment(data.parent),
        cwd=data.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **account.popen_options(),
    )
    secret.unlink()
    if result.returncode != 0:
        raise ProcessStartError(f"PostgreSQL's initdb failed: {result.stderr.strip()[-1000:]}")
