"""Links from tasks of drills to the pages."""

from __future__ import annotations

import pytest
from airflow.models.taskinstancekey import TaskInstanceKey

from fastvlm_ops.links.disaster_recovery import PAGES, DrillPageLink
from fastvlm_ops.operators import disaster_recovery as operators
from fastvlm_ops.provider_info import get_provider_info
from fastvlm_ops.ui import URL_PREFIX, URL_ROUTE, addresses


def test_it_leads_to_the_drill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/ops/")
    run_id = "manual__2026-11-30T01:00:00+00:00"
    key = TaskInstanceKey("disaster_recovery_service_hung", "report_drill", run_id, 1, -1)
    link = DrillPageLink().get_link(None, ti_key=key)  # type: ignore[arg-type]
    page = addresses.drill(f"disaster_recovery_service_hung/{run_id}")
    assert link == f"https://airflow.example.org/ops{PAGES.removesuffix('/disaster_recovery')}{page}"
    assert f"/plugin/{URL_ROUTE}{URL_PREFIX}/disaster_recovery" == PAGES


def test_operators_have_it_and_the_provider_names_it() -> None:
    for operator in (
        operators.GuardDrillOperator,
        operators.ArmDrillOperator,
        operators.SimulateFailureOperator,
        operators.VerifyFailoverOperator,
        operators.RestoreServiceOperator,
        operators.ValidateRecoveryOperator,
        operators.UndoFaultOperator,
        operators.ReportDrillOperator,
    ):
        assert [type(link) for link in operator.operator_extra_links] == [DrillPageLink], operator
    assert "fastvlm_ops.links.disaster_recovery.DrillPageLink" in get_provider_info()["extra-links"]
