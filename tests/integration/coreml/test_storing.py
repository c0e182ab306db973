"""Runs are recorded once, with all that is known of them, in both databases and a real bucket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from fastvlm_ops.core.coreml.baselines import (
    GREEN,
    Subject,
    accept,
    accepted_digests,
    history,
    load_baseline,
)
from fastvlm_ops.core.coreml.devices.interface import Failure, FailureCode
from fastvlm_ops.core.coreml.publishing import write_gauges
from fastvlm_ops.core.coreml.records import RunRecord
from fastvlm_ops.core.coreml.storing import (
    RunId,
    find_run,
    load_run,
    record_model,
    record_run,
    record_verdicts,
    runs_of,
)
from fastvlm_ops.core.coreml.verdicts import Judgement, Metric, Verdict
from fastvlm_ops.core.store import Store, migrate, open_store
from fastvlm_ops.core.store.artefacts import ArtefactStore
from fastvlm_ops.core.store.errors import ArtefactDamagedError
from fastvlm_ops.core.store.tables import coreml as tables
from tests.coreml_made import PHONE, START, failed_session, run, session

pytestmark = pytest.mark.integration

SUBJECT = Subject("iphone-15-pro", "VisionEncoder", "CPU_AND_NE")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    migrate(database_url)
    with open_store(database_url) as opened:
        yield opened


@pytest.fixture
def artefacts(store: Store, s3_client: Any, bucket: str) -> ArtefactStore:
    return ArtefactStore(store, s3_client, bucket=bucket, prefix="kit")


def count(store: Store, table: Any) -> int:
    with store.read() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def rows(store: Store, table: Any) -> list[dict[str, Any]]:
    with store.read() as connection:
        query = select(table).order_by(*table.primary_key.columns)
        return [dict(row) for row in connection.execute(query).mappings()]


def accepted(store: Store, artefacts: ArtefactStore, record: RunRecord, by: str = GREEN) -> RunRecord:
    assert record_run(store, artefacts, record)
    assert accept(store, [RunId.of(record)], accepted_by=by) == 1
    return record


def load_run_record(store: Store, artefacts: ArtefactStore, run: RunId) -> RunRecord:
    row = find_run(store, run)
    assert row is not None
    return load_run(store, artefacts, row)


def test_a_run_comes_back_as_it_was(store: Store, artefacts: ArtefactStore) -> None:
    record = run()
    assert record_run(store, artefacts, record, golden_id="golden-1")
    assert load_run_record(store, artefacts, RunId.of(record)) == record
    (row,) = runs_of(store, record.run_key)
    assert row["status"] == "complete"
    assert row["latency_p50_ms"] == 10.0
    assert row["latency_min_ms"] == pytest.approx(9.8)
    assert row["latency_p90_ms"] == pytest.approx(10.52)
    assert (row["load_cold_ms"], row["load_warm_ms"]) == (200.0, 51.0)
    assert row["peak_memory_bytes"] == 50_000_000
    assert (row["cost_share_ane"], row["cost_share_cpu"], row["cost_share_gpu"]) == (0.75, 0.25, 0.0)
    assert (row["psnr_db"], row["golden_id"]) == (81.5, "golden-1")
    assert row["measured_at"] == START
    (first, *_) = rows(store, tables.sessions)
    assert first["p50_ms"] == 10.0
    assert (first["thermal_start"], first["battery_percent"], first["charging"]) == ("nominal", 88.0, True)
    assert first["predictions"] == 5


def test_the_udid_is_nowhere(store: Store, artefacts: ArtefactStore) -> None:
    record_run(store, artefacts, run())
    (artefact,) = artefacts.list("coreml_benchmark/night-1")
    assert PHONE.identifier not in artefacts.get(artefact).decode()
    assert PHONE.identifier not in str(rows(store, tables.runs))


def test_what_is_unknown_is_null(store: Store, artefacts: ArtefactStore) -> None:
    bare = replace(session(0), peak_memory_bytes=None, load_cold_ms=None, load_warm_ms=(), placement=())
    record_run(store, artefacts, run(sessions=(bare,), parity=None))
    (row,) = rows(store, tables.runs)
    for name in ("peak_memory_bytes", "load_cold_ms", "load_warm_ms", "psnr_db", "nan_count"):
        assert row[name] is None, name
    for unit in ("ane", "gpu", "cpu", "unknown"):
        assert row[f"cost_share_{unit}"] is None


def test_a_second_attempt_records_nothing(store: Store, artefacts: ArtefactStore) -> None:
    first, second = run(), run(sessions=(session(0, 20.0),))
    assert record_run(store, artefacts, first)
    assert not record_run(store, artefacts, second)
    assert load_run_record(store, artefacts, RunId.of(first)) == first
    assert count(store, tables.runs) == 1
    assert count(store, tables.sessions) == 3
    assert len(artefacts.list(first.run_key)) == 1


def test_of_attempts_at_once_one_is_recorded(store: Store, artefacts: ArtefactStore) -> None:
    records = [run(sessions=(session(0, 10.0 + number), session(1))) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        new = list(pool.map(lambda one: record_run(store, artefacts, one), records))
    assert sorted(new) == [False, False, False, True]
    assert count(store, tables.runs) == 1
    assert count(store, tables.sessions) == 2
    stands = load_run_record(store, artefacts, RunId.of(records[0]))
    assert stands == records[new.index(True)]


def test_an_attempt_that_died_before_its_row_is_in_nobodys_way(
    store: Store, artefacts: ArtefactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fastvlm_ops.core.coreml.storing._insert", die)
        with pytest.raises(KeyboardInterrupt):
            record_run(store, artefacts, run(sessions=(session(0, 33.0),)))
    assert count(store, tables.runs) == 0
    assert record_run(store, artefacts, run())
    assert load_run_record(store, artefacts, RunId.of(run())) == run()


def test_what_was_cut_short_is_measured_again(store: Store, artefacts: ArtefactStore) -> None:
    cut = run(
        sessions=(session(0), failed_session(1, FailureCode.DEVICE_DISCONNECTED)),
        failure=Failure(FailureCode.DEVICE_DISCONNECTED, "the cable"),
    )
    assert record_run(store, artefacts, cut)
    (row,) = rows(store, tables.runs)
    assert (row["status"], row["failure_code"]) == ("partial", "device_disconnected")
    assert (row["sessions"], row["sessions_failed"]) == (2, 1)
    assert rows(store, tables.sessions)[1]["p50_ms"] is None
    assert accept(store, [RunId.of(cut)], accepted_by=GREEN) == 0
    assert record_run(store, artefacts, run())
    assert load_run_record(store, artefacts, RunId.of(cut)) == run()
    assert count(store, tables.sessions) == 3


def test_a_device_that_was_not_there(store: Store, artefacts: ArtefactStore) -> None:
    missing = run(
        sessions=(),
        failure=Failure(FailureCode.DEVICE_MISSING, "no iPhone"),
        parity=None,
        hardware_class="",
        epoch="",
    )
    missing = replace(missing, device={"name": "iphone-15-pro"}, toolchain={})
    assert record_run(store, artefacts, missing)
    assert load_run_record(store, artefacts, RunId.of(missing)) == missing
    assert artefacts.list(missing.run_key) == []
    assert find_run(store, RunId.of(missing))["status"] == "failed"


def test_changed_samples_are_noticed(store: Store, artefacts: ArtefactStore, s3_client: Any) -> None:
    record_run(store, artefacts, run())
    (artefact,) = artefacts.list("coreml_benchmark/night-1")
    bucket, _, key = artefact.uri.removeprefix("s3://").partition("/")
    values = json.loads(artefacts.get(artefact))
    values["run"]["sessions"][0]["samples_ms"][0] = 1.0
    s3_client.put_object(Bucket=bucket, Key=key, Body=json.dumps(values).encode())
    with pytest.raises(ArtefactDamagedError, match="SHA-256"):
        load_run_record(store, artefacts, RunId.of(run()))


def test_the_inspection_comes_from_the_model(store: Store, artefacts: ArtefactStore) -> None:
    inspection = {"size_bytes": 1234, "parameters": 10, "structure_hash": "ab", "flops": 5.0}
    for _ in range(2):
        record_model(store, name="VisionEncoder", version="1.0", digest="d" * 64, inspection=inspection)
    (model,) = rows(store, tables.models)
    assert (model["size_bytes"], model["parameters"], model["spec_version"]) == (1234, 10, None)
    record_run(store, artefacts, run(inspection=inspection))
    assert load_run_record(store, artefacts, RunId.of(run())) == run(inspection=inspection)
    assert rows(store, tables.runs)[0]["size_bytes"] == 1234


def test_gauges_are_of_the_newest_and_have_no_sample_for_what_is_unknown(
    store: Store, artefacts: ArtefactStore, tmp_path: Path
) -> None:
    assert write_gauges(store, tmp_path) is None
    record_run(store, artefacts, run("d/0"))
    record_run(store, artefacts, run("d/1", night=1, sessions=(replace(session(0), peak_memory_bytes=None),)))
    record_verdicts(store, "d/0", [judgement(Metric.SIZE, Verdict.REGRESSION)])
    record_verdicts(store, "d/1", [judgement(Metric.SIZE, Verdict.OK)])
    file = write_gauges(store, tmp_path)
    assert file is not None
    text = file.read_text()
    labels = 'compute_unit="CPU_AND_NE",device="iphone-15-pro",hardware_class="iphone",model="VisionEncoder"'
    assert f'fastvlm_coreml_latency_seconds{{{labels},quantile="0.5",version="1.0"}} 0.01' in text
    assert f'fastvlm_coreml_placement_cost_share{{{labels},unit="ane",version="1.0"}} 0.75' in text
    assert "fastvlm_coreml_peak_memory_bytes{" not in text
    assert 'metric="size",model="VisionEncoder",verdict="OK"} 1' in text
    assert "REGRESSION" not in text


def test_verdicts_are_replaced(store: Store) -> None:
    record_verdicts(store, "key", [judgement(Metric.SIZE, Verdict.OK), judgement(Metric.PARITY, Verdict.OK)])
    worse = replace(judgement(Metric.SIZE, Verdict.REGRESSION), change=float("inf"), value=12.0)
    record_verdicts(store, "key", [worse])
    (row,) = rows(store, tables.verdicts)
    assert (row["metric"], row["verdict"], row["value"], row["change"]) == ("size", "REGRESSION", 12.0, None)
    assert row["details"] == {"moved": ["conv_0"]}


def judgement(metric: Metric, verdict: Verdict) -> Judgement:
    return Judgement(
        "iphone-15-pro",
        "VisionEncoder",
        "CPU_AND_NE",
        metric,
        verdict=verdict,
        reason="because",
        details={"moved": ["conv_0"]},
    )


def baseline(store: Store, artefacts: ArtefactStore, epoch: str, sessions: int, **changes: Any) -> Any:
    arguments = {"before": START + timedelta(days=99), "without": "other"} | changes
    return load_baseline(store, artefacts, SUBJECT, epoch=epoch, sessions=sessions, **arguments)


def test_the_baseline_is_the_last_accepted_sessions(store: Store, artefacts: ArtefactStore) -> None:
    made = [accepted(store, artefacts, run(f"d/{night}", night=night)) for night in range(4)]
    record_run(store, artefacts, run("d/red", night=4))
    found = baseline(store, artefacts, made[0].epoch, 7)
    assert found.runs == tuple(made[1:])  # three sessions each, so seven take three runs; oldest first
    assert found.accepted_by == "green"
    assert baseline(store, artefacts, made[0].epoch, 3).runs == (made[3],)
    assert baseline(store, artefacts, made[0].epoch, 3, fewest_runs=3).runs == tuple(made[1:])
    assert baseline(store, artefacts, made[0].epoch, 3, without="d/3").runs == (made[2],)
    earlier = baseline(store, artefacts, made[0].epoch, 3, before=START + timedelta(days=2))
    assert earlier.runs == (made[1],)


def test_another_epoch_only_where_there_is_none_of_this(store: Store, artefacts: ArtefactStore) -> None:
    assert baseline(store, artefacts, "any", 5) is None
    old = accepted(store, artefacts, run("d/0"))
    assert baseline(store, artefacts, "new", 5).runs == (old,)
    updated = replace(PHONE, os_version="18.2", os_build="22C100")
    new = accepted(store, artefacts, run("d/1", night=1, device=updated))
    assert new.epoch != old.epoch
    assert baseline(store, artefacts, new.epoch, 50).runs == (new,)
    assert baseline(store, artefacts, old.epoch, 50).runs == (old,)


def test_who_accepted_first_stands(store: Store, artefacts: ArtefactStore) -> None:
    record = accepted(store, artefacts, run(), by="maria")
    accept(store, [RunId.of(record)], accepted_by=GREEN)
    (row,) = rows(store, tables.baselines)
    assert row["accepted_by"] == "maria"
    assert accepted_digests(store, SUBJECT, without="other") == {record.digest}
    assert accepted_digests(store, SUBJECT, without=record.run_key) == set()


def test_the_history_has_every_session(store: Store, artefacts: ArtefactStore) -> None:
    accepted(store, artefacts, run("d/0"))
    record_run(store, artefacts, run("d/1", night=1, sessions=(session(0, 11.0), failed_session(1))))
    record_run(store, artefacts, run("d/2", night=2, sessions=(failed_session(0),)))
    points = history(store, SUBJECT)
    assert [point.run.run_key for point in points] == ["d/0", "d/1"]
    assert [point.accepted_by for point in points] == ["green", None]
    assert points[0].latency_p50_ms == (10.0, 10.0, 10.0)
    assert points[1].latency_p50_ms == (11.0,)
    assert [point.run.run_key for point in history(store, SUBJECT, limit=1)] == ["d/1"]
