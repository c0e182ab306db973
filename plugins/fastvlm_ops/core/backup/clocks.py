"""This machine's clock beside S3's. Nothing is decided by either; people are told when they differ."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_TOLERATED = timedelta(minutes=5)


def say_ahead(there: datetime) -> str:
    """How far this machine's clock is from S3's, and what to do about it.

    :param there: the time by S3's clock
    """
    ahead = datetime.now(UTC) - there
    hours, which = abs(ahead) / timedelta(hours=1), "ahead of" if ahead > timedelta(0) else "behind"
    return f"this machine's clock is {hours:.1f} hours {which} that of S3; set it (chrony)"


def clock_warnings(there: datetime) -> list[str]:
    """What to warn of: nothing, where the clocks agree within five minutes."""
    return [say_ahead(there)] if abs(datetime.now(UTC) - there) > _TOLERATED else []
