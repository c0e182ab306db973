"""What the backups cost in a month: bytes by class, requests, and prices. What is unknown stays unknown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from fastvlm_ops.core.backup.storage import S3Storage
from fastvlm_ops.core.backup.usage import Usage
from fastvlm_ops.core.backup.usage_rows import first_recorded, usage_since
from fastvlm_ops.core.config import Prices
from fastvlm_ops.core.store import Store
from fastvlm_ops.core.store.clock import now
from fastvlm_ops.core.store.events import append_event
from fastvlm_ops.core.store.tables.shared import events

GB = 1 << 30
MONTH_DAYS = 30
KINDS = ("packs", "index", "snapshots", "log", "wal", "keys", "other")
UNKNOWN_CLASS = "unknown"
_AGES = (0, 30, 60, 90, 180, 365)
_STREAM = "backup_stored"
_LEAST_DAYS = 1.0  # of recorded requests, before a month is told from them
_VERBS = {
    "puts": "PUT",
    "gets": "GET",
    "heads": "HEAD",
    "lists": "LIST",
    "deletes": "DELETE",
    "copies": "COPY",
}


@dataclass(frozen=True)
class StoredBytes:
    """What lay in the bucket at a moment, in bytes.

    :param by_kind: by what it is, as in ``packs``
    :param by_class: by storage class, then by age: the days that it has at least, as in ``"30"``
    """

    at: datetime
    objects: int
    by_kind: Mapping[str, int] = field(default_factory=dict)
    by_class: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """All of it."""
        return sum(self.by_kind.values())

    def of_class(self, name: str) -> int:
        """Bytes of a storage class, of any age."""
        return sum(self.by_class.get(name, {}).values())


def measure_storage(storage: S3Storage) -> StoredBytes:
    """List everything below the prefix: a request a thousand objects. Older versions are not seen.

    :raises StorageError: or a subclass
    """
    objects = 0
    by_kind = dict.fromkeys(KINDS, 0)
    by_class: dict[str, dict[str, int]] = {}
    for info in storage.list(""):
        objects += 1
        kind = info.name.partition("/")[0]
        by_kind[kind if kind in KINDS else "other"] += info.size_bytes
        ages = by_class.setdefault(info.storage_class or UNKNOWN_CLASS, {})
        age = _age_label(storage.now() - info.last_modified)
        ages[age] = ages.get(age, 0) + info.size_bytes
    return StoredBytes(storage.now(), objects, {k: v for k, v in by_kind.items() if v}, by_class)


def _age_label(age: timedelta) -> str:
    return str(max(least for least in _AGES if least == 0 or age >= timedelta(days=least)))


def record_stored(store: Store, repository_id: str, stored: StoredBytes) -> bool:
    """Record what was measured, once a day.

    :returns: whether it is new
    """
    payload = {"objects": stored.objects, "by_kind": stored.by_kind, "by_class": stored.by_class}
    with store.write() as connection:
        return append_event(
            connection,
            stream=_STREAM,
            dedup_key=_key(repository_id, stored.at),
            subject=repository_id,
            kind="measured",
            at=stored.at,
            payload=payload,
        )


def is_measured(store: Store, repository_id: str, moment: datetime) -> bool:
    """Whether that day has been measured."""
    key = _key(repository_id, moment)
    query = select(events.c.id).where(events.c.stream == _STREAM, events.c.dedup_key == key)
    with store.read() as connection:
        return connection.execute(query).first() is not None


def _key(repository_id: str, moment: datetime) -> str:
    return f"{repository_id}/{moment.astimezone(UTC):%Y-%m-%d}"


def stored_history(store: Store, repository_id: str, limit: int = 400) -> list[StoredBytes]:
    """What was measured, oldest first."""
    columns = events.c
    query = (
        select(events)
        .where(columns.stream == _STREAM, columns.subject == repository_id)
        .order_by(columns.at.desc())
        .limit(limit)
    )
    with store.read() as connection:
        rows = connection.execute(query).all()
    return [StoredBytes(at=row.at, **row.payload) for row in reversed(rows)]


# -- the estimate --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One line of the estimate.

    :param amount: None: unknown
    :param unit: of the amount
    :param price: of ``per`` units; None: unknown
    :param basis: where the amount is from
    """

    what: str
    amount: float | None
    unit: str
    price: float | None
    basis: str
    per: int = 1

    @property
    def cost(self) -> float | None:
        """What it comes to; None where the amount or the price is unknown. Nothing costs nothing."""
        if self.amount == 0:
            return 0.0
        return None if self.amount is None or self.price is None else self.amount / self.per * self.price


@dataclass(frozen=True)
class Estimate:
    """What a month costs, by what is known.

    :param growth_bytes: of the last 30 days; None: not measured for so long
    """

    currency: str | None
    prices_as_of: Any
    lines: Sequence[Line]
    growth_bytes: int | None

    @property
    def known(self) -> float:
        """The sum of all lines that are known."""
        return sum(line.cost or 0.0 for line in self.lines)

    @property
    def total(self) -> float | None:
        """The sum; None while one line of it is unknown."""
        is_known = self.lines and all(line.cost is not None for line in self.lines)
        return self.known if is_known else None


@dataclass(frozen=True)
class Recent:
    """What was asked for lately.

    :param days: over which it was recorded, 30 at most
    """

    usage: Usage
    days: float


def recent_usage(store: Store, moment: datetime | None = None) -> Recent | None:
    """Requests of the last 30 days; None when nothing is recorded."""
    with store.read() as connection:
        at = moment or now(connection)
    used, first = usage_since(store, at - timedelta(days=MONTH_DAYS)), first_recorded(store)
    if used is None or first is None:
        return None
    return Recent(used, min(float(MONTH_DAYS), (at - first).total_seconds() / 86400))


def estimate(history: Sequence[StoredBytes], recent: Recent | None, prices: Prices | None) -> Estimate:
    """Estimate a month.

    :param history: what was measured, oldest first
    """
    return Estimate(
        currency=prices.currency if prices else None,
        prices_as_of=prices.as_of if prices else None,
        lines=[*_storage_lines(history, prices), *_request_lines(recent, prices)],
        growth_bytes=_growth(history),
    )


def _storage_lines(history: Sequence[StoredBytes], prices: Prices | None) -> Iterator[Line]:
    if not history:
        yield Line("Stored", None, "GB", None, "never measured")
        return
    stored = history[-1]
    basis = f"listed on {stored.at:%Y-%m-%d}"
    for name in sorted(stored.by_class):
        price = None if prices is None else prices.gb_month.get(name)  # type: ignore[call-overload]
        yield Line(f"Stored, {name}", stored.of_class(name) / GB, "GB", price, basis)


def _request_lines(recent: Recent | None, prices: Prices | None) -> Iterator[Line]:
    of_verb = prices.requests_per_1000.by_verb() if prices else {}
    is_enough = recent is not None and recent.days >= _LEAST_DAYS
    if recent is None:
        basis = "nothing is recorded"
    elif is_enough:
        basis = f"recorded over {recent.days:.0f} days, for {MONTH_DAYS}"
    else:
        basis = "recorded for less than a day"
    counts = recent.usage.as_dict() if recent is not None and is_enough else {}
    factor = MONTH_DAYS / recent.days if recent is not None and is_enough else 0.0
    for name, verb in _VERBS.items():
        amount = counts[name] * factor if counts else None
        yield Line(f"Requests, {verb}", amount, "", of_verb.get(name), basis, per=1000)
    out = counts["received_bytes"] * factor / GB if counts else None
    yield Line("Read by workers", out, "GB", prices.out_gb if prices else None, basis)


def _growth(history: Sequence[StoredBytes]) -> int | None:
    """Of the last 30 days, told from at least 25."""
    if not history:
        return None
    last = history[-1]
    earlier = [stored for stored in history if last.at - stored.at >= timedelta(days=MONTH_DAYS - 5)]
    if not earlier:
        return None
    wanted = last.at - timedelta(days=MONTH_DAYS)
    before = min(earlier, key=lambda stored: abs(stored.at - wanted))
    months = (last.at - before.at) / timedelta(days=MONTH_DAYS)
    return round((last.size_bytes - before.size_bytes) / months)
