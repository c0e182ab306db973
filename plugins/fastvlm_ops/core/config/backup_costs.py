"""What storing backups costs, and what lowers that: sections of ``include/components.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from fastvlm_ops.core.config.reading import Definition

#: Classes from which an object is read at once.
INSTANT_CLASSES = ("STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR")
_LEAST_DAYS = {"STANDARD_IA": 30, "ONEZONE_IA": 30}  # S3's own rule
_WAIT = {"GLACIER", "DEEP_ARCHIVE"}
_ORDER = ("STANDARD_IA", "INTELLIGENT_TIERING", "ONEZONE_IA", "GLACIER_IR")  # S3 goes only forward

Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Transition(Definition):
    """From which age on packs have a class."""

    after_days: Annotated[int, Field(ge=0, le=3650, description="age of a pack in days, 0 to 3650")]
    storage_class: Annotated[
        str,
        Field(alias="class", description=f"one that is read at once: {', '.join(INSTANT_CLASSES)}"),
    ]

    @field_validator("storage_class")
    @classmethod
    def _is_read_at_once(cls, name: str) -> str:
        if name in _WAIT:
            raise ValueError(
                f"{name} has to be thawed first, so that a restore would wait for minutes to days, and every"
                f" verification with it; expected one of {', '.join(INSTANT_CLASSES)}"
            )
        if name not in INSTANT_CLASSES:
            raise ValueError(
                f"{name!r} is not a class to move to; expected one of {', '.join(INSTANT_CLASSES)}"
            )
        return name

    @model_validator(mode="after")
    def _is_old_enough(self) -> Self:
        least = _LEAST_DAYS.get(self.storage_class, 0)
        if self.after_days < least:
            raise ValueError(
                f"after_days is {self.after_days}, but S3 moves nothing to {self.storage_class} before"
                f" {least} days"
            )
        return self


class StorageClasses(Definition):
    """Classes that packs move to as they age. All else is small, and read by each run."""

    packs: Annotated[
        tuple[Transition, ...],
        Field(
            strict=False,
            min_length=1,
            max_length=len(_ORDER),
            description="at least one step, with the keys after_days and class, in the order of age",
        ),
    ]

    @field_validator("packs")
    @classmethod
    def _goes_forward(cls, steps: tuple[Transition, ...]) -> tuple[Transition, ...]:
        for before, after in pairwise(steps):
            if after.after_days <= before.after_days:
                raise ValueError(
                    f"{after.storage_class} after {after.after_days} days does not follow"
                    f" {before.storage_class} after {before.after_days}; expected growing ages"
                )
            if _ORDER.index(after.storage_class) <= _ORDER.index(before.storage_class):
                raise ValueError(
                    f"S3 moves nothing from {before.storage_class} to {after.storage_class}; expected the"
                    f" order {', '.join(_ORDER)}"
                )
        return steps


class RequestPrices(Definition):
    """Of a thousand requests of each verb; what is not said is unknown."""

    put: Annotated[Price | None, Field(description="price of 1,000 PUT")] = None
    get: Annotated[Price | None, Field(description="price of 1,000 GET")] = None
    head: Annotated[Price | None, Field(description="price of 1,000 HEAD")] = None
    list: Annotated[Price | None, Field(description="price of 1,000 LIST")] = None
    delete: Annotated[Price | None, Field(description="price of 1,000 DELETE")] = None
    copy_: Annotated[Price | None, Field(alias="copy", description="price of 1,000 COPY")] = None

    def by_verb(self) -> dict[str, float | None]:
        """Under the names that counts have."""
        return {
            "puts": self.put,
            "gets": self.get,
            "heads": self.head,
            "lists": self.list,
            "deletes": self.delete,
            "copies": self.copy_,
        }


class Prices(Definition):
    """What the provider charges. There is no default: a price that nobody has entered is unknown."""

    currency: Annotated[str, Field(min_length=1, max_length=10, description="as in USD")]
    as_of: Annotated[
        date, Field(strict=False, description="the day the prices were looked up, as in 2026-11-30")
    ]
    gb_month: Annotated[
        Mapping[Literal["STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"], Price],
        Field(description="price of a GB (2^30 bytes) for a month by storage class, as in STANDARD: 0.023"),
    ]
    requests_per_1000: Annotated[
        RequestPrices, Field(description="price of 1,000 requests: keys put, get, head, list, delete, copy")
    ] = RequestPrices()
    out_gb: Annotated[
        Price | None, Field(description="price of a GB (2^30 bytes) that is read by a worker elsewhere")
    ] = None
