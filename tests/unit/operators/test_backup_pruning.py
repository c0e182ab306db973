"""The operators that prune: who has to be asked, what stops them, and that nothing happens twice."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.backup.prunings import Pruning, newest_prunings
from fastvlm_ops.core.store import Store, open_store
from fastvlm_ops.operators import backup
from fastvlm_ops.operators.backup.pruning import request_text
from tests.airflow_kit import Kit, keep_little, publish, repository_behind, set_connection
from tests.unit.operators.support import Context, failure

MOMENT = datetime(2026, 1, 12, 5, tzinfo=UTC)
GOOD = {"ok": True, "level": "listing", "text": "verify listing: ok", "backups": []}
BAD = {"ok": False, "level": "listing", "text": "verify listing: DAMAGED\nmore", "backups": ["full-2"]}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The operations database that the settings name."""
    path = tmp_path / "operations.db"
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__DATABASE_PATH", str(path))
    with open_store(f"sqlite:///{path}", migrate_first=True) as opened:
        yield opened


@pytest.fixture
def repository(kit: Kit, connection: dict[str, Any], store: Store) -> Any:
    """Three backups of a model, each of other bytes."""
    opened = repository_behind(connection)
    for number in range(3):
        weights = kit.folder / "models" / "fastvlm_0.5b.mlpackage" / "Data" / "weights.bin"
        weights.write_bytes(bytes([number]) * 50_000 + weights.read_bytes()[50_000:])
        publish(opened, kit, number, ["models"])
    return opened


def context(run_type: str = "scheduled", **pulled: Any) -> Context:
    return Context(run_type=run_type, moment=MOMENT, **pulled)


def plan(verification: Any = GOOD, run_type: str = "scheduled", **arguments: Any) -> dict[str, Any]:
    """Plan; what it returns is small JSON."""
    operator = backup.PlanPruningOperator(task_id="plan", verification=verification, **arguments)
    planned: dict[str, Any] = json.loads(json.dumps(operator.execute(context(run_type))))
    return planned


def carry_out(planned: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Forget and collect."""
    forgotten = backup.ForgetBackupsOperator(task_id="forget", plan=planned).execute(context())
    operator = backup.CollectGarbageOperator(task_id="collect", plan=planned, forgotten=forgotten)
    return forgotten, json.loads(json.dumps(operator.execute(context())))


def verdict(
    planned: dict[str, Any] | None, forgotten: Any = None, collected: Any = None, verification: Any = GOOD
) -> backup.ConfirmMaintenanceOperator:
    return backup.ConfirmMaintenanceOperator(
        task_id="confirm",
        verification=verification,
        plan=planned,
        renewed={"done": True, "configured": False, "until": None},
        forgotten=forgotten,
        collected=collected,
        approval_task_id="approve",
    )


def recorded(store: Store) -> Pruning:
    (found,) = newest_prunings(store)
    return found


def test_a_scheduled_run_removes_what_is_not_kept_asks_nobody_and_does_nothing_twice(
    repository: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_little(tmp_path, monkeypatch, enabled=True)
    planned = plan()
    assert (planned["status"], planned["apply"], planned["ask"]) == ("waiting", True, False)
    assert planned["set_ids"] == ["full-1", "full-0"]
    row = recorded(store)
    assert (row.status, row.dry_run, row.forgotten_sets, row.deleted_objects) == ("waiting", False, 2, None)
    assert [(one["set_id"], one["kept"]) for one in row.plan["sets"]] == [
        ("full-2", True),
        ("full-1", False),
        ("full-0", False),
    ]
    assert sum(row.plan["bytes"].values()) == row.total_bytes
    packs = {info.name for info in repository.storage.list("packs/")}

    forgotten, collected = carry_out(planned)
    assert forgotten["set_ids"] == ["full-1", "full-0"]
    left = {info.name for info in repository.storage.list("packs/")}
    assert len(packs - left) == planned["collection"]["packs"] > 0
    sequence = repository.refresh().seq
    again = carry_out(planned)
    assert again[0] == {**forgotten, "reused": True}
    assert (again[1]["deleted_objects"], again[1]["reused"]) == (collected["deleted_objects"], True)
    assert repository.refresh().seq == sequence
    assert {info.name for info in repository.storage.list("packs/")} == left

    for _ in range(2):
        assert verdict(planned, *again).execute(context())["status"] == "done"
    done = recorded(store)
    assert (done.status, done.deleted_objects) == ("done", collected["deleted_objects"])
    assert list(repository.refresh().sets) == ["full-2"]
    verify = backup.VerifyRepositoryOperator(task_id="verify", level="full")
    assert verify.execute(context())["ok"], "what is kept is whole"
    plan()  # the run is cleared, and begins anew
    assert recorded(store) == done


def test_a_run_of_the_schedule_only_plans_until_the_file_says_otherwise(
    repository: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_little(tmp_path, monkeypatch, enabled=False)
    sequence = repository.refresh().seq
    planned = plan(dry_run=False)  # which is the form's, and no person filled it in
    assert (planned["status"], planned["dry_run"], planned["set_ids"]) == (
        "planned",
        True,
        ["full-1", "full-0"],
    )
    assert carry_out(planned) == ({"done": False}, {"done": False})
    assert verdict(planned, {"done": False}, {"done": False}).execute(context())["status"] == "planned"
    assert (recorded(store).status, recorded(store).deleted_objects) == ("planned", None)
    assert repository.refresh().seq == sequence


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_person_is_asked_unless_it_is_a_dry_run(
    dry_run: bool, repository: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_little(tmp_path, monkeypatch, enabled=True)
    planned = plan(run_type="manual", dry_run=dry_run)
    assert (planned["apply"], planned["ask"]) == (not dry_run, not dry_run)
    operator = backup.ApprovePruningOperator(task_id="approve", plan=planned)
    assert operator.is_needed() is not dry_run
    text = operator.describe()
    assert "2 backups and 2 snapshots to forget" in text
    assert "- `full-1`\n- `full-0`" in text
    assert "1 backups stay" in text


def test_only_what_was_approved_is_forgotten(
    repository: Any, kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_little(tmp_path, monkeypatch, enabled=True)
    planned = plan()
    publish(repository, kit, 3, ["models"])  # while somebody thought about it: full-2 is not the newest now
    forgotten, _ = carry_out(planned)
    assert forgotten["set_ids"] == ["full-1", "full-0"]
    assert list(repository.refresh().sets) == ["full-2", "full-3"]


@pytest.mark.parametrize(
    ("verification", "reason"),
    [
        (None, "this run has verified nothing"),
        ({**GOOD, "level": "log"}, "the level log looks at no pack"),
        (BAD, "damage was found: verify listing: DAMAGED"),
    ],
)
def test_nothing_is_removed_unless_this_run_has_found_all_to_be_well(
    verification: Any,
    reason: str,
    repository: Any,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep_little(tmp_path, monkeypatch, enabled=True)
    sequence = repository.refresh().seq
    planned = plan(verification)
    assert (planned["status"], planned["apply"]) == ("refused", False)
    assert planned["reason"].startswith(reason)
    assert carry_out(planned) == ({"done": False}, {"done": False})
    assert repository.refresh().seq == sequence
    if verification is not None and verification["ok"]:
        assert "nothing was removed: the level log" in failure(verdict(planned, verification=verification))
    else:
        failure(verdict(planned, verification=verification))
    assert recorded(store).status == "refused"


def test_damage_that_was_found_earlier_stops_it_until_a_person_decides(
    repository: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastvlm_ops.core.backup.journal import record_verified
    from tests.integration.backup.test_catalogue import outcome

    keep_little(tmp_path, monkeypatch, enabled=True)
    (damaged, *_) = repository.refresh().snapshots
    record_verified(repository, outcome("share", [damaged], (3, 8)), [damaged], run_key="earlier")
    planned = plan(despite_damage=True)
    assert planned["status"] == "refused", "no person has started it"
    assert f"an earlier verification found {damaged} damaged" in planned["reason"]
    planned = plan(run_type="manual", dry_run=False, despite_damage=True)
    assert (planned["status"], planned["ask"]) == ("waiting", True)
    assert f"**Despite damage:** an earlier verification found {damaged}" in request_text(planned)


def test_more_than_the_share_is_refused_which_is_only_an_answer_in_a_dry_run(
    repository: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_little(tmp_path, monkeypatch, enabled=True, max_share=0.5)
    planned = plan(run_type="manual")
    assert planned["status"] == "refused"
    assert "2 of 3 backup sets would be forgotten" in planned["reason"]
    nothing = ({"done": False}, {"done": False})
    assert verdict(planned, *nothing).execute(context())["status"] == "refused"
    message = failure(verdict(plan(), *nothing))
    assert message.startswith("nothing was removed: 2 of 3 backup sets would be forgotten")
    assert recorded(store).reason in message


def test_a_rejection_and_a_task_that_failed_are_said_and_recorded(
    repository: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_little(tmp_path, monkeypatch, enabled=True)
    planned = plan(run_type="manual", dry_run=False)
    decision = {"needed": True, "approved": False, "timed_out": False, "by": "Ada"}
    message = failure(verdict(planned), context(decision=decision))
    assert message == "nothing was removed: rejected by Ada: nothing was touched"
    assert (recorded(store).status, recorded(store).reason) == ("rejected", message.partition(": ")[2])
    assert "see the task that collects" in failure(verdict(planned, {"done": True}))
    assert recorded(store).status == "unfinished"
    assert recorded(store).deleted_objects is None, "which is not known"


def with_locks(folder: Path) -> Context:
    """Have the definitions of :func:`keep_little` lock what is stored; returns a context to run in."""
    with (folder / "include" / "components.yaml").open("a") as file:
        file.write("object_lock: {mode: governance, days: 20}\n")
    return context()


def test_locks_are_renewed_whatever_came_of_the_plan_and_nothing_is_asked_where_there_are_none(
    kit: Kit,
    connection: dict[str, Any],
    s3_client: Any,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = f"locked-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    there = {**connection, "extra": {**connection["extra"], "bucket": name}}
    set_connection(monkeypatch, there)
    keep_little(tmp_path, monkeypatch, enabled=True)
    publish(repository_behind(there), kit, 0, ["models"])
    renew = backup.RenewLocksOperator(task_id="renew", plan=None)
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_S3", "{}")
    nothing = json.loads(json.dumps(renew.execute(context())))
    assert (nothing["done"], nothing["configured"], nothing["objects"]) == (True, False, 0)
    set_connection(monkeypatch, there)

    found = [json.loads(json.dumps(renew.execute(each))) for each in (with_locks(tmp_path), context())]
    assert all((one["done"], one["configured"]) == (True, True) for one in found)
    assert [one["renewed"] for one in found] == [found[0]["objects"], 0]
    assert found[1]["until"] == found[0]["until"] is not None
    (tmp_path / "include" / "components.yaml").write_text("object_lock: {mode: governance}\n")
    assert "components.yaml" in failure(renew, context()), "a broken file does not pass for one without locks"


def test_the_tasks_that_remove_have_a_connection_of_their_own_to_the_same_repository(
    repository: Any,
    connection: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep_little(tmp_path, monkeypatch, enabled=True)
    planned = plan()
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__PRUNING_CONN_ID", "fastvlm_s3_pruning")
    forget = backup.ForgetBackupsOperator(task_id="forget", plan=planned)
    assert "Connection 'fastvlm_s3_pruning': is not defined" in failure(forget, context())

    other = {**connection, "extra": {**connection["extra"], "prefix": "other"}}
    repository_behind(other)
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_S3_PRUNING", json.dumps(other))
    message = failure(backup.ForgetBackupsOperator(task_id="forget", plan=planned), context())
    assert "'fastvlm_s3_pruning' leads to repository" in message
    assert len(repository.refresh().sets) == 3
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_S3_PRUNING", json.dumps(connection))
    assert backup.ForgetBackupsOperator(task_id="forget", plan=planned).execute(context())["sets"] == 2
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_S3_PRUNING", json.dumps(other))
    message = failure(backup.RenewLocksOperator(task_id="renew", plan=planned), with_locks(tmp_path))
    assert "'fastvlm_s3_pruning' leads to repository" in message
