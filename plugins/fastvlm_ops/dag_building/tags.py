"""The tags that DAGs may have; a test refuses others."""

from __future__ import annotations

from enum import StrEnum


class Tag(StrEnum):
    """By what people look for a DAG in the list."""

    BACKUP = "backup"
    RESTORE = "restore"
    MAINTENANCE = "maintenance"
    CAPACITY = "capacity"
    COREML = "coreml"
    DISASTER_RECOVERY = "disaster-recovery"
    SCHEDULED = "scheduled"
    #: Something that happens outside Airflow starts it.
    EVENT = "event"
    MANUAL = "manual"
    #: It can destroy or overwrite something, and has a dry run for that.
    GUARDED = "guarded"


def tags(*chosen: Tag) -> list[str]:
    """Return tags as Airflow wants them.

    :param chosen: members of the enum
    """
    # Plain strings: Airflow's serialiser does not know the enum.
    return sorted(tag.value for tag in chosen)
