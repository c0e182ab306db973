"""The capacity operators without a scheduler: approval, verdicts, and the alarm."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from fastvlm_ops.core.store import open_store
from fastvlm_ops.core.store.tables.capacity import scores
from fastvlm_ops.core.store.tables.shared import messages
from fastvlm_ops.core.store.upsert import upsert
from fastvlm_ops.operators.capacity import (
    ApproveScaleDownOperator,
    CapacityInputError,
    CheckForecastDriftOperator,
    ConfirmForecastOperator,
    as_of_hour,
)
from fastvlm_ops.operators.capacity.advice import request_text
from tests.airflow_home import ROOT
from tests.unit.operators.support import Context, failure

DOWN = {"service": "api", "replicas_now": 4, "replicas_wanted": 2, "reason": "All low"}
RECOMMENDED = {"as_of": "2026-01-04T00:00:00+00:00", "actions": {"scale_down": 60}, "scale_down": [DOWN]}
PUBLISHED = {"uri": "s3://b/part.parquet", "as_of": "2026-01-04T00:00:00+00:00", "services": 2, "series": 6}
NOW = datetime(2026, 2, 1, tzinfo=UTC)


def approve(recommended: Any, dry_run: bool) -> ApproveScaleDownOperator:
    return ApproveScaleDownOperator(task_id="approve", recommended=recommended, dry_run=dry_run)


@pytest.mark.parametrize(
    ("recommended", "dry_run"), [(RECOMMENDED, True), ({**RECOMMENDED, "scale_down": []}, False)]
)
def test_nobody_is_asked_without_need(recommended: Any, dry_run: bool) -> None:
    answer = approve(recommended, dry_run).execute(Context())
    assert (answer["needed"], answer["approved"]) == (False, False)


def test_the_question_names_each_service_and_how_many_more() -> None:
    text = request_text(RECOMMENDED)
    assert "| api | 4 | **2** | All low |" in text
    assert "and 59 more" in text


@pytest.mark.parametrize(
    ("event", "approved", "by"),
    [
        ({"chosen_options": ["Approve"], "responded_by_user": {"id": "1", "name": "Ada"}}, True, "Ada"),
        ({"chosen_options": ["Reject"], "responded_by_user": {"id": "1", "name": "Ada"}}, False, "Ada"),
        ({"chosen_options": ["Reject"], "responded_by_user": None, "timedout": True}, False, None),
    ],
)
def test_an_answer_is_taken_and_skips_nothing(event: dict[str, Any], approved: bool, by: str | None) -> None:
    moment = datetime(2026, 1, 4, tzinfo=UTC)
    event = {"params_input": {}, "responded_at": moment, "timedout": False, **event}
    answer = approve(RECOMMENDED, False).execute_complete(Context(), event)
    assert (answer["needed"], answer["approved"], answer["by"]) == (True, approved, by)


@pytest.mark.parametrize(
    ("published", "report", "said"),
    [
        (None, None, "no forecast was published"),
        ({**PUBLISHED, "statuses": {"ok": 6}}, None, "without recommendations or without a report"),
        ({**PUBLISHED, "services": 0, "statuses": {}}, {"actions": {}}, "no query of capacity.yaml gave"),
        ({**PUBLISHED, "statuses": {"ok": 5, "failed": 1}}, {"actions": {}}, "1 of 6 series could not"),
    ],
)
def test_the_verdict_fails_unless_everything_is_known(published: Any, report: Any, said: str) -> None:
    operator = ConfirmForecastOperator(task_id="confirm", published=published, report=report)
    assert said in failure(operator)


def test_the_verdict_of_a_good_run() -> None:
    operator = ConfirmForecastOperator(
        task_id="confirm", published={**PUBLISHED, "statuses": {"ok": 6}}, report={"actions": {"none": 2}}
    )
    assert operator.execute(Context())["actions"] == {"none": 2}


def test_the_hour_of_a_run() -> None:
    context = Context(moment=datetime(2026, 1, 4, 2, 59, tzinfo=UTC))
    assert as_of_hour(context) == datetime(2026, 1, 4, 2, tzinfo=UTC)
    context["params"]["as_of"] = "2026-01-05T03:30:00+02:00"
    assert as_of_hour(context) == datetime(2026, 1, 5, 1, tzinfo=UTC)
    context["params"]["as_of"] = "yesterday"
    with pytest.raises(CapacityInputError, match="'yesterday', which is no time"):
        as_of_hour(context)
    context["params"]["as_of"] = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    with pytest.raises(CapacityInputError, match="still to come"):
        as_of_hour(context)


def test_worse_forecasts_raise_the_alarm_and_leave_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "operations.db"
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__DATABASE_PATH", str(database))
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(ROOT / "include"))
    rows = [
        {
            "as_of": NOW - timedelta(days=8 + day),
            "service": service,
            "metric": "cpu",
            "horizon_days": 7,
            "mase": 0.8,
            "pinball95": 0.1,
            "coverage95": coverage,
            "shortfall": False,
            "waste": 0.2,
            "hours_scored": 168,
            "scored_at": NOW,
        }
        for day in range(14)
        for service, coverage in (("good", 0.95), ("bad", 0.5))
    ]
    with open_store(f"sqlite:///{database}", migrate_first=True) as store, store.write() as connection:
        upsert(connection, scores, rows, key=("as_of", "service", "metric", "horizon_days"))
    for _ in range(2):
        context = Context(moment=NOW)
        message = failure(CheckForecastDriftOperator(task_id="check"), context)
        assert "bad, cpu, over 7 days: the 95 % bound held 50.0% of the hours only" in message
        assert "good" not in message
        assert [one["service"] for one in context.pushed["failure"]["drifted"]] == ["bad"]
    with open_store(f"sqlite:///{database}") as store, store.read() as connection:
        (sent,) = connection.execute(select(messages)).mappings()
    assert sent["topic"] == "capacity_forecast_drift"
    assert sent["payload"]["service"] == "bad"
