"""Restores over what is there: what is asked, what is refused, and where the replaced files go."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastvlm_ops.operators import backup
from fastvlm_ops.operators.approving import DECISION_KEY, decision_text
from fastvlm_ops.operators.backup.restore import request_text
from tests.airflow_kit import COMPONENTS, Kit
from tests.unit.operators.support import Context, create, failure, prepare


@pytest.fixture
def full(kit: Kit, connection: dict[str, Any]) -> None:
    """A published backup of all components."""
    prepare().execute(Context())
    for name in COMPONENTS:
        create(name).execute(Context())
    backup.PublishBackupOperator(task_id="p", components=COMPONENTS, kind="full").execute(Context())


def plan(**arguments: Any) -> backup.PlanRestoreOperator:
    return backup.PlanRestoreOperator(task_id="plan", backup_id="latest", dry_run=False, **arguments)


def restore(step: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
    operator = backup.RestoreBackupOperator(task_id="restore", dry_run=dry_run, **step)
    return operator.execute(Context())


def test_a_new_folder_needs_no_approval(full: None, kit: Kit) -> None:
    context = Context()
    steps = plan(target="new", overwrite=True).execute(context)
    assert context.pushed["request"]["needed"] is False
    assert {(step["overwrite"], step["keep_replaced"]) for step in steps} == {(False, None)}


def test_a_folder_that_is_not_empty_needs_approval(full: None, kit: Kit) -> None:
    (kit.restores / "drill" / "uploads").mkdir(parents=True)
    (kit.restores / "drill" / "uploads" / "photo.jpg").write_text("other")
    assert "is not empty; choose a new folder name, or turn Overwrite on" in failure(plan(target="drill"))
    context = Context()
    steps = {step["component"]: step for step in plan(target="drill", overwrite=True).execute(context)}
    request = context.pushed["request"]
    assert request["needed"] is True
    assert [step["replaced_files"] for step in request["steps"]] == [0, 0, 0, 1]
    assert [step["overwrite"] for step in steps.values()] == [False, False, False, True]
    result = restore(steps["uploads"])
    kept = Path(result["replaced_in"])
    assert kept.parent.parent == kit.restores
    assert kept.parent.name.startswith("replaced-20260104T020000Z-")
    assert (kept / "photo.jpg").read_text() == "other"


def test_in_place_needs_approval_also_where_nothing_is_left(full: None, kit: Kit) -> None:
    (kit.folder / "uploads").rename(kit.folder / "gone")
    context = Context()
    (step,) = plan(in_place=True, components=["uploads"]).execute(context)
    assert context.pushed["request"]["needed"] is True
    assert step["target"] == str(kit.folder / "uploads")
    restore(step)
    assert (kit.folder / "uploads" / "photo.jpg").read_bytes() == (
        kit.folder / "gone" / "photo.jpg"
    ).read_bytes()


def test_a_dry_run_asks_nobody_and_says_what_it_would_replace(full: None, kit: Kit) -> None:
    (kit.folder / "uploads" / "photo.jpg").write_text("other")
    context = Context()
    operator = backup.PlanRestoreOperator(
        task_id="plan", backup_id="latest", in_place=True, overwrite=True, components=["uploads"]
    )
    (step,) = operator.execute(context)
    assert context.pushed["request"]["needed"] is False
    assert restore(step, dry_run=True)["replaced_files"] == 1
    assert (kit.folder / "uploads" / "photo.jpg").read_text() == "other"


def test_a_database_in_use_is_left_alone(full: None, kit: Kit) -> None:
    path = kit.folder / "data" / "application.db"
    arguments = {"in_place": True, "overwrite": True, "components": ["application_data"]}
    with closing(sqlite3.connect(path)) as service:
        service.execute("PRAGMA journal_mode=wal")
        service.execute("INSERT INTO request (text) VALUES ('newer')")
        service.commit()
        assert f"{path}-wal exists, so the database is in use" in failure(plan(**arguments))
    (step,) = plan(**arguments).execute(Context())
    with closing(sqlite3.connect(path)) as service:  # started again while somebody thought about it
        service.execute("INSERT INTO request (text) VALUES ('newest')")
        service.commit()
        operator = backup.RestoreBackupOperator(task_id="restore", dry_run=False, **step)
        assert "Stop the service" in failure(operator)
    result = restore(step)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM request").fetchone() == (500,)
    assert result["replaced_files"] == 1
    assert (Path(result["replaced_in"]) / "application.db").is_file()
    assert Path(result["replaced_in"]).parent.parent == kit.folder


def test_a_link_in_place_of_the_folder_is_followed(full: None, kit: Kit) -> None:
    (kit.folder / "uploads").rename(kit.folder / "volume")
    (kit.folder / "uploads").symlink_to("volume")
    (kit.folder / "volume" / "photo.jpg").write_text("other")
    (step,) = plan(in_place=True, overwrite=True, components=["uploads"]).execute(Context())
    assert step["target"] == str(kit.folder / "volume")
    restore(step)
    assert (kit.folder / "volume" / "photo.jpg").read_bytes().startswith(b"\xff\xd8")
    assert (kit.folder / "uploads").is_symlink()


def test_paths_are_handed_on(full: None, kit: Kit) -> None:
    (step,) = plan(target="part", components=["configuration"], paths=["regions"]).execute(Context())
    restore(step)
    found = [path.name for path in (kit.restores / "part" / "configuration").rglob("*") if path.is_file()]
    assert found == ["eu.yaml"]


def test_the_question_shows_what_would_be_replaced() -> None:
    counts = {"files": 12, "size_bytes": 2048, "kept_files": 9, "replaced_files": 3}
    request = {"backup": "full-1", "steps": [{"component": "uploads", "target": "/srv/uploads", **counts}]}
    text = request_text(request)
    assert "Backup `full-1`" in text
    assert "| uploads | `/srv/uploads` | 12 | 2.0 KiB | 9 | **3** |" in text


def approve() -> backup.ApproveRestoreOperator:
    return backup.ApproveRestoreOperator(task_id="approve", request={"needed": False}, timeout_minutes=5)


def test_the_answer_by_default_is_no() -> None:
    assert approve().defaults == ["Reject"]
    assert approve().execute(Context()) == {
        "needed": False,
        "approved": False,
        "timed_out": False,
        "by": None,
    }


def answer(option: str, name: str | None, *, timed_out: bool = False) -> dict[str, Any]:
    user = {"id": name, "name": name} if name else None
    return {
        "chosen_options": [option],
        "params_input": {},
        "responded_at": datetime(2026, 1, 4, tzinfo=UTC),
        "responded_by_user": user,
        "timedout": timed_out,
    }


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (answer("Reject", "ann"), "rejected by ann: nothing was touched"),
        (answer("Reject", None, timed_out=True), "nobody answered in time, which rejects it"),
    ],
)
def test_a_rejection_skips_the_restore_and_is_said_in_the_verdict(
    event: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, context, skipped = approve(), Context(), []
    behind = SimpleNamespace(task_id="restore", is_teardown=False)
    operator.downstream_task_ids = {"restore"}
    monkeypatch.setattr(operator, "skip", lambda ti, tasks: skipped.extend(task.task_id for task in tasks))
    context["task"] = SimpleNamespace(get_direct_relatives=lambda upstream: [behind])
    operator.execute_complete(context, event)
    assert skipped == ["restore"]
    decision = context.pushed[DECISION_KEY]
    assert decision["approved"] is False
    assert text in decision_text(decision)
    verdict = backup.ConfirmRestoreOperator(
        task_id="t", steps=[{"component": "a"}], results=None, dry_run=False, approval_task_id="approve"
    )
    assert failure(verdict, Context(decision=decision)).startswith(f"not restored: a; {text}")


def test_an_approval_goes_on() -> None:
    decision = approve().execute_complete(Context(), answer("Approve", "ann"))
    assert decision == {"needed": True, "approved": True, "timed_out": False, "by": "ann"}
    assert decision_text(decision) == "approved by ann"
