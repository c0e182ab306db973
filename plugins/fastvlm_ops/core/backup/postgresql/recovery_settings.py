"""The settings that make a restored base recover up to a target, and no further, and nowhere but there.

Nothing that a person enters reaches a shell: the restore command is the same for every recovery, and finds
the WAL by a path relative to the data folder, in which PostgreSQL runs it. What a person enters reaches the
settings file only between quotes.
"""

from __future__ import annotations

import os
from datetime import UTC
from pathlib import Path

from fastvlm_ops.core.backup.postgresql.lsn import format_lsn
from fastvlm_ops.core.backup.postgresql.recovery_target import RecoveryTarget

DATA = "data"
WAL = "wal_restore"
SETTINGS_FILE = "postgresql.auto.conf"
SIGNAL_FILE = "recovery.signal"
#: What makes a server of a restored base something else than a recovery, or what its first server left.
FOREIGN_FILES = ("standby.signal", "postmaster.pid", "postmaster.opts")
_NO_SETTINGS = "# Made by fastvlm-ops: the original's settings lie outside of its data folder."
_MARK = "# Written by fastvlm-ops for a recovery; what stands above is the original's."

# %f is a name of WAL's, %p a path below the data folder: both the server's own.
RESTORE_COMMAND = f'cp "../{WAL}/%f" "%p"'

# Of postgresql.conf: where its server finds things, which may be the original's.
_LEADING_OUT = ("data_directory", "external_pid_file", "hba_file", "ident_file")
# In this order: only one target may be set at any time, so all are emptied before one is.
_TARGETS = ("recovery_target", "recovery_target_lsn", "recovery_target_name", "recovery_target_time")
_EMPTIED = (*_TARGETS, "recovery_target_xid")
# Else the copy would store WAL as the original's, follow its primary, or wait for its standbys.
_NEUTRALISED = {
    "archive_mode": "off",
    "archive_command": "",
    "primary_conninfo": "",
    "primary_slot_name": "",
    "synchronous_standby_names": "",
    "archive_cleanup_command": "",
    "recovery_end_command": "",
    "recovery_min_apply_delay": "0",
}
# Of later majors; an older server does not start with a setting that it does not know.
_NEUTRALISED_SINCE = {
    15: {"archive_library": ""},
    17: {"sync_replication_slots": "off", "synchronized_standby_slots": ""},
}


def quote_setting(value: str) -> str:
    """Return a value as a settings file of PostgreSQL holds it.

    :param value: without control characters
    """
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def recovery_settings(target: RecoveryTarget, *, timeline: int, major: int) -> dict[str, str]:
    """Return the settings of a recovery, in the order in which they have to stand.

    :param target: where to stop, and what then
    :param timeline: that is followed
    :param major: version of the server
    """
    settings = dict.fromkeys(_EMPTIED, "") | _NEUTRALISED
    for since, more in _NEUTRALISED_SINCE.items():
        if major >= since:
            settings |= more
    settings |= {
        "restore_command": RESTORE_COMMAND,
        "recovery_target_timeline": str(timeline),
        "recovery_target_inclusive": "on" if target.inclusive else "off",
        "recovery_target_action": target.action,
    }
    found = _target_setting(target)
    if found is not None:
        settings.pop(found[0])  # its place is the last one
        settings[found[0]] = found[1]
    return settings


def _target_setting(target: RecoveryTarget) -> tuple[str, str] | None:
    if target.time is not None:
        moment = target.time.astimezone(UTC)
        return "recovery_target_time", f"{moment:%Y-%m-%d %H:%M:%S.%f}+00"
    if target.lsn is not None:
        return "recovery_target_lsn", format_lsn(target.lsn)
    return None if target.name is None else ("recovery_target_name", target.name)


def write_recovery(data: Path, settings: dict[str, str]) -> list[str]:
    """Make a restored base one that recovers: settings appended, the original's signals removed.

    Can be repeated.

    :param data: the data folder, in which no server has run yet
    :param settings: of :func:`recovery_settings`
    :returns: what of the original no longer counts, for people
    """
    changes = [f"{name} removed" for name in FOREIGN_FILES if _removed(data / name)]
    changes += _make_self_contained(data)
    auto = data / SETTINGS_FILE
    before = _lines(auto)
    if _MARK in before:
        before = before[: before.index(_MARK)]
    overridden = {name for line in before if (name := _name_in(line)) in settings}
    ours = [f"{key} = {quote_setting(value)}" for key, value in settings.items()]
    _write(auto, [*before, _MARK, *ours])
    _write(data / SIGNAL_FILE, [])
    return [*changes, *(f"{name} overridden" for name in sorted(overridden))]


def _make_self_contained(data: Path) -> list[str]:
    """Take settings away that lead out of the folder; make the files that lay outside of it.

    A server that is told of one folder and finds the setting data_directory in it opens the other one.
    """
    main = data / "postgresql.conf"
    if not main.exists():
        _write(main, [_NO_SETTINGS])
        changes = ["postgresql.conf is not in the backup: the original keeps it elsewhere, so defaults count"]
    else:
        lines = _lines(main)
        leading = {name for line in lines if (name := _name_in(line)) in _LEADING_OUT}
        if leading:
            _write(main, [f"#{line}" if _name_in(line) in leading else line for line in lines])
        changes = [f"{name} no longer set in postgresql.conf" for name in sorted(leading)]
    if not (data / "pg_hba.conf").exists():
        _write(data / "pg_hba.conf", ["local all all peer"])
        changes.append("pg_hba.conf is not in the backup: only the server's own account can connect")
    return changes


def _name_in(line: str) -> str:
    """The name that a line of settings sets, in lower case; empty where it sets none."""
    name = line.replace("=", " ").split()[:1]
    return "" if not name or name[0].startswith("#") else name[0].lower()


def _lines(path: Path) -> list[str]:
    """Lines of a file, whose bytes need not be UTF-8; without its empty end."""
    if not path.is_file():
        return []
    return path.read_bytes().decode(errors="surrogateescape").rstrip("\n").split("\n")


def _write(path: Path, lines: list[str]) -> None:
    """Replace a file in one step: a killed attempt leaves what was there."""
    temporary = path.with_name(f".{path.name}.fastvlm-recovery")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _removed(path: Path) -> bool:
    if not path.is_file():
        return False
    path.unlink()
    return True
