"""The second place by its DAG: copied, verified, recorded, restored from; and what it says when it cannot."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.airflow_kit import COMPONENTS, Kit, set_connection, write_little

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the operations database and the metrics of a test are."""
    path = tmp_path / "operations.db"
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__DATABASE_PATH", str(path))
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__METRICS_DIR", str(tmp_path))
    return path


@pytest.fixture
def ask(database: Path) -> Callable[[Callable[[Any], Any]], Any]:
    """A function that asks the operations database."""
    from fastvlm_ops.core.store import open_store

    def asking(question: Callable[[Any], Any]) -> Any:
        with open_store(f"sqlite:///{database}") as store:
            return question(store)

    return asking


def metric(folder: Path, name: str) -> float:
    (line,) = [
        line
        for line in (folder / "fastvlm_backup.prom").read_text().splitlines()
        if line.startswith(f"fastvlm_backup_{name} ")
    ]
    return float(line.split()[1])


def require_rows(store: Any) -> None:
    """Each task of the first two runs has a row of what it asked for, and the day's bytes are measured."""
    from fastvlm_ops.core.backup.costs import stored_history
    from fastvlm_ops.core.store.tables.backup import catalogue, usages

    with store.read() as opened:
        found = {row.task: row for row in opened.execute(select(usages))}
        repository_id = opened.scalar(select(catalogue.c.repository_id))
    expected = {f"create_backup[{number}]" for number in range(len(COMPONENTS))}
    others = {"prepare_repository", "verify_backup", "publish_backup", "record_backup"}
    assert found.keys() >= expected | others
    assert all(found[name].puts >= 3 and found[name].sent_bytes > 0 for name in expected)
    assert found["publish_backup"].puts == 1
    assert found["replicate_backup"].gets > found["replicate_backup"].puts == 0
    assert found["replicate_backup@replica"].puts > 10
    assert found["verify_replica@replica"].gets > 0
    (measured,) = stored_history(store, repository_id)
    assert measured.by_kind["packs"] > 0
    assert measured.size_bytes == sum(size for ages in measured.by_class.values() for size in ages.values())


def log_of(client: Any, place: dict[str, Any]) -> list[str]:
    """Keys of the log of the second place."""
    listing = client.list_objects_v2(Bucket=place["extra"]["bucket"], Prefix="copy/log/")
    return [item["Key"] for item in listing["Contents"]]


def test_copied_recorded_and_restored_when_the_first_is_gone(
    run_dag: Any,
    kit: Kit,
    connection: dict[str, Any],
    second_place: dict[str, Any],
    ask: Any,
    database: Path,
    s3_client: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fastvlm_ops.core.backup.replica_state import replica_state

    run_dag("backup_full")
    run = run_dag("backup_replicate")
    assert run.state == "success"
    (copied,) = run.returned("replicate_backup")
    assert copied["ok"]
    assert copied["behind_entries"] == 0
    (verified,) = run.returned("verify_replica")
    assert (verified["level"], verified["ok"], verified["checked_snapshots"]) == (
        "share",
        True,
        len(COMPONENTS),
    )
    state = ask(replica_state)
    assert (state.ok, state.connection, state.sequence) == (True, "fastvlm_s3_replica", copied["sequence"])
    assert (
        metric(database.parent, "replica_last_success_timestamp_seconds") == state.complete_until.timestamp()
    )
    assert metric(database.parent, "replica_lag_entries") == 0

    ask(require_rows)
    (kit.folder / "uploads" / "second.txt").write_bytes(b"second")
    run_dag("backup_incremental")
    assert metric(database.parent, "replica_lag_entries") == len(COMPONENTS) + 1
    assert metric(database.parent, "replica_lag_seconds") > 0

    again = run_dag("backup_replicate")
    assert again.returned("replicate_backup")[0]["entries"] == len(COMPONENTS) + 1
    assert metric(database.parent, "replica_lag_entries") == 0

    set_connection(
        monkeypatch, {**connection, "extra": {**connection["extra"], "endpoint_url": "http://127.0.0.1:1"}}
    )
    before = log_of(s3_client, second_place)
    form = {"source": "fastvlm_s3_replica", "target": "drill", "dry_run": False}
    restored = run_dag("restore_backup", form)
    assert restored.state == "success"
    assert (kit.restores / "drill" / "uploads" / "second.txt").read_bytes() == b"second"
    assert restored.returned("record_backup") == [{"refreshed": False}]
    assert log_of(s3_client, second_place) == before, "the log there is the first place's"


def test_without_a_connection_it_says_what_to_do(
    run_dag: Any, kit: Kit, connection: dict[str, Any], published: None
) -> None:
    run = run_dag("backup_replicate")
    assert run.state == "failed"
    message = run.failures("prepare_replication")[0]["message"]
    assert "'fastvlm_s3_replica'" in message
    assert "create it with the type fastvlm_s3" in message
    assert "nothing is known to have been copied" in run.failures("confirm_replication")[0]["message"]


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that has the definitions lock what is stored, in the first place and in the second."""
    include = write_little(tmp_path)
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(include))

    def configure() -> None:
        with (include / "components.yaml").open("a") as file:
            file.write("object_lock: {mode: governance, days: 20}\nreplica: {mirror_removals: true}\n")

    return configure


def test_locks_of_the_second_place_are_renewed_and_it_is_red_where_they_cannot_be(
    run_dag: Any,
    published: None,
    connection: dict[str, Any],
    second_place: dict[str, Any],
    s3_client: Any,
    lock: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = f"locked-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    place = {**second_place, "extra": {**second_place["extra"], "bucket": bucket}}
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_S3_REPLICA", json.dumps(place))
    run = run_dag("backup_replicate")
    assert run.state == "success"
    assert run.returned("renew_replica_locks")[0]["configured"] is False
    lock()
    again = run_dag("backup_replicate")
    assert again.state == "success"
    (renewed,) = again.returned("renew_replica_locks")
    assert renewed["renewed"] == renewed["objects"] > 3
    keys = log_of(s3_client, place)
    assert all("ObjectLockMode" in s3_client.head_object(Bucket=bucket, Key=key) for key in keys)

    set_connection(monkeypatch, {**connection, "password": "wrong"})
    alone = run_dag("backup_replicate")
    assert alone.state == "failed"
    assert alone.returned("renew_replica_locks")[0]["long_enough"] == renewed["objects"]
    set_connection(monkeypatch, connection)

    wrong = {**place, "extra": {**place["extra"], "bucket": second_place["extra"]["bucket"]}}
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_S3_REPLICA", json.dumps(wrong))  # which takes no locks
    red = run_dag("backup_replicate")
    assert red.state == "failed"
    assert red.tasks["renew_replica_locks"] == ["failed"], "it was tried, though nothing was copied"
    message = red.failures("confirm_replication")[0]["message"]
    assert message.startswith("nothing is known to have been copied")
    assert "\nlocks were not renewed" in message


def test_damage_in_the_first_place_is_red_and_the_rest_is_copied(
    run_dag: Any, published: None, second_place: dict[str, Any], s3_client: Any, bucket: str, ask: Any
) -> None:
    from fastvlm_ops.core.backup.replica_state import replica_state

    pack = s3_client.list_objects_v2(Bucket=bucket, Prefix="kit/packs/")["Contents"][0]
    s3_client.put_object(Bucket=bucket, Key=pack["Key"], Body=bytes(pack["Size"]))
    run = run_dag("backup_replicate")
    assert run.state == "failed"
    assert run.tasks["replicate_backup"] == ["success"]
    message = run.failures("confirm_replication")[0]["message"]
    assert pack["Key"].removeprefix("kit/") in message
    assert "does not have the bytes" in message
    assert run.tasks["record_backup"] == ["success"]
    state = ask(replica_state)
    assert (state.ok, state.complete_until) == (False, None)
    assert state.behind_entries > 0
