"""Where a recovery is to stop: a moment, a place in the log, a restore point, or the end of what is stored.

Checked at the door, since a part of it ends up in a server's settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self, cast

from fastvlm_ops.core.backup.errors import RecoveryError
from fastvlm_ops.core.backup.postgresql.lsn import format_lsn, parse_lsn

LATEST = "latest"
Kind = Literal["time", "lsn", "name", "latest"]
Action = Literal["promote", "pause"]
ACTIONS = ("promote", "pause")
_NAME_BYTES = 63  # PostgreSQL's own limit
_TIMELINES = 1 << 32


@dataclass(frozen=True)
class RecoveryTarget:
    """Where to stop; without time, LSN and name at the end of the stored WAL.

    :param time: aware; everything is there that was committed by then
    :param lsn: place in the write-ahead log
    :param name: of a restore point, as ``pg_create_restore_point`` was given it
    :param inclusive: whether what is exactly at the time or LSN belongs to it
    :param timeline: number of the timeline to follow; None for the newest one
    :param action: what the server does when it is there: promote ends the recovery, pause waits, read-only,
        for a person to look
    :raises RecoveryError: it contradicts itself, or could not be reached by any server
    """

    time: datetime | None = None
    lsn: int | None = None
    name: str | None = None
    inclusive: bool = True
    timeline: int | None = None
    action: Action = "promote"

    def __post_init__(self) -> None:
        given = [key for key in ("time", "lsn", "name") if getattr(self, key) is not None]
        if len(given) > 1:
            raise RecoveryError(f"a recovery has one target, but {' and '.join(given)} are given; leave one")
        if not self.inclusive and (self.name is not None or not given):
            raise RecoveryError(
                "only a time or an LSN can be excluded; leave Inclusive on for a restore point and the latest"
            )
        if self.time is not None and self.time.utcoffset() is None:
            raise RecoveryError(
                f"the time {self.time.isoformat()} has no zone; write it as in 2026-01-04T12:00:00+00:00"
            )
        if self.lsn is not None and not 0 < self.lsn < 1 << 64:
            raise RecoveryError(f"the LSN {self.lsn} cannot be; expected one as in 16/B374D848")
        if self.timeline is not None and not 0 < self.timeline < _TIMELINES:
            raise RecoveryError(f"timeline {self.timeline} cannot be; expected latest, or a number from 1 on")
        if self.action not in ACTIONS or (self.action == "pause" and not given):
            raise RecoveryError(
                f"the action {self.action!r} cannot be; expected promote, or pause with a time, LSN or name:"
                " at the end of the WAL a server does not pause"
            )
        if self.name is not None:
            _check_name(self.name)

    @classmethod
    def parse(
        cls,
        *,
        time: str | None = None,
        lsn: str | None = None,
        name: str | None = None,
        inclusive: bool = True,
        timeline: str | int | None = LATEST,
        action: str = "promote",
    ) -> Self:
        """Read a target as a form gives it; empty text is nothing.

        :param time: in ISO 8601, with its zone
        :param lsn: as PostgreSQL shows it
        :param timeline: ``latest``, or a number
        :raises RecoveryError: one of them cannot be read, or they contradict each other
        """
        return cls(
            _parse_time(time) if time else None,
            _parse_lsn(lsn) if lsn else None,
            name or None,
            inclusive,
            _parse_timeline(timeline),
            cast("Action", action),  # checked with the rest
        )

    @property
    def kind(self) -> Kind:
        """What it is a target by."""
        if self.time is not None:
            return "time"
        if self.lsn is not None:
            return "lsn"
        return "latest" if self.name is None else "name"

    def as_dict(self) -> dict[str, Any]:
        """Return it as small JSON, which :meth:`from_dict` reads."""
        return {
            "time": None if self.time is None else self.time.astimezone(UTC).isoformat(),
            "lsn": None if self.lsn is None else format_lsn(self.lsn),
            "name": self.name,
            "inclusive": self.inclusive,
            "timeline": self.timeline,
            "action": self.action,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """:raises RecoveryError: it is no target"""
        return cls.parse(**content)

    def __str__(self) -> str:
        """For people, as in ``the time 2026-01-04T12:00:00+00:00``."""
        if self.time is not None:
            where = f"the time {self.time.isoformat()}"
        elif self.lsn is not None:
            where = f"LSN {format_lsn(self.lsn)}"
        elif self.name is not None:
            where = f"the restore point {self.name!r}"
        else:
            where = "the end of the stored WAL"
        return where if self.inclusive else f"{where}, exclusive"


def _parse_time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise RecoveryError(
            f"{text!r} is no time; write it in ISO 8601 with its zone, as in 2026-01-04T12:00:00+00:00"
        ) from None


def _parse_lsn(text: str) -> int:
    try:
        return parse_lsn(text)
    except ValueError as error:
        raise RecoveryError(str(error)) from None


def _parse_timeline(timeline: str | int | None) -> int | None:
    if timeline is None or timeline == LATEST or timeline == "":
        return None
    try:
        return int(timeline)
    except ValueError:
        raise RecoveryError(
            f"{timeline!r} is no timeline; expected latest, or a number as pg_controldata shows it"
        ) from None


def _check_name(name: str) -> None:
    """:raises RecoveryError: no restore point can have this name, or the settings cannot hold it."""
    if not name.isprintable() or not name:
        raise RecoveryError(
            f"the restore point {name!r} has characters that cannot be printed, or none; expected its name"
        )
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise RecoveryError(f"the restore point {name!r} is no text") from None
    if length > _NAME_BYTES:
        raise RecoveryError(
            f"the restore point {name!r} is {length} bytes long; PostgreSQL has none above {_NAME_BYTES}"
        )
