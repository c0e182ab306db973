"""Making an old primary a standby of the present one, whatever it wrote after they parted.

pg_rewind brings its data folder back to where the histories part. Where it cannot, a fresh copy is taken. No
answer of either is believed: what counts is that the standby streams afterwards.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastvlm_ops.core.backup.errors import BackupError
from fastvlm_ops.core.backup.postgresql.address import libpq_environment
from fastvlm_ops.core.backup.postgresql.cluster import connected
from fastvlm_ops.core.backup.postgresql.programs import Account
from fastvlm_ops.core.disaster_recovery.postgresql.errors import DatabaseError
from fastvlm_ops.core.disaster_recovery.postgresql.server_processes import clear_stale_lock
from fastvlm_ops.core.disaster_recovery.postgresql.state import parse_address
from fastvlm_ops.core.programs import ProgramError, run

if TYPE_CHECKING:
    from sqlalchemy import URL

STANDBY_SIGNAL = "standby.signal"
_NOTHING_TO_DO = "no rewind required"


@dataclass(frozen=True)
class Rejoined:
    """What made a data folder one of a standby.

    :param how: ``rewound``; ``unchanged``, as pg_rewind found nothing that had to go; or ``copied`` afresh
    :param why: it was not rewound; empty where it was
    :param commands: that were run, without secrets
    """

    how: Literal["rewound", "unchanged", "copied"]
    why: str
    seconds: float
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Rejoiner:
    """Makes standbys.

    :param programs: folder of pg_rewind and pg_basebackup, of the server's version
    :param account: who the server runs as, and whose its data folder is
    :param sync: whether what is written is forced to disk
    :param seconds: that each program may take
    """

    programs: Path
    account: Account
    sync: bool = True
    seconds: float = 600.0

    def rejoin(
        self, data: Path, primary: str, *, afresh: str = "", settings_file: Path | None = None
    ) -> Rejoined:
        """Make a data folder, whose server does not run, one of a standby; starting it is left to the caller.

        Settings of the server in the data folder come from the primary.

        :param data: the data folder
        :param primary: address of the present primary
        :param afresh: why it is to be copied without trying pg_rewind; empty for trying
        :param settings_file: ``postgresql.conf`` of the server, where it is not in the data folder
        :raises DatabaseError: the server runs, the primary does not answer, or neither way worked
        """
        url = parse_address(primary)
        began = time.monotonic()
        clear_stale_lock(data)
        _checkpoint(url)
        mark = unfinished_mark(data)
        mark.touch()
        commands: list[str] = []
        how: Literal["rewound", "unchanged", "copied"] = "copied"
        if not afresh:
            try:
                how = self._rewind(data, url, settings_file, commands)
            except ProgramError as error:
                # Whatever it had done by then, its folder is not to be trusted.
                afresh = f"{error}: {_last_line(error.output)}"
        if afresh:
            self._copy(data, url, commands)
        self._give(data / STANDBY_SIGNAL)
        mark.unlink()
        return Rejoined(how, afresh, round(time.monotonic() - began, 3), tuple(commands))

    def copy(self, data: Path, primary: str) -> None:
        """Make the data folder of a new standby, which need not exist.

        :param data: the data folder
        :param primary: address of the primary
        :raises DatabaseError: it could not be copied
        """
        mark = unfinished_mark(data)
        mark.touch()
        self._copy(data, parse_address(primary), [])
        self._give(data / STANDBY_SIGNAL)
        mark.unlink()

    def _rewind(
        self, data: Path, url: URL, settings_file: Path | None, commands: list[str]
    ) -> Literal["rewound", "unchanged"]:
        if not data.is_dir():
            raise ProgramError("pg_rewind", "has nothing to rewind", f"{data} is not there")
        arguments = [f"--target-pgdata={data}", "--source-server=application_name=fastvlm-ops"]
        if settings_file is not None:
            # It first lets a server that crashed recover: without its own settings that one would remove the
            # log (wal_keep_size) in which pg_rewind then looks for the place where the histories part.
            arguments.append(f"--config-file={settings_file}")
        output = self._run("pg_rewind", arguments, url, data.parent, commands)
        return "unchanged" if _NOTHING_TO_DO in output else "rewound"

    def _copy(self, data: Path, url: URL, commands: list[str]) -> None:
        fresh, old = data.with_name(f"{data.name}.new"), data.with_name(f"{data.name}.old")
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)
        arguments = [
            f"--pgdata={fresh}",
            "--checkpoint=fast",
            "--wal-method=stream",
            "--no-password",
        ]
        try:
            self._run("pg_basebackup", arguments, url, data.parent, commands)
        except ProgramError as error:
            raise DatabaseError(
                f"{data} could not be copied from {url.host}:{url.port}: {error}: {_last_line(error.output)}",
                retryable=True,
            ) from None
        if data.exists():
            data.rename(old)
        fresh.rename(data)
        shutil.rmtree(old, ignore_errors=True)

    def _run(
        self, program: str, arguments: Sequence[str], url: URL, folder: Path, commands: list[str]
    ) -> str:
        options = [*arguments, *([] if self.sync else ["--no-sync"])]
        commands.append(" ".join([program, *options]))
        output = run(
            self.account.command([str(self.programs / program), *options]),
            name=program,
            environment=_environment(url, folder),
            timeout_seconds=self.seconds,
            folder=folder,
        )
        return output.text + output.errors

    def _give(self, file: Path) -> None:
        file.touch(mode=0o600)
        os.chown(file, self.account.uid, self.account.gid)


def unfinished_mark(data: Path) -> Path:
    """Return the file that is there while, or because, a data folder is half made, and must not be started.

    :param data: the data folder
    """
    return data.with_name(f"{data.name}.unfinished")


def _checkpoint(url: URL) -> None:
    """Have the primary note its timeline: shortly after a promotion, pg_rewind would read the old one."""
    try:
        with connected(url) as connection:
            row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
            if row is None or row[0]:
                raise DatabaseError(f"{url.host}:{url.port} is not a primary, so that nothing can follow it")
            connection.execute("CHECKPOINT")
    except BackupError as error:
        raise DatabaseError(str(error), retryable=True) from None


def _environment(url: URL, home: Path) -> Mapping[str, str]:
    return {**libpq_environment(url), "HOME": str(home), "LC_ALL": "C", "PATH": os.defpath}


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
