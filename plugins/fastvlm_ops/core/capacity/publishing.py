"""One partition of forecasts for each as-of hour, and their rows in the operations database.

``part.parquet`` (by day) names the other tables of the partition, whose names hold their SHA-256, and is
written last: until then, readers see all of the old partition, and from then on all of the new one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete

from fastvlm_ops.core.capacity.objects import CapacityObjects, partition_folder
from fastvlm_ops.core.capacity.partitions import NUMBERS, decode, encode, notes_of
from fastvlm_ops.core.store.errors import ArtefactDamagedError
from fastvlm_ops.core.store.tables.capacity import forecasts
from fastvlm_ops.core.store.upsert import upsert

if TYPE_CHECKING:
    import pyarrow as pa

    from fastvlm_ops.core.capacity.calibration import Calibration
    from fastvlm_ops.core.store import Store

_OTHERS = ("series", "hourly", "daily_history")
_LEFT_OVER = timedelta(hours=1)
_COPIED = ("service", "metric", "status", "reason", "model", *NUMBERS)


@dataclass(frozen=True)
class Partition:
    """The forecasts of one as-of hour.

    :param objects: where they are
    :param as_of: the hour
    :param names: of the object of each kind of table
    :param horizon_days: that were forecast
    :param calibration_text: of its bounds, as JSON
    """

    objects: CapacityObjects
    as_of: datetime
    names: Mapping[str, str]
    horizon_days: int
    calibration_text: str

    @property
    def uri(self) -> str:
        """Of ``part.parquet``."""
        return self.objects.uri(self.names["daily"])

    @property
    def calibration(self) -> Calibration:
        """That its bounds were made with.

        :raises ArtefactDamagedError: it is none
        """
        from fastvlm_ops.core.capacity.calibration import Calibration

        try:
            return Calibration.from_json(self.calibration_text)
        except ValueError as error:
            raise ArtefactDamagedError(f"{self.uri}: {error}") from None

    def has(self, kind: str) -> bool:
        """Whether a table is there: ``hourly`` is removed when it is old.

        :param kind: as in :meth:`table`
        """
        return any(True for _ in self.objects.names(self.names[kind]))

    def table(self, kind: str, *, service: str | None = None, metric: str | None = None) -> pa.Table:
        """Return a table.

        :param kind: ``daily``, ``hourly`` (forecasts), ``daily_history``, or ``series`` (one row a series)
        :param service: only its rows
        :param metric: only its rows
        :raises ArtefactDamagedError: it is not there
        """
        data = self.objects.get(self.names[kind], remedy="clear the run of capacity_forecast for that hour")
        where = {"service": service, "metric": metric}
        return decode(kind, data, {key: value for key, value in where.items() if value is not None})


def find_partition(objects: CapacityObjects, as_of: datetime) -> Partition | None:
    """Return the partition of an as-of hour; None where there is none.

    :param objects: where it would be
    :param as_of: full hour, aware
    :raises ArtefactDamagedError: it is there, but is none of ours
    """
    name = _part_name(as_of)
    data = objects.find(name)
    if data is None:
        return None
    try:
        notes = notes_of(data)
        folder = partition_folder(as_of.astimezone(UTC))
        names = {"daily": name, **{kind: folder + notes[kind] for kind in _OTHERS}}
        days, calibration = int(notes["horizon_days"]), notes["calibration"]
        return Partition(objects, as_of.astimezone(UTC), names, days, calibration)
    except (KeyError, ValueError) as error:
        raise ArtefactDamagedError(f"{objects.uri(name)} is no partition of forecasts: {error}") from None


def publish_forecasts(
    objects: CapacityObjects,
    store: Store,
    *,
    run_key: str,
    shards: Sequence[int],
    as_of: datetime,
    horizon_days: int,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """Join what the shards have laid down, in place of an earlier partition of this hour.

    The partition comes before its rows: a row never points to nothing.

    :param objects: where the parts are, and the partition goes
    :param store: the operations database
    :param run_key: of the run
    :param shards: their numbers
    :param as_of: full hour, in UTC
    :param horizon_days: that were forecast
    :param calibration: that the bounds were made with; None for none
    :returns: small JSON: where it is, its SHA-256, and how many series there are of each status
    :raises ArtefactDamagedError: what a shard should have laid down is not there
    """
    # Not above: who only reads a partition does not wait for what forecasts.
    from fastvlm_ops.core.capacity.calibration import Calibration
    from fastvlm_ops.core.capacity.shards import load_parts

    folder = partition_folder(as_of)
    notes = {"horizon_days": str(horizon_days), "calibration": (calibration or Calibration()).to_json()}
    series = load_parts(objects, run_key, shards, "series")
    for kind in _OTHERS:
        table = series if kind == "series" else load_parts(objects, run_key, shards, kind)
        data = encode(kind, table)
        notes[kind] = f"{kind}-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
        objects.put(folder + notes[kind], data)
    data = encode("daily", load_parts(objects, run_key, shards, "daily"), notes)
    uri = objects.put(_part_name(as_of), data)
    rows = forecast_rows(series, as_of=as_of, horizon_days=horizon_days, run_key=run_key, uri=uri)
    with store.write() as connection:
        replace_forecasts(connection, as_of, rows)
    _tidy(objects, folder, keep={"part.parquet", *(notes[kind] for kind in _OTHERS)})
    return {
        "uri": uri,
        "as_of": as_of.isoformat(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "horizon_days": horizon_days,
        "series": len(rows),
        "services": len({row["service"] for row in rows}),
        "statuses": dict(sorted(Counter(row["status"] for row in rows).items())),
    }


def forecast_rows(
    series: pa.Table, *, as_of: datetime, horizon_days: int, run_key: str, uri: str
) -> list[dict[str, Any]]:
    """Return the rows of ``capacity_forecast`` for a table of series, in order.

    :param series: of the kind ``series``
    :param as_of: full hour, in UTC
    :param horizon_days: that were forecast
    :param run_key: of the run
    :param uri: of the partition
    """
    rows = []
    for one in series.to_pylist():
        row = {name: one[name] for name in _COPIED}
        day = one["exhaustion_date"]
        row["exhaustion_date"] = None if day is None else date.fromisoformat(day)
        row |= {"as_of": as_of, "horizon_days": horizon_days, "run_key": run_key, "artefact_uri": uri}
        rows.append(row)
    return sorted(rows, key=lambda row: (row["service"], row["metric"]))


def replace_forecasts(connection: Connection, as_of: datetime, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put rows in place of all that an as-of hour has.

    :param connection: of a writing transaction
    :param as_of: full hour, in UTC
    :param rows: of ``capacity_forecast``
    """
    # A service may have gone since, as one whose samples were deleted.
    connection.execute(delete(forecasts).where(forecasts.c.as_of == as_of))
    upsert(connection, forecasts, rows, key=("as_of", "service", "metric"))


def remove_parts(objects: CapacityObjects, folder: str) -> int:
    """Remove a run's working objects, and return how many there were.

    :param objects: where they are
    :param folder: of the run
    """
    names = [name for name, _ in objects.names(folder)]
    if names:
        objects.remove(names)
    return len(names)


def _part_name(as_of: datetime) -> str:
    return f"{partition_folder(as_of.astimezone(UTC))}part.parquet"


def _tidy(objects: CapacityObjects, folder: str, keep: set[str]) -> None:
    """Remove what no part names any more; what is young may belong to one that is about to be written."""
    before = datetime.now(UTC) - _LEFT_OVER
    old = [
        name
        for name, changed in objects.names(folder)
        if name.removeprefix(folder) not in keep and changed < before
    ]
    if old:
        objects.remove(old)
