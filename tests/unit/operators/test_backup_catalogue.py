"""What tasks leave in the log of the repository, and when a backup is overdue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops import settings
from fastvlm_ops.core.backup.catalogue import Catalogue
from fastvlm_ops.core.store import Store, open_store
from fastvlm_ops.core.store.outbox import Message, backlog, claim
from fastvlm_ops.hooks.s3 import BackupRepositoryHook
from fastvlm_ops.operators import backup
from fastvlm_ops.operators.backup.catalogue import OVERDUE_TOPIC
from tests.airflow_kit import COMPONENTS, Kit, set_connection
from tests.fault_proxy import FaultProxy, access_denied, on
from tests.unit.operators.support import Context, create, failure, prepare


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The operations database that the settings name."""
    path = tmp_path / "operations.db"
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__DATABASE_PATH", str(path))
    with open_store(f"sqlite:///{path}", migrate_first=True) as opened:
        yield opened


@pytest.fixture
def full(kit: Kit, connection: dict[str, Any]) -> list[str]:
    """A published backup of all components; ids of its snapshots."""
    prepare().execute(Context())
    made = [create(name).execute(Context())["snapshot_id"] for name in COMPONENTS]
    backup.PublishBackupOperator(task_id="p", components=COMPONENTS, kind="full").execute(Context())
    return made


def record() -> dict[str, Any]:
    return backup.RecordBackupOperator(task_id="record_backup").execute(Context())


def check() -> backup.CheckBackupAgeOperator:
    return backup.CheckBackupAgeOperator(task_id="check_backup_age")


def checks_in_log() -> dict[str, dict[str, dict[str, Any]]]:
    """What the log of the repository has of each snapshot."""
    return BackupRepositoryHook().open_repository().refresh().checks


def test_each_verification_and_restore_is_in_the_log_once(full: list[str], kit: Kit) -> None:
    verify = backup.VerifyBackupOperator(task_id="v", components=COMPONENTS)
    for _ in range(2):  # as a retried task does
        verify.execute(Context())
    found = checks_in_log()
    assert found.keys() == set(full)
    assert {kinds["verified"]["level"] for kinds in found.values()} == {"members"}
    sequence = BackupRepositoryHook().open_repository().refresh().seq

    steps = backup.PlanRestoreOperator(task_id="p", backup_id="latest", target="new").execute(Context())
    for _ in range(2):
        for step in steps:
            backup.RestoreBackupOperator(task_id="r", **step, dry_run=True).execute(Context())
    assert BackupRepositoryHook().open_repository().refresh().seq == sequence, "a dry run leaves nothing"
    uploads = next(step for step in steps if step["component"] == "uploads")
    for _ in range(2):
        backup.RestoreBackupOperator(
            task_id="r",
            **{**uploads, "overwrite": True, "keep_replaced": str(kit.restores / "kept")},
            dry_run=False,
        ).execute(Context())
    state = BackupRepositoryHook().open_repository().refresh()
    assert state.seq == sequence + 1
    about = state.checks[full[3]]["restored"]
    assert (about["where"], about["files"], about["bytes"]) == ("new folder", 1, 5002)

    maintenance = backup.VerifyRepositoryOperator(task_id="m", level="share", shares=2)
    for _ in range(2):
        assert maintenance.execute(Context(run_id="maintenance"))["ok"]
    state = BackupRepositoryHook().open_repository().refresh()
    assert state.seq == sequence + 2
    assert {kinds["verified"]["level"] for kinds in state.checks.values()} == {"share"}


def test_a_restore_in_place_says_so(full: list[str], kit: Kit) -> None:
    (kit.folder / "uploads").rename(kit.folder / "gone")
    plan = backup.PlanRestoreOperator(
        task_id="p", backup_id="latest", in_place=True, components=["uploads"], dry_run=False
    )
    (step,) = plan.execute(Context())
    assert step["set_id"].startswith("full-20260104T020000Z-")
    backup.RestoreBackupOperator(task_id="r", **step, dry_run=False).execute(Context())
    assert checks_in_log()[full[3]]["restored"]["where"] == "in place"


def test_a_restore_that_may_not_write_the_log_succeeds_with_a_warning(
    full: list[str],
    kit: Kit,
    connection: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (step,) = backup.PlanRestoreOperator(
        task_id="p", backup_id="latest", target="new", components=["uploads"]
    ).execute(Context())
    before = BackupRepositoryHook().open_repository().refresh().seq
    with FaultProxy(connection["extra"]["endpoint_url"], "kit/") as proxy:
        extra = {**connection["extra"], "endpoint_url": proxy.endpoint_url}
        set_connection(monkeypatch, {**connection, "extra": extra})
        with proxy.faults(on("Put", access_denied)):
            result = backup.RestoreBackupOperator(task_id="r", **step, dry_run=False).execute(Context())
    assert result["files"] == 1
    assert (kit.restores / "new" / "uploads" / "photo.jpg").is_file()
    warned = "uploads was restored, but the log of the repository does not say so: "
    assert warned in (out := capsys.readouterr().out)
    assert "s3:PutObject is denied" in out.partition(warned)[2]
    set_connection(monkeypatch, connection)
    assert BackupRepositoryHook().open_repository().refresh().seq == before


def test_metrics_are_written_where_the_setting_says(
    full: list[str],
    kit: Kit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert record()["metrics"] is None
    assert "[fastvlm_ops] metrics_dir is not set" in capsys.readouterr().out
    folder = tmp_path / "metrics"
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__METRICS_DIR", str(folder))
    with pytest.raises(Exception, match=r"metrics_dir is .*, which is not a folder"):
        record()
    folder.mkdir()
    recorded = record()
    json.dumps(recorded)
    text = Path(recorded["metrics"]).read_text()
    for component in COMPONENTS:
        assert f'fastvlm_backup_age_objective_seconds{{component="{component}"}} 93600.0' in text
        assert f'fastvlm_backup_last_success_timestamp_seconds{{component="{component}"}}' in text

    include = tmp_path / "include"  # as on a new machine that only restores
    include.mkdir()
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(include))
    text = Path(record()["metrics"]).read_text()
    assert "fastvlm_backup_age_objective_seconds{" not in text
    assert 'fastvlm_backup_last_success_timestamp_seconds{component="models"}' in text
    assert str(include / "components.yaml") in capsys.readouterr().out


def test_nothing_known_is_no_backup(kit: Kit, store: Store) -> None:
    assert "the catalogue of backups was never filled" in failure(check())
    with store.write() as connection:
        assert backlog(connection, OVERDUE_TOPIC).waiting == 0


def test_a_database_that_cannot_be_read_fails(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__DATABASE_PATH", "/nowhere/operations.db")
    with pytest.raises(Exception, match="/nowhere"):
        check().execute(Context())


def test_a_young_backup_of_each_component_is_well(full: list[str], kit: Kit) -> None:
    record()
    assert check().execute(Context()) == {"ages_hours": dict.fromkeys(COMPONENTS, 0.0)}


def test_what_is_overdue_is_named_and_announced_once(
    full: list[str], kit: Kit, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    include = tmp_path / "include"
    include.mkdir()
    shipped = (settings.include_dir() / "components.yaml").read_text()
    # 0.00001 h: what was backed up a moment ago is too old.
    short = shipped.replace("path: uploads\n", "path: uploads\n    newest_backup_max_age_hours: 0.00001\n")
    new = "  - {name: logs, kind: files, path: logs}\n\n# Which backups"
    (include / "components.yaml").write_text(short.replace("\n# Which backups", new, 1))
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(include))
    record()
    for _ in range(2):
        context = Context()
        message = failure(check(), context)
        assert message.startswith("backup overdue: uploads, logs\n")
        assert f"uploads: 0.0 h old (at most 0.0 h): {full[3]} of 20" in message
        assert "logs: no intact backup is published (at most 26.0 h)" in message
        assert "trigger it" in message
        assert context.pushed["failure"]["overdue"] == ["uploads", "logs"]
    messages = messages_of(store)
    assert [found.dedup_key for found in messages] == [
        f"backup_overdue/uploads/{full[3]}",
        "backup_overdue/logs/none",
    ]
    assert messages[1].payload["text"].startswith("backup overdue: logs\n")

    newer = create("uploads").work(Context(run_id="later"))["snapshot_id"]
    backup.PublishBackupOperator(task_id="p", components=["uploads"], kind="full").execute(
        Context(run_id="later", moment=datetime(2026, 1, 5, tzinfo=UTC))
    )
    record()
    failure(check())
    assert [found.dedup_key for found in messages_of(store)] == [f"backup_overdue/uploads/{newer}"]
    assert len(Catalogue(store).sets()) == 2


def messages_of(store: Store) -> list[Message]:
    """Messages that nobody has claimed yet."""
    return claim(store, OVERDUE_TOPIC, limit=10, visibility=timedelta(hours=1))
