"""Hours of old forecasts go once they are scored, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastvlm_ops.core.capacity import retention
from fastvlm_ops.core.capacity.accuracy import forecasts_due
from fastvlm_ops.core.capacity.objects import CapacityObjects, as_of_in, partition_folder, run_folder
from fastvlm_ops.core.capacity.retention import remove_old
from fastvlm_ops.core.config import Capacity, load_capacity
from fastvlm_ops.core.store import Store, open_store
from fastvlm_ops.core.store.tables.capacity import forecasts, scores
from fastvlm_ops.core.store.upsert import upsert
from tests.conftest import ROOT

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.integration

AT = datetime(2026, 6, 30, 1, tzinfo=UTC)
KEPT = ("part.parquet", "series-1.parquet", "daily_history-1.parquet", "report.json")


@pytest.fixture
def definitions() -> Capacity:
    return load_capacity(ROOT / "include")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'operations.db'}", migrate_first=True) as opened:
        yield opened


@pytest.fixture
def objects(s3_client: S3Client, bucket: str) -> CapacityObjects:
    return CapacityObjects(s3_client, bucket=bucket)


class Kept:
    """Forecasts with all their objects and rows."""

    def __init__(self, objects: CapacityObjects, store: Store) -> None:
        self.objects = objects
        self.store = store

    def add(self, days: int, *, scored: tuple[int, ...], status: str = "ok", horizon: int = 30) -> datetime:
        as_of = AT - timedelta(days=days)
        row = {"as_of": as_of, "service": "api", "metric": "cpu", "horizon_days": horizon, "status": status}
        row |= {"reason": "", "model": "", "run_key": "r", "artefact_uri": "u"}
        done = [
            {"as_of": as_of, "service": "api", "metric": "cpu", "horizon_days": one, "scored_at": AT}
            | {"hours_scored": 1}
            for one in scored
        ]
        with self.store.write() as connection:
            upsert(connection, forecasts, [row], key=("as_of", "service", "metric"))
            if done:
                upsert(connection, scores, done, key=("as_of", "service", "metric", "horizon_days"))
        self.put(as_of)
        return as_of

    def put(self, as_of: datetime) -> None:
        for name in (*KEPT, "hourly-1.parquet"):
            self.objects.put(partition_folder(as_of) + name, b"x")

    def with_hours(self) -> list[datetime | None]:
        return [as_of_in(name) for name in self.names() if "/hourly-" in name]

    def names(self) -> list[str]:
        return [name for name, _ in self.objects.names("")]


@pytest.fixture
def kept(objects: CapacityObjects, store: Store) -> Kept:
    return Kept(objects, store)


def test_only_hours_that_are_old_and_scored_go(kept: Kept, definitions: Capacity) -> None:
    gone = [kept.add(200, scored=(7, 30)), kept.add(180, scored=(7,), horizon=14)]
    gone.append(kept.add(170, scored=(), status="no_data"))
    waiting = kept.add(150, scored=(7,))
    exact = kept.add(120, scored=(7, 30))
    young = kept.add(60, scored=(7, 30))
    unknown = AT - timedelta(days=300)
    kept.put(unknown)
    before = kept.names()
    lines: list[str] = []
    result = remove_old(kept.objects, kept.store, definitions, at=AT, progress=lines.append)
    assert result == {"removed": 3, "left": False}
    assert kept.with_hours() == [unknown, waiting, exact, young]
    assert len(before) - len(kept.names()) == 3
    assert all(any(f"{as_of:%Y-%m-%d %H:%M}" in line for line in lines) for as_of in gone)
    again = remove_old(kept.objects, kept.store, definitions, at=AT)
    assert again == {"removed": 0, "left": False}


def test_so_many_in_one_go_the_oldest_first(kept: Kept, definitions: Capacity) -> None:
    old = [kept.add(days, scored=(7, 30)) for days in (203, 202, 201)]
    result = remove_old(kept.objects, kept.store, definitions, at=AT, at_most=2)
    assert result == {"removed": 2, "left": True}
    assert kept.with_hours() == old[2:]
    result = remove_old(kept.objects, kept.store, definitions, at=AT, at_most=2)
    assert result == {"removed": 1, "left": False}


def test_working_objects_go_when_they_are_as_old(
    kept: Kept, definitions: Capacity, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{run_folder('capacity_forecast/failed')}history-0000.parquet"
    kept.objects.put(name, b"x")
    assert remove_old(kept.objects, kept.store, definitions, at=AT)["removed"] == 0

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=121)

    monkeypatch.setattr(retention, "datetime", Later)
    assert remove_old(kept.objects, kept.store, definitions, at=AT)["removed"] == 1
    assert kept.names() == []


def test_what_has_no_hours_any_more_is_not_scored_again(kept: Kept, definitions: Capacity) -> None:
    kept.add(200, scored=(7, 30))
    waiting = kept.add(150, scored=(7,))
    young = kept.add(60, scored=(7, 30))
    due = forecasts_due(kept.store, definitions, at=AT, again=True)
    assert [(one.as_of, one.horizon_days) for one in due] == [(waiting, 30), (young, 7), (young, 30)]
