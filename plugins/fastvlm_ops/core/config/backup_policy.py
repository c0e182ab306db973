"""How long backups are kept, and how they are stored: sections of ``include/components.yaml``."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fastvlm_ops.core.config.reading import Definition

_GIB = 1 << 30

Keep = Annotated[int, Field(ge=0, le=10_000)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class Retention(Definition):
    """Which backups are kept: each key by itself, so that a backup stays when any key keeps it."""

    keep_last: Annotated[Keep, Field(description="how many of the newest backups, 0 to 10000")] = 7
    keep_daily: Annotated[Keep, Field(description="of how many days the newest one, 0 to 10000")] = 14
    keep_weekly: Annotated[Keep, Field(description="of how many weeks the newest one, 0 to 10000")] = 8
    keep_monthly: Annotated[Keep, Field(description="of how many months the newest one, 0 to 10000")] = 12
    keep_yearly: Annotated[Keep, Field(description="of how many years the newest one, 0 to 10000")] = 3

    @model_validator(mode="after")
    def _keeps_something(self) -> Self:
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise ValueError("every key is 0, which would keep no backup at all; expected one above 0")
        return self


class Pruning(Definition):
    """How what ``retention`` does not keep is removed, and what guards against removing too much."""

    enabled: Annotated[
        bool,
        Field(
            description="true: the scheduled runs of backup_maintenance remove what retention does not keep,"
            " and ask nobody; false: they only say what they would remove"
        ),
    ] = False
    max_share: Annotated[
        Share,
        Field(
            description="above 0 to 1: a plan that would remove more than this share of the backups, or of"
            " the bytes, is refused"
        ),
    ] = 0.5
    keep_unpublished_days: Annotated[
        float,
        Field(
            ge=1,
            le=3660,
            allow_inf_nan=False,
            description="how long what a run stored and never published is kept, in days, 1 to 3660",
        ),
    ] = 7
    keep_unreferenced_days: Annotated[
        float,
        Field(
            ge=0,
            le=3660,
            allow_inf_nan=False,
            description="how old a pack that no backup needs must be before it is removed, in days, 0 to"
            " 3660; a run that was stopped goes on with what is still there",
        ),
    ] = 3
    max_waste: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            allow_inf_nan=False,
            description="0 to 1: a pack of which more than this share is no longer needed is copied without"
            " that, and then removed",
        ),
    ] = 0.5
    copy_limit_gib: Annotated[
        float,
        Field(
            ge=0,
            le=1_000_000,
            allow_inf_nan=False,
            description="how much a run copies at most, in GiB, 0 to 1000000; the next run goes on",
        ),
    ] = 20

    @property
    def keep_unpublished(self) -> timedelta:
        """How long what was never published is kept."""
        return timedelta(days=self.keep_unpublished_days)

    @property
    def keep_unreferenced(self) -> timedelta:
        """How old a pack that nothing needs must be."""
        return timedelta(days=self.keep_unreferenced_days)

    @property
    def copy_limit_bytes(self) -> int:
        """How much a run copies at most."""
        return int(self.copy_limit_gib * _GIB)


class ObjectLock(Definition):
    """For how long S3 itself refuses to remove or replace what a backup has stored."""

    mode: Annotated[
        Literal["governance", "compliance"],
        Field(
            description="governance: who may bypass it can remove objects early; compliance: nobody can, and"
            " it cannot be shortened"
        ),
    ]
    days: Annotated[
        int,
        Field(
            ge=1,
            le=36_500,
            description="how long each object is locked, in days from when it was stored or its lock was"
            " renewed; at least 14, since maintenance renews once a week what has less than half left",
        ),
    ]
