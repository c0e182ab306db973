"""backup_maintenance, run to its end against a real S3 server: what it removes, and what stops it."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.airflow_kit import Kit, keep_little, publish, repository_behind, set_connection

NOTHING = [{"done": False}]


@pytest.fixture
def repository(kit: Kit, connection: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two backups, of which the policy keeps the newest."""
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__DATABASE_PATH", str(tmp_path / "operations.db"))
    keep_little(tmp_path, monkeypatch, enabled=True)
    opened = repository_behind(connection)
    for number in range(2):
        (kit.folder / "configuration" / "service.yaml").write_text(f"port: {number}\n" * 20_000)
        publish(opened, kit, number)
    return opened


@pytest.fixture
def approved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has approved it: dag.test() would wait for that for ever."""
    from fastvlm_ops.operators.backup import ApprovePruningOperator

    monkeypatch.setattr(ApprovePruningOperator, "is_needed", lambda self: False)


def names(repository: Any) -> set[str]:
    """All objects but those of the log, which grows, and of probes."""
    spared = ("log/", "probe/")
    return {info.name for info in repository.storage.list("") if not info.name.startswith(spared)}


def test_by_hand_it_is_a_dry_run(repository: Any, run_dag: Any) -> None:
    before = names(repository)
    run = run_dag("backup_maintenance", {"level": "listing"})
    assert run.state == "success"
    (planned,) = run.returned("plan_pruning")
    assert (planned["status"], planned["set_ids"]) == ("planned", ["full-0"])
    assert run.returned("forget_backups") == run.returned("collect_garbage") == NOTHING
    assert run.returned("confirm_maintenance")[0]["status"] == "planned"
    assert run.returned("renew_locks")[0]["configured"] is False
    assert names(repository) == before
    assert list(repository.refresh().sets) == ["full-0", "full-1"]


def test_what_is_not_kept_goes_and_the_rest_can_be_restored(
    repository: Any, approved: None, run_dag: Any, kit: Kit
) -> None:
    from fastvlm_ops.core.backup import restore_snapshot

    before = names(repository)
    run = run_dag("backup_maintenance", {"level": "listing", "dry_run": False})
    assert run.state == "success"
    (collected,) = run.returned("collect_garbage")
    gone = before - names(repository)
    assert any(name.startswith("packs/") for name in gone)
    assert len(gone) == collected["deleted_objects"]
    (confirmed,) = run.returned("confirm_maintenance")
    assert (confirmed["status"], confirmed["collected"]) == ("done", collected)
    assert list(repository.refresh().sets) == ["full-1"]
    kept = repository.refresh().sets["full-1"]["snapshots"]["configuration"]
    restore_snapshot(repository, kept, kit.restores)
    assert (kit.restores / "service.yaml").read_text() == "port: 1\n" * 20_000


def test_damage_is_named_and_nothing_is_removed(
    repository: Any, approved: None, run_dag: Any, kit: Kit
) -> None:
    before = names(repository)
    (kit.folder / "configuration" / "service.yaml").write_text("port: 2\n" * 20_000)
    publish(repository, kit, 2)
    pack = next(name for name in names(repository) - before if name.startswith("packs/"))
    repository.storage.remove(pack)
    before = names(repository)
    run = run_dag("backup_maintenance", {"level": "listing", "dry_run": False})
    assert run.state == "failed"
    assert run.tasks["verify_repository"] == run.tasks["plan_pruning"] == ["success"]
    assert run.returned("forget_backups") == run.returned("collect_garbage") == NOTHING
    assert names(repository) == before
    (evidence,) = run.failures("confirm_maintenance")
    assert f"{pack}: " in evidence["message"]
    assert "backup full-2 is hit; the nearest intact one is full-1" in evidence["message"]
    assert "/backups/full-1?restore=" in evidence["message"]
    assert (evidence["backups"], evidence["nearest_intact_set"]) == (["full-2"], "full-1")
    assert list(repository.refresh().sets) == ["full-0", "full-1", "full-2"]


def test_what_is_lost_is_given_up_so_that_the_rest_can_be_removed(
    repository: Any, approved: None, run_dag: Any, kit: Kit, tmp_path: Path
) -> None:
    """A kept backup that cannot be read whole stops every collection, until somebody gives it up."""
    definitions = tmp_path / "include" / "components.yaml"
    definitions.write_text(definitions.read_text().replace("keep_last: 1", "keep_last: 3"))
    before = names(repository)
    for number in (2, 3):
        (kit.folder / "configuration" / "service.yaml").write_text(f"port: {number}\n" * 20_000)
        publish(repository, kit, number)
        if number == 2:
            pack = next(name for name in names(repository) - before if name.startswith("packs/"))
    repository.storage.remove(pack)
    lost = repository.refresh().sets["full-2"]["snapshots"]["configuration"]
    give_up = {"level": "listing", "dry_run": False, "despite_damage": True, "lost_snapshots": [lost]}

    run = run_dag("backup_maintenance", {**give_up, "lost_snapshots": []})
    assert run.state == "failed"
    assert f"snapshot {lost} cannot be read whole" in run.returned("plan_pruning")[0]["reason"]
    assert run_dag("backup_maintenance", {**give_up, "lost_snapshots": ["another"]}).tasks[
        "plan_pruning"
    ] == ["failed"]
    run = run_dag("backup_maintenance", {**give_up, "despite_damage": False})
    assert "damage was found" in run.returned("plan_pruning")[0]["reason"]
    assert list(repository.refresh().sets) == ["full-0", "full-1", "full-2", "full-3"]

    run = run_dag("backup_maintenance", give_up)
    (planned,) = run.returned("plan_pruning")
    assert (planned["status"], planned["lost"], planned["set_ids"]) == ("waiting", [lost], ["full-2"])
    assert run.returned("collect_garbage")[0]["deleted_objects"] > 0
    assert list(repository.refresh().sets) == ["full-0", "full-1", "full-3"]
    assert run_dag("backup_maintenance", {"level": "listing"}).state == "success"


def test_a_bucket_that_is_gone_leaves_all_red_and_unknown(
    repository: Any, run_dag: Any, connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.airflow_kit import set_connection

    set_connection(monkeypatch, {**connection, "password": "wrong"})
    run = run_dag("backup_maintenance", {"level": "listing"})
    assert run.state == "failed"
    assert run.tasks["verify_repository"] == run.tasks["plan_pruning"] == ["failed"]
    assert run.tasks["forget_backups"] == run.tasks["collect_garbage"] == ["upstream_failed"]
    assert run.tasks["renew_locks"] == ["success"], "there are no locks, so that nothing was asked for"
    assert "nothing was verified" in run.failures("confirm_maintenance")[0]["message"]


@pytest.fixture
def locked(
    kit: Kit, connection: dict[str, Any], s3_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A backup from before locks were configured, in a bucket that takes them; by now they are."""
    bucket = f"locked-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    connection["extra"]["bucket"] = bucket
    set_connection(monkeypatch, connection)
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__DATABASE_PATH", str(tmp_path / "operations.db"))
    keep_little(tmp_path, monkeypatch, enabled=True)
    opened = repository_behind(connection)
    publish(opened, kit, 0)
    with (tmp_path / "include" / "components.yaml").open("a") as file:
        file.write("object_lock: {mode: governance, days: 20}\n")
    return opened


def test_locks_are_renewed_also_when_damage_is_found_and_nothing_is_removed(
    locked: Any, run_dag: Any
) -> None:
    run = run_dag("backup_maintenance", {"level": "listing"})
    assert run.state == "success"
    (renewed,) = run.returned("renew_locks")
    assert renewed["renewed"] >= len(names(locked))
    assert run.returned("confirm_maintenance")[0]["locked_until"] == renewed["until"]

    pack = next(name for name in names(locked) if name.startswith("packs/"))
    locked.storage.delete(pack)  # which hides it
    damaged = run_dag("backup_maintenance", {"level": "listing"})
    assert damaged.state == "failed"
    assert damaged.failures("confirm_maintenance")[0]["error"] == "DamageFoundError"
    (again,) = damaged.returned("renew_locks")
    assert (again["renewed"], again["configured"]) == (0, True)


def test_locks_that_cannot_be_renewed_make_the_run_red(
    locked: Any, run_dag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__PRUNING_CONN_ID", "fastvlm_s3_pruning")  # there is none
    run = run_dag("backup_maintenance", {"level": "listing"})
    assert run.state == "failed"
    assert run.tasks["verify_repository"] == run.tasks["collect_garbage"] == ["success"]
    assert "'fastvlm_s3_pruning'" in run.failures("renew_locks")[0]["message"]
    (evidence,) = run.failures("confirm_maintenance")
    assert evidence["error"] == "LocksNotRenewedError"
    assert evidence["message"].startswith("locks were not renewed")
