"""The backup and restore DAGs, run to their end against a real S3 server."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.airflow_kit import COMPONENTS, Kit, set_connection

RUN_TIME = datetime(2026, 1, 4, 2, tzinfo=UTC)


def tree_of(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """Mode and contents of a folder and everything below it, by path."""
    return {
        str(path.relative_to(folder)): (
            stat.S_IMODE(path.lstat().st_mode),
            path.read_bytes() if path.is_file() else None,
        )
        for path in [folder, *folder.rglob("*")]
    }


def rows_of(database: Path) -> int:
    """Number of rows that the kit's database has."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT count(*) FROM request").fetchone()[0]


def keys_of(s3_client: Any, bucket: str, prefix: str = "") -> list[str]:
    """Keys of the repository's objects, without its prefix, that begin with ``prefix``."""
    listing = s3_client.list_objects_v2(Bucket=bucket, Prefix=f"kit/{prefix}")
    return [item["Key"].removeprefix("kit/") for item in listing.get("Contents", [])]


def test_full_then_incremental_then_restore(run_dag: Any, kit: Kit, connection: dict[str, Any]) -> None:
    full = run_dag("backup_full")
    assert full.state == "success"
    assert [result["component"] for result in full.returned("create_backup")] == COMPONENTS
    assert full.labels["create_backup"] == COMPONENTS
    (published,) = full.returned("publish_backup")
    assert published["kind"] == "full"
    assert published["new_bytes"] > 0

    (kit.folder / "uploads" / "second.txt").write_bytes(b"second")
    incremental = run_dag("backup_incremental")
    assert incremental.state == "success"
    (newest,) = incremental.returned("publish_backup")
    assert newest["kind"] == "incremental"
    assert 0 < newest["new_bytes"] < published["new_bytes"]

    planned = run_dag("restore_backup", {"target": "drill"})
    assert planned.state == "success"
    assert planned.returned("confirm_restore") == [
        {"dry_run": True, "components": COMPONENTS, "replaced_in": {}}
    ]
    assert not kit.restores.exists()

    restored = run_dag("restore_backup", {"target": "drill", "dry_run": False})
    assert restored.state == "success"
    assert restored.labels["restore_backup"] == COMPONENTS
    assert restored.xcoms["plan_restore"]["backup"][0]["set_id"] == newest["set_id"]
    for component in ("models", "configuration", "uploads"):
        assert tree_of(kit.restores / "drill" / component) == tree_of(kit.folder / component)
    assert rows_of(kit.restores / "drill" / "application_data" / "application.db") == 500

    older = {"backup_id": published["set_id"], "components": ["uploads"], "target": "older", "dry_run": False}
    assert run_dag("restore_backup", older).state == "success"
    assert os.listdir(kit.restores / "older") == ["uploads"]
    assert os.listdir(kit.restores / "older" / "uploads") == ["photo.jpg"]


def test_the_set_has_a_name_that_each_attempt_gives_it(
    run_dag: Any, kit: Kit, connection: dict[str, Any], s3_client: Any, bucket: str
) -> None:
    first = run_dag("backup_full", run_after=RUN_TIME, logical_date=RUN_TIME)
    (published,) = first.returned("publish_backup")
    assert published["set_id"].startswith("full-20260104T020000Z-")
    assert published["timestamp"] == "2026-01-04T02:00:00+00:00"
    kept = [key for key in keys_of(s3_client, bucket) if not key.startswith("probe/")]

    (kit.folder / "uploads" / "second.txt").write_bytes(b"second")
    again = run_dag("backup_full", run_after=RUN_TIME, logical_date=RUN_TIME)
    assert again.state == "success"
    assert all(result["reused"] for result in again.returned("create_backup"))
    assert again.returned("publish_backup") == [{**published, "reused": True}]
    assert [key for key in keys_of(s3_client, bucket) if not key.startswith("probe/")] == kept


def test_a_failed_component_leaves_no_set_and_a_red_run(
    run_dag: Any, kit: Kit, connection: dict[str, Any]
) -> None:
    database = kit.folder / "data" / "application.db"
    good = database.read_bytes()
    database.write_bytes(good[:4096] + b"\xff" * (len(good) - 4096))  # passes a look, fails quick_check

    run = run_dag("backup_full")
    assert run.state == "failed"
    assert run.tasks["create_backup"] == ["success", "success", "failed", "success"]
    (evidence,) = run.failures("create_backup")
    assert evidence["component"] == "application_data"
    assert evidence["error"] == "SourceError"
    assert str(database) in evidence["message"]
    (verdict,) = run.failures("publish_backup")
    assert verdict["published"] is False
    assert verdict["error"] == "IncompleteSetError"
    assert "no snapshot of application_data" in verdict["message"]

    restore = run_dag("restore_backup", {"target": "drill"})
    assert restore.state == "failed"
    assert "holds no published backup" in restore.failures("plan_restore")[0]["message"]
    assert "nothing could be planned" in restore.failures("confirm_restore")[0]["message"]


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"target": "a", "components": ["modles"]}, "has no component modles; it has models, configuration"),
        ({"target": "a", "backup_id": "full-1"}, "there is no backup 'full-1'; the newest are full-"),
        ({"target": "occupied"}, "/restores/occupied is not empty; choose a new folder name"),
        ({"target": "link"}, "target 'link' is not a folder below"),
        ({}, "the target is empty; name a folder below [fastvlm_ops] restore_dir, or turn In place on"),
        ({"target": "a", "in_place": True}, "leave the target 'a' empty"),
        ({"in_place": True}, "/kit/models is not empty; turn Overwrite on to replace what differs"),
        (
            {"target": "a", "backup_id": "2020-01-01"},
            "was published by 2020-01-01T00:00:00+00:00; the newest",
        ),
    ],
    ids=["component", "backup", "occupied", "link", "no target", "two targets", "in place", "time"],
)
def test_a_restore_that_cannot_be_says_why(
    conf: dict[str, Any], message: str, published: None, run_dag: Any, kit: Kit
) -> None:
    (kit.restores / "occupied").mkdir(parents=True)
    (kit.restores / "occupied" / "file").touch()
    (kit.restores / "link").symlink_to(kit.folder)
    run = run_dag("restore_backup", {**conf, "dry_run": False})
    assert run.state == "failed"
    assert message in run.failures("plan_restore")[0]["message"]
    assert not (kit.restores / "a").exists()


@pytest.mark.parametrize(
    "conf",
    [
        {"target": "../kit"},
        {"target": "/etc"},
        {"target": "a", "dry_run": 1},
        {"target": "a", "paths": [""]},
        {"target": "a", "approval_timeout_minutes": 0},
    ],
)
def test_the_form_refuses(conf: dict[str, Any], run_dag: Any, kit: Kit) -> None:
    from airflow.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        run_dag("restore_backup", conf)


def test_nothing_is_sent_when_a_source_is_missing(
    run_dag: Any, kit: Kit, connection: dict[str, Any], s3_client: Any, bucket: str
) -> None:
    (kit.folder / "data" / "application.db").unlink()
    run = run_dag("backup_full")
    assert run.state == "failed"
    assert run.tasks["prepare_repository"] == ["failed"]
    message = run.failures("prepare_repository")[0]["message"]
    assert "components.yaml: components[2].path (application_data): " in message
    assert message.endswith("data/application.db does not exist")
    assert keys_of(s3_client, bucket) == []


def test_each_dag_says_what_is_wrong_with_the_connection(
    run_dag: Any, kit: Kit, connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection(monkeypatch, {**connection, "password": "wrong"})
    run = run_dag("backup_incremental")
    assert run.state == "failed"
    assert "refuses the credentials" in run.failures("prepare_repository")[0]["message"]


def test_airflow_refuses_to_backfill_a_backup(run_dag: Any, kit: Kit) -> None:
    from airflow.cli.cli_parser import get_parser
    from airflow.exceptions import DagRunTypeNotAllowed

    run_dag("backup_full")  # fails, without a connection; but Airflow's database has the DAG now
    period = ["--from-date", "2026-01-01", "--to-date", "2026-02-01"]
    arguments = get_parser().parse_args(["backfill", "create", "--dag-id", "backup_full", *period])
    with pytest.raises(DagRunTypeNotAllowed, match="does not allow backfill runs"):
        arguments.func(arguments)


def test_a_change_of_the_configuration_is_published_by_itself(
    run_dag: Any, kit: Kit, connection: dict[str, Any]
) -> None:
    (full,) = run_dag("backup_full").returned("publish_backup")
    (unchanged,) = run_dag("backup_configuration").returned("back_up_changes")
    assert (unchanged["outcome"], unchanged["set_id"]) == ("unchanged", full["set_id"])

    (kit.folder / "configuration" / "service.yaml").write_text("port: 9000\n")
    (changed,) = run_dag("backup_configuration").returned("back_up_changes")
    assert (changed["outcome"], changed["kind"]) == ("published", "configuration")
    chosen = {}
    for backup_id in ("latest", "latest-configuration"):
        run = run_dag("restore_backup", {"backup_id": backup_id, "target": "any"})
        chosen[backup_id] = run.xcoms["plan_restore"]["backup"][0]["set_id"]
    assert chosen == {"latest": full["set_id"], "latest-configuration": changed["set_id"]}

    (planned,) = run_dag("backup_maintenance", {"level": "listing"}).returned("plan_pruning")
    assert (planned["kept"], planned["set_ids"], planned["status"]) == (2, [], "planned")


def test_a_full_backup_that_is_damaged_is_not_published(
    run_dag: Any, kit: Kit, connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastvlm_ops.core.backup import verify
    from fastvlm_ops.core.backup.errors import CorruptionError

    def damaged(*_: Any) -> None:
        raise CorruptionError("not what was backed up")

    monkeypatch.setattr(verify, "_restore_on_trial", damaged)
    run = run_dag("backup_full")
    assert run.state == "failed"
    assert run.tasks["create_backup"] == ["success"] * 4
    assert "not what was backed up" in run.failures("verify_backup")[0]["message"]
    (verdict,) = run.failures("publish_backup")
    assert (verdict["error"], verdict["published"]) == ("UnverifiedBackupError", False)
    restore = run_dag("restore_backup", {"target": "drill"})
    assert "holds no published backup" in restore.failures("plan_restore")[0]["message"]
