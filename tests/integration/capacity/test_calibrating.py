"""Calibrations: learnt from matured forecasts, and never taken from the as-of hour or later."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from fastvlm_ops.core.capacity.calibrating import learn_calibration, load_calibration, newest_calibration
from fastvlm_ops.core.capacity.collecting import read_history, store_history
from fastvlm_ops.core.capacity.objects import CapacityObjects
from fastvlm_ops.core.capacity.publishing import find_partition, publish_forecasts
from fastvlm_ops.core.capacity.shards import forecast_shard
from fastvlm_ops.core.config import Capacity, load_capacity
from fastvlm_ops.core.store import Store, open_store
from fastvlm_ops.core.store.errors import ArtefactDamagedError
from tests.conftest import ROOT

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.integration

START = datetime(2026, 2, 1, tzinfo=UTC)
FORECASTS, HORIZON_DAYS = 4, 2
RESTLESS_FROM = START


class Restless:
    """Quiet before the first forecast, and noisy from then on: its bounds turn out too narrow."""

    def hourly(self, query: str, start: datetime, end: datetime, *, label: str = "service") -> pd.DataFrame:
        index = pd.date_range(start, end, freq="h", inclusive="left")
        frame = pd.DataFrame(index=index)
        hours = np.asarray((index - pd.Timestamp(START)) // pd.Timedelta(hours=1))
        for number in range(6):
            noise = np.random.default_rng([number, len(query)]).normal(0, 1, 24 * 60)[hours + 24 * 40]
            size = np.where(index < pd.Timestamp(RESTLESS_FROM), 0.5, 4)
            frame[f"service-{number}"] = 50 + 10 * np.sin(hours * np.pi / 12) + size * noise
        return frame


@pytest.fixture
def definitions() -> Capacity:
    shipped = load_capacity(ROOT / "include")
    accuracy = shipped.accuracy.model_copy(update={"horizons_days": (HORIZON_DAYS,), "fewest": FORECASTS})
    return shipped.model_copy(update={"history_days": 28, "accuracy": accuracy})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'operations.db'}", migrate_first=True) as opened:
        yield opened


@pytest.fixture
def objects(s3_client: S3Client, bucket: str) -> CapacityObjects:
    return CapacityObjects(s3_client, bucket=bucket)


def forecast(objects: CapacityObjects, store: Store, definitions: Capacity, as_of: datetime) -> None:
    """All that a run of capacity_forecast does until its forecasts are published."""
    name = newest_calibration(objects, as_of)
    shards = store_history(objects, read_history(Restless(), definitions, as_of), "dag/run", definitions)[
        "shards"
    ]
    calibration = load_calibration(objects, name)
    for shard in shards:
        forecast_shard(
            objects,
            definitions,
            run_key="dag/run",
            shard=shard,
            as_of=as_of,
            horizon_days=HORIZON_DAYS,
            calibration=calibration,
        )
    publish_forecasts(
        objects,
        store,
        run_key="dag/run",
        shards=shards,
        as_of=as_of,
        horizon_days=HORIZON_DAYS,
        calibration=calibration,
    )


def test_bounds_that_were_too_narrow_become_wider(
    objects: CapacityObjects, store: Store, definitions: Capacity
) -> None:
    hours = [START + timedelta(hours=12 * number) for number in range(FORECASTS)]
    for hour in hours:
        forecast(objects, store, definitions, hour)
    early = hours[-1] + timedelta(days=HORIZON_DAYS) - timedelta(hours=1)
    assert learn_calibration(objects, store, Restless(), definitions, at=early) is None
    at = early + timedelta(hours=1)
    learnt = learn_calibration(objects, store, Restless(), definitions, at=at)
    assert learnt is not None
    assert max(learnt.factors.values()) > 1.05
    assert newest_calibration(objects, at) is None  # what was learnt at an hour is for later ones
    name = newest_calibration(objects, at + timedelta(hours=1))
    assert load_calibration(objects, name) == learnt

    before = find_partition(objects, hours[-1])
    assert before is not None
    assert not before.calibration.factors
    kept = objects.get(before.names["hourly"], remedy="")
    forecast(objects, store, definitions, hours[-1])
    again = find_partition(objects, hours[-1])
    assert again is not None
    assert objects.get(again.names["hourly"], remedy="") == kept

    later = at + timedelta(hours=2)
    forecast(objects, store, definitions, later)
    calibrated = find_partition(objects, later)
    assert calibrated is not None
    assert calibrated.calibration == learnt


def test_what_is_no_calibration_is_refused(objects: CapacityObjects) -> None:
    assert load_calibration(objects, None) is None
    objects.put("calibrations/at=2026-01-01T00Z.json", b"{}", content_type="application/json")
    name = newest_calibration(objects, START)
    with pytest.raises(ArtefactDamagedError, match=r"at=2026-01-01T00Z\.json: .*Remove it"):
        load_calibration(objects, name)


def test_forecasts_whose_hours_were_removed_are_left_out(
    objects: CapacityObjects, store: Store, definitions: Capacity
) -> None:
    last = START + timedelta(days=FORECASTS)
    for day in range(FORECASTS + 1):
        forecast(objects, store, definitions, START + timedelta(days=day))
    oldest = find_partition(objects, START)
    assert oldest is not None
    objects.remove([oldest.names["hourly"]])
    assert not oldest.has("hourly")
    at = last + timedelta(days=HORIZON_DAYS)
    assert learn_calibration(objects, store, Restless(), definitions, at=at) is not None
