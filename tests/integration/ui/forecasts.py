"""Forecasts for the pages to show: of services that were made up, worked out and published as a run would."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from sqlalchemy import insert, select

from fastvlm_ops.core.capacity.advice import recommend_all, rules_of
from fastvlm_ops.core.capacity.collecting import History, Service, store_history
from fastvlm_ops.core.capacity.objects import CapacityObjects
from fastvlm_ops.core.capacity.publishing import publish_forecasts
from fastvlm_ops.core.capacity.shards import forecast_shard
from fastvlm_ops.core.config.capacity import RESOURCES, load_capacity
from fastvlm_ops.core.store import open_store
from fastvlm_ops.core.store.tables.capacity import forecasts, recommendations, scores
from fastvlm_ops.ui import addresses
from tests.integration.ui.rig import BUCKET, Rig

HOSTILE = "<script>alert('x')</script>\"\\\n\u202e/é"
BUSY, GROWING, IDLE, NEW, GONE = "captions", "embedding", "thumbnails", "preview", "legacy-api"
NAMES = (BUSY, GROWING, IDLE, NEW, GONE, "api", "detector", HOSTILE)
AS_OF = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
HOURS = 90 * 24


def key(service: str) -> str:
    """The service as part of an address."""
    return addresses.encode(service.encode())


def usage(service: str, seed: int) -> np.ndarray:
    """Ninety days by the hour: days, weeks, growth, noise, gaps; about 50 at most."""
    generator, hours = np.random.default_rng(seed), np.arange(HOURS)
    day, week = np.sin((hours % 24 - 9) / 24 * 2 * np.pi), np.where(hours // 24 % 7 < 5, 1.0, 0.65)
    noise = np.convolve(generator.standard_normal(HOURS), np.ones(4) / 2, "same")
    values = (24 + 14 * day) * week + 1.6 * noise
    if service == GROWING:
        values = values * 0.5 + 66 * hours / HOURS
    values *= {BUSY: 1.75, IDLE: 0.25}.get(service, 1.0)
    values[generator.random(HOURS) < 0.004] *= 1.5
    values[1300:1372] = np.nan
    if service == NEW:
        values[: -3 * 24] = np.nan
    if service == GONE:
        values[-20 * 24 :] = np.nan
    return np.clip(values, 0, None)


def history(as_of: datetime, names: Sequence[str] = NAMES) -> History:
    """What would have been collected."""
    services = [
        Service(name, 4, {"cpu": 100.0, "memory": 100.0, "requests": 120.0}) for name in sorted(names)
    ]
    average = {
        resource: np.array([usage(one.name, 7 * n + place) for n, one in enumerate(services)])
        for place, resource in enumerate(RESOURCES)
    }
    peak = {resource: values * 1.15 for resource, values in average.items()}
    return History(as_of, services, average, peak)


def forecast(rig: Rig, days: int = 3, names: Sequence[str] = NAMES) -> None:
    """Forecast and recommend as of some days, the last of them today."""
    definitions = load_capacity(rig.folder / "include")
    objects = CapacityObjects(rig.s3.client(), bucket=BUCKET)
    with open_store(f"sqlite:///{rig.database}", migrate_first=True) as store:
        for number in reversed(range(days)):
            as_of = AS_OF - timedelta(days=number)
            run_key = f"capacity_forecast/scheduled__{as_of.isoformat()}"
            found = history(as_of, names)
            shards = store_history(objects, found, run_key, definitions)["shards"]
            for shard in shards:
                forecast_shard(
                    objects, definitions, run_key=run_key, shard=shard, as_of=as_of, horizon_days=30
                )
            publish_forecasts(objects, store, run_key=run_key, shards=shards, as_of=as_of, horizon_days=30)
            replicas: Mapping[str, int | None] = {
                one.name: None if one.name == HOSTILE else 4 for one in found.services
            }
            recommend_all(store, as_of=as_of, replicas=replicas, rules=rules_of(definitions), run_key=run_key)


def add_earlier(rig: Rig, days: int) -> None:
    """Add rows of forecasts of earlier days, as if each had been what the newest is."""
    with open_store(f"sqlite:///{rig.database}", migrate_first=True) as store, store.write() as connection:
        for table in (forecasts, recommendations):
            rows = connection.execute(select(table).where(table.c.as_of == AS_OF)).mappings().all()
            for number in range(1, days + 1):
                as_of = AS_OF - timedelta(days=number)
                connection.execute(insert(table), [{**row, "as_of": as_of} for row in rows])


def add_scores(rig: Rig, days: int = 60, names: Sequence[str] = NAMES) -> None:
    """Add scores of forecasts of earlier days."""
    generator = random.Random(5)
    rows = []
    for number in range(days):
        as_of = AS_OF - timedelta(days=8 + number)
        for service in names:
            for metric in RESOURCES:
                rows.append(_score(as_of, service, metric, generator, unknown=service == NEW))
    with open_store(f"sqlite:///{rig.database}", migrate_first=True) as store, store.write() as connection:
        connection.execute(insert(scores), rows)


def _score(
    as_of: datetime, service: str, metric: str, generator: random.Random, *, unknown: bool
) -> dict[str, object]:
    short = generator.random() < 0.06
    return {
        "as_of": as_of,
        "service": service,
        "metric": metric,
        "horizon_days": 7,
        "mase": None if unknown else generator.lognormvariate(-0.05, 0.25),
        "pinball95": None if unknown else generator.uniform(0.2, 0.4),
        "coverage95": None if unknown else min(generator.gauss(0.95, 0.02), 1.0),
        "shortfall": None if unknown else short,
        "waste": None if unknown else 0.0 if short else generator.uniform(0.05, 0.4),
        "hours_scored": 0 if unknown else 168,
        "scored_at": as_of + timedelta(days=7, hours=1),
    }
