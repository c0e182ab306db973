"""Histories and partitions on a real S3 server: what is there is whole, also after a crash at any request."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import select

from fastvlm_ops.core.backup.storage import create_client
from fastvlm_ops.core.capacity.collecting import (
    History,
    load_history,
    read_history,
    shard_of,
    store_history,
)
from fastvlm_ops.core.capacity.objects import CapacityObjects, partition_folder, run_folder
from fastvlm_ops.core.capacity.publishing import find_partition, publish_forecasts, remove_parts
from fastvlm_ops.core.capacity.shards import forecast_shard
from fastvlm_ops.core.config import RESOURCES, Capacity, load_capacity
from fastvlm_ops.core.store import Store, open_store
from fastvlm_ops.core.store.errors import ArtefactDamagedError, ArtefactStorageError
from fastvlm_ops.core.store.tables.capacity import forecasts
from tests.conftest import ROOT
from tests.fault_proxy import Exchange, FaultProxy, answer_with, on

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from fastvlm_ops.local.seaweedfs import SeaweedFS

pytestmark = pytest.mark.integration

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 20
HORIZON_DAYS = 3


class MadeMetrics:
    """Answers as the hook does, of frames made up by a seed: services are columns.

    :param services: with the hours before the as-of hour that each has data of
    """

    def __init__(self, services: dict[str, int], seed: int = 0) -> None:
        self.services = services
        self.seed = seed

    def hourly(self, query: str, start: datetime, end: datetime, *, label: str = "service") -> pd.DataFrame:
        index = pd.date_range(start, end, freq="h", inclusive="left")
        frame = pd.DataFrame(index=index)
        for number, (service, hours) in enumerate(self.services.items()):
            noise = np.random.default_rng([self.seed, number, len(query)]).normal(0, 1, len(index))
            values = 20 + 5 * np.sin(np.arange(len(index)) * 2 * np.pi / 24) + noise
            values[index < pd.Timestamp(AS_OF) - pd.Timedelta(hours=hours)] = np.nan
            frame[service] = values
        return frame


@pytest.fixture(scope="module")
def definitions() -> Capacity:
    return load_capacity(ROOT / "include").model_copy(update={"history_days": DAYS, "series_per_shard": 6})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'operations.db'}", migrate_first=True) as opened:
        yield opened


@pytest.fixture
def objects(s3_client: S3Client, bucket: str) -> CapacityObjects:
    return CapacityObjects(s3_client, bucket=bucket, prefix="kit")


def lay_down(
    objects: CapacityObjects, definitions: Capacity, run_key: str = "dag/run", seed: int = 0, count: int = 5
) -> list[int]:
    """Collect and forecast; returns the shards."""
    services = {f"service-{number}": 24 * DAYS for number in range(count)}
    history = read_history(MadeMetrics(services, seed), definitions, AS_OF)
    shards: list[int] = store_history(objects, history, run_key, definitions)["shards"]
    for shard in shards:
        forecast_shard(
            objects, definitions, run_key=run_key, shard=shard, as_of=AS_OF, horizon_days=HORIZON_DAYS
        )
    return shards


def publish(objects: CapacityObjects, store: Store, shards: list[int], run_key: str = "dag/run") -> Any:
    return publish_forecasts(
        objects, store, run_key=run_key, shards=shards, as_of=AS_OF, horizon_days=HORIZON_DAYS
    )


def objects_behind(proxy: FaultProxy, seaweedfs: SeaweedFS, bucket: str) -> CapacityObjects:
    """The same objects, reached through a proxy."""
    client = create_client(
        endpoint_url=proxy.endpoint_url,
        access_key_id=seaweedfs.access_key_id,
        secret_access_key=seaweedfs.secret_access_key,
    )
    return CapacityObjects(client, bucket=bucket, prefix="kit")


def contents(objects: CapacityObjects) -> dict[str, bytes]:
    """Bytes of the partition's objects that are named by its part."""
    partition = find_partition(objects, AS_OF)
    assert partition is not None
    return {name: objects.get(name, remedy="") for name in partition.names.values()}


def rows(store: Store) -> list[dict[str, Any]]:
    with store.read() as connection:
        query = select(forecasts).order_by(forecasts.c.service, forecasts.c.metric)
        return [dict(row) for row in connection.execute(query).mappings()]


def test_a_history_comes_back_as_it_was(objects: CapacityObjects, definitions: Capacity) -> None:
    services = {'we"ird\\ größe 模型': 480, "new": 30, "gone": 0, "api": 480}
    history = read_history(MadeMetrics(services), definitions, AS_OF)
    result = store_history(objects, history, "dag/run", definitions)
    assert result["services"] == 4
    assert result["shards"] == [0, 1]
    seen: dict[str, History] = {}
    for shard in result["shards"]:
        part = load_history(objects, "dag/run", shard, as_of=AS_OF, definitions=definitions)
        for number, service in enumerate(part.services):
            assert shard_of(service.name, 2) == shard
            place = [one.name for one in history.services].index(service.name)
            assert service == history.services[place]
            for resource in RESOURCES:
                np.testing.assert_array_equal(
                    part.average[resource][number], history.average[resource][place]
                )
                np.testing.assert_array_equal(part.peak[resource][number], history.peak[resource][place])
            seen[service.name] = part
    assert set(seen) == set(services)


def test_published_again_it_is_the_same_bytes_and_rows(
    objects: CapacityObjects, store: Store, definitions: Capacity
) -> None:
    shards = lay_down(objects, definitions)
    first = publish(objects, store, shards)
    before, stored = contents(objects), rows(store)
    assert first["statuses"] == {"ok": 15}
    assert len(stored) == 15
    assert publish(objects, store, shards[::-1]) == first
    assert contents(objects) == before
    assert rows(store) == stored


def test_the_number_of_shards_changes_no_byte(
    objects: CapacityObjects, store: Store, definitions: Capacity
) -> None:
    publish(objects, store, lay_down(objects, definitions))
    before = contents(objects)
    whole = definitions.model_copy(update={"series_per_shard": 1000})
    shards = lay_down(objects, whole)
    assert shards == [0]
    publish(objects, store, shards)
    assert contents(objects) == before


def test_a_service_that_has_gone_leaves_no_row(
    objects: CapacityObjects, store: Store, definitions: Capacity
) -> None:
    publish(objects, store, lay_down(objects, definitions))
    publish(objects, store, lay_down(objects, definitions, count=2))
    assert {row["service"] for row in rows(store)} == {"service-0", "service-1"}


def test_without_any_service_there_is_an_empty_partition(
    objects: CapacityObjects, store: Store, definitions: Capacity
) -> None:
    result = publish(objects, store, lay_down(objects, definitions, count=0))
    assert (result["series"], result["services"], rows(store)) == (0, 0, [])
    partition = find_partition(objects, AS_OF)
    assert partition is not None
    assert partition.table("hourly").num_rows == 0


def test_what_a_partition_holds(objects: CapacityObjects, store: Store, definitions: Capacity) -> None:
    publish(objects, store, lay_down(objects, definitions))
    partition = find_partition(objects, AS_OF)
    assert partition is not None
    assert partition.horizon_days == HORIZON_DAYS
    daily = partition.table("daily", service="service-1", metric="cpu").to_pandas()
    hourly = partition.table("hourly", service="service-1", metric="cpu").to_pandas()
    history = partition.table("daily_history", service="service-1", metric="cpu").to_pandas()
    assert list(daily["day"]) == [AS_OF + timedelta(days=day) for day in range(HORIZON_DAYS)]
    assert list(hourly["hour"]) == [AS_OF + timedelta(hours=hour) for hour in range(24 * HORIZON_DAYS)]
    assert len(history) == DAYS
    np.testing.assert_allclose(
        daily["mean"], hourly["mean"].to_numpy().reshape(-1, 24).mean(axis=1), rtol=1e-6
    )
    np.testing.assert_allclose(
        daily["q0.95"], hourly["q0.95"].to_numpy().reshape(-1, 24).max(axis=1), rtol=1e-6
    )
    assert (history["p95"] <= history["max"]).all()
    (row,) = [one for one in rows(store) if one["service"] == "service-1" and one["metric"] == "cpu"]
    assert row["artefact_uri"] == partition.uri
    assert row["capacity"] == 100.0


@pytest.mark.parametrize("nth", range(1, 5))
def test_a_crash_while_publishing_leaves_the_old_partition(
    objects: CapacityObjects,
    store: Store,
    definitions: Capacity,
    bucket: str,
    seaweedfs: SeaweedFS,
    nth: int,
) -> None:
    publish(objects, store, lay_down(objects, definitions))
    before, stored = contents(objects), rows(store)
    shards = lay_down(objects, definitions, run_key="dag/other", seed=1)
    with FaultProxy(seaweedfs.endpoint_url, "kit/") as proxy:
        behind = objects_behind(proxy, seaweedfs, bucket)
        child = 0

        def kill(exchange: Exchange) -> None:
            os.kill(child, signal.SIGKILL)

        with proxy.faults(on("PutObject capacity/forecasts/", kill, only=nth)):
            child = os.fork()
            if child == 0:
                publish(behind, store, shards, "dag/other")
                os._exit(0)
            _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert contents(objects) == before
    assert rows(store) == stored
    publish(objects, store, shards, "dag/other")
    assert set(contents(objects).values()).isdisjoint(before.values())


def test_a_refused_part_leaves_the_old_partition_and_rows(
    objects: CapacityObjects, store: Store, definitions: Capacity, bucket: str, seaweedfs: SeaweedFS
) -> None:
    publish(objects, store, lay_down(objects, definitions))
    before, stored = contents(objects), rows(store)
    shards = lay_down(objects, definitions, run_key="dag/other", seed=1)
    with FaultProxy(seaweedfs.endpoint_url, "kit/") as proxy:
        behind = objects_behind(proxy, seaweedfs, bucket)
        part = f"PutObject capacity/{partition_folder(AS_OF)}part"
        with (
            proxy.faults(on(part, answer_with(403, "AccessDenied"))),
            pytest.raises(ArtefactStorageError, match=r"part\.parquet could not be written: .*AccessDenied"),
        ):
            publish(behind, store, shards, "dag/other")
    assert contents(objects) == before
    assert rows(store) == stored


def test_parts_that_are_gone_are_named_with_the_task_to_clear(
    objects: CapacityObjects, store: Store, definitions: Capacity
) -> None:
    shards = lay_down(objects, definitions)
    assert remove_parts(objects, run_folder("dag/run")) > 0
    with pytest.raises(
        ArtefactDamagedError, match=r"series-0000\.parquet does not exist; clear the task forecast"
    ):
        publish(objects, store, shards)
    with pytest.raises(
        ArtefactDamagedError, match=r"services-0000\.json does not exist; clear the task collect"
    ):
        load_history(objects, "dag/run", 0, as_of=AS_OF, definitions=definitions)
    assert find_partition(objects, AS_OF) is None
    assert rows(store) == []


def test_what_is_no_partition_is_refused(objects: CapacityObjects) -> None:
    objects.put(f"{partition_folder(AS_OF)}part.parquet", b"nonsense")
    with pytest.raises(ArtefactDamagedError, match="is no partition of forecasts"):
        find_partition(objects, AS_OF)
