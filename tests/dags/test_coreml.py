"""coreml_benchmark, run to its end: real packages, sessions on this machine, a real S3 server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from fastvlm_ops.core.coreml.baselines import GREEN, accept
from fastvlm_ops.core.coreml.storing import RunId, load_run, record_run, runs_of
from fastvlm_ops.core.store import Store, open_store
from fastvlm_ops.core.store.artefacts import ArtefactStore
from fastvlm_ops.core.store.tables import coreml as tables
from fastvlm_ops.links.coreml import PAGES
from tests.coreml_stack import SESSIONS, Models
from tests.dags.support import Run

DAG = "coreml_benchmark"
LINUX, PHONE = "linux-reference", "iphone-15-pro"
ENCODER, DECODER = "VisionEncoder", "TextDecoder"
PHONE_DEFINITION = {"name": PHONE, "backend": "connected-device", "connection": "fastvlm_apple_phone"}


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[Any], list[dict[str, Any]]]:
    """A function that returns all rows of a table."""

    def read(table: Any) -> list[dict[str, Any]]:
        with opened(tmp_path) as store, store.read() as connection:
            found = connection.execute(select(table).order_by(*table.primary_key.columns)).mappings()
            return [dict(row) for row in found]

    return read


def opened(folder: Path) -> Store:
    return open_store(f"sqlite:///{folder / 'operations.db'}")


def verdicts(run: Run) -> dict[tuple[str, str], str]:
    (compared,) = run.returned("compare_with_baseline")
    return {(one["device"], one["model"]): one["verdict"] for one in compared["runs"]}


def gate_message(run: Run) -> str:
    assert run.state == "failed"
    (failure,) = run.failures("regression_gate")
    assert failure["error"] == "RegressionError"
    return str(failure["message"])


def accept_copies(tmp_path: Path, s3_client: Any, bucket: str, run_key: str) -> None:
    """Make a baseline with enough sessions of one run's: the same nights before."""
    with opened(tmp_path) as store:
        artefacts = ArtefactStore(store, s3_client, bucket=bucket, prefix="kit")
        for row in runs_of(store, run_key):
            record = load_run(store, artefacts, row)
            for night in (1, 2, 3):
                began = row["measured_at"] - timedelta(days=night)
                copy = replace(record, run_key=f"d/{night}", started_at=began.isoformat())
                assert record_run(store, artefacts, copy, golden_id=row["golden_id"])
                accept(store, [RunId.of(copy)], accepted_by=GREEN)


def test_what_is_measured_first_is_the_first_baseline(
    run_dag: Any, models: Models, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "textfiles"
    folder.mkdir()
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__METRICS_DIR", str(folder))
    models.put(ENCODER, 10)  # newer than 9, whatever letters say
    models.put(ENCODER, 9)
    run = run_dag(DAG)
    assert run.state == "success"
    assert run.labels["inspect_model"] == [ENCODER, DECODER]
    assert run.labels["benchmark_linux-reference"] == [f"{ENCODER} CPU_AND_NE", f"{DECODER} CPU_AND_NE"]
    measured = {row["model"]: row for row in rows(tables.runs)}
    assert {name: row["version"] for name, row in measured.items()} == {ENCODER: "10", DECODER: "1"}
    for row in measured.values():
        assert (row["status"], row["hardware_class"], row["sessions"]) == ("complete", LINUX, 2)
        assert row["latency_p50_ms"] > 0
        assert row["peak_memory_bytes"] > 1e7
        assert row["psnr_db"] > 35  # 8-bit weights against the original in single precision
        assert (row["nan_count"], row["inf_count"]) == (0, 0)
        assert row["size_bytes"] > 1e5
    assert len(rows(tables.sessions)) == 4
    assert {row["compressed_share"] > 0.5 for row in rows(tables.models)} == {True}
    assert {row["accepted_by"] for row in rows(tables.baselines)} == {"green"}
    (promoted,) = run.returned("promote_baseline")
    assert [(one["model"], one["version"]) for one in promoted["models"]] == [(ENCODER, "10"), (DECODER, "1")]
    (link, *_) = run.xcoms["compare_with_baseline"]["_link_CoreMLPageLink"]
    assert f"{PAGES}?run={DAG}%2F" in link
    text = (folder / "fastvlm_coreml.prom").read_text()
    assert re.search(rf'fastvlm_coreml_latency_seconds{{.*model="{ENCODER}".*quantile="0.5".*}} 0\.', text)
    assert f'hardware_class="{LINUX}"' in text
    assert re.search(r'fastvlm_coreml_verdict{.*metric="status",model="\w+",verdict="OK"} 1', text)


def test_accepted_models_are_told_to_who_waits_for_them(run_dag: Any, models: Models) -> None:
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session

    def events() -> list[tuple[str, str]]:
        with create_session() as session:
            query = select(AssetEvent.extra).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            query = query.where(AssetModel.name == "fastvlm/coreml/accepted_model").order_by(AssetEvent.id)
            return [(extra["model"], extra["version"]) for extra in session.scalars(query)]

    before = len(events())
    run = run_dag(DAG, {"promote": "none"})
    assert run.state == "success"
    assert len(events()) == before, "nothing was accepted"
    run_dag(DAG, {"models": [ENCODER]})
    assert events()[before:] == [(ENCODER, "1")]


def test_each_kind_of_worse_is_named_and_kept_out(
    run_dag: Any, models: Models, rows: Any, tmp_path: Path, s3_client: Any, bucket: str
) -> None:
    models.define(sessions=SESSIONS | {"count": 5})
    assert run_dag(DAG).state == "success"
    accept_copies(tmp_path, s3_client, bucket, rows(tables.runs)[0]["run_key"])
    before = len(rows(tables.baselines))
    models.put(ENCODER, 2, "drift")
    models.put(DECODER, 2, "uncompressed")
    run = run_dag(DAG)
    said = gate_message(run)
    assert re.search(rf"REGRESSION: {ENCODER} on {LINUX} \(CPU_AND_NE\): parity", said), said
    assert re.search(rf"REGRESSION: {DECODER} on {LINUX} \(CPU_AND_NE\): size \+\d+\.\d%", said), said
    assert re.search(rf"REGRESSION: {DECODER} on {LINUX} \(CPU_AND_NE\): compression", said), said
    assert len(rows(tables.baselines)) == before
    assert run.returned("promote_baseline")[0]["models"] == []
    turns = [one for one in rows(tables.verdicts) if one["metric"] == "latency_turns"]
    assert {one["model"] for one in turns} == {ENCODER, DECODER}
    assert all("accepted version 1" in one["reason"] for one in turns)

    models.put(ENCODER, 3)  # as version 1 was
    models.put(DECODER, 3, "overflow")
    run = run_dag(DAG)
    said = gate_message(run)
    assert ENCODER not in said
    assert re.search(rf"REGRESSION: {DECODER} .*parity.*(NaN|infinite|inf)", said), said
    assert [one["model"] for one in run.returned("promote_baseline")[0]["models"]] == [ENCODER]


def test_a_package_that_is_refused_takes_no_other_with_it(run_dag: Any, models: Models, rows: Any) -> None:
    package = models.put(ENCODER, 2)
    manifest = json.loads((package / "Manifest.json").read_text())
    for entry in manifest["itemInfoEntries"].values():
        entry["path"] = "../../../etc/passwd"
    (package / "Manifest.json").write_text(json.dumps(manifest))
    run = run_dag(DAG)
    assert run.tasks["inspect_model"] == ["failed", "success"]
    (evidence,) = run.failures("inspect_model")
    assert evidence["error"] == "PackageRefusedError"
    assert "leads out of the package" in evidence["message"]
    assert gate_message(run) == f"{ENCODER} 2: its package is refused; see inspect_model"
    assert verdicts(run)[LINUX, DECODER] == "INSUFFICIENT"
    assert [row["model"] for row in rows(tables.baselines)] == [DECODER]


@pytest.mark.parametrize(("policy", "state"), [("fail", "failed"), ("warn", "success")])
def test_a_device_that_cannot_be_had_leaves_the_others_verdicts(
    run_dag: Any,
    models: Models,
    rows: Any,
    monkeypatch: pytest.MonkeyPatch,
    policy: str,
    state: str,
) -> None:
    connection = json.dumps({"conn_type": "fastvlm_apple_device", "extra": {}})
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_APPLE_PHONE", connection)
    devices = [{"name": LINUX, "backend": LINUX}, PHONE_DEFINITION]
    models.define(devices=devices, missing_devices=policy)
    run = run_dag(DAG, {"models": [ENCODER]})
    assert run.state == state
    assert run.tasks[f"benchmark_{PHONE}"] == ["success"], "trouble of a device is a result"
    assert verdicts(run) == {(LINUX, ENCODER): "INSUFFICIENT", (PHONE, ENCODER): "MISSING"}
    by_device = {row["device"]: row for row in rows(tables.runs)}
    assert by_device[PHONE]["failure_code"] == "no_toolchain"
    assert by_device[PHONE]["latency_p50_ms"] is None
    assert [row["device"] for row in rows(tables.baselines)] == [LINUX]
    assert run.returned("promote_baseline")[0]["models"] == [], "it was not measured everywhere"
    if policy == "fail":
        assert f"MISSING: {ENCODER} on {PHONE}" in gate_message(run)


def test_the_form_narrows_and_is_checked(run_dag: Any, models: Models, rows: Any) -> None:
    models.define(devices=[{"name": LINUX, "backend": LINUX}, {"name": "second", "backend": LINUX}])
    run = run_dag(DAG, {"models": [DECODER], "devices": ["second"], "sessions": 1})
    assert run.state == "success"
    assert run.tasks[f"benchmark_{LINUX}"] == ["skipped"]
    ((row),) = rows(tables.runs)
    assert (row["device"], row["model"], row["sessions"]) == ("second", DECODER, 1)
    assert run.returned("promote_baseline")[0]["models"] == []
    refused = run_dag(DAG, {"models": ["Decoder"]})
    assert refused.state == "failed"
    (evidence,) = refused.failures("discover_models")
    assert "none named 'Decoder'; it has VisionEncoder, TextDecoder" in evidence["message"]
    assert "no model was found" in gate_message(refused)
