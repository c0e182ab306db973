"""The second place: what is refused before anything is copied, the verdict, and the shares."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastvlm_ops.operators import backup
from fastvlm_ops.operators.backup.replicate import share_of_day
from tests.unit.operators.support import Context, failure

DONE = {
    "ok": True,
    "text": "replicate: ok",
    "sequence": 7,
    "complete_until": "2026-01-04",
    "behind_entries": 0,
}
INTACT = {"ok": True, "text": "verify share 1 of 8: ok"}


@pytest.mark.integration
def test_the_first_place_itself_is_refused(
    published: None,
    connection: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_S3_REPLICA", json.dumps(connection))
    message = failure(backup.PrepareReplicationOperator(task_id="prepare"))
    assert "is the place of the repository itself" in message


RENEWED = {"done": True, "configured": True}


def verdict(replication: Any, verification: Any, renewed: Any = RENEWED) -> backup.ConfirmReplicationOperator:
    return backup.ConfirmReplicationOperator(
        task_id="confirm", replication=replication, verification=verification, renewed=renewed
    )


@pytest.mark.parametrize(
    ("replication", "verification", "message"),
    [
        (None, None, "nothing is known to have been copied"),
        (None, INTACT, "nothing is known to have been copied"),
        (DONE, None, "the second place was not verified"),
        ({**DONE, "ok": False, "text": "packs/1: is damaged"}, INTACT, "packs/1: is damaged"),
        (DONE, {"ok": False, "text": "packs/2: is missing"}, "packs/2: is missing"),
    ],
    ids=["nothing", "not copied", "not verified", "damaged", "damaged there"],
)
@pytest.mark.parametrize("renewed", [RENEWED, None], ids=["renewed", "not renewed"])
def test_the_verdict_is_red_unless_all_is_known_and_well(
    replication: Any, verification: Any, message: str, renewed: Any
) -> None:
    context = Context()
    said = failure(verdict(replication, verification, renewed), context)
    assert said.startswith(message)
    assert ("\nlocks were not renewed" in said) is (renewed is None)
    assert context.pushed["failure"]["error"] == "ReplicaIncompleteError"
    assert context.pushed["failure"]["sequence"] == (replication or {}).get("sequence")


def test_the_verdict_is_red_when_locks_were_not_renewed() -> None:
    context = Context()
    assert failure(verdict(DONE, INTACT, None), context).startswith("locks were not renewed")
    assert context.pushed["failure"]["error"] == "LocksNotRenewedError"


def test_the_verdict_is_green_when_all_is_well() -> None:
    found = verdict(DONE, INTACT).execute(Context())
    assert found == {"sequence": 7, "complete_until": "2026-01-04", "behind_entries": 0}


def test_each_share_is_looked_at_once_in_as_many_days() -> None:
    first = datetime(2026, 12, 25, tzinfo=UTC)
    found = [share_of_day(first + timedelta(days=day), 14) for day in range(28)]
    assert {share for share, _ in found[:14]} == {share for share, _ in found[14:]} == set(range(14))
