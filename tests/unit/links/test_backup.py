"""Links from tasks of backup_maintenance to the pages."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.models.taskinstancekey import TaskInstanceKey

from fastvlm_ops.links.backup import PAGES, PruningPageLink, RestoreIntactLink
from fastvlm_ops.operators import backup as operators
from fastvlm_ops.provider_info import get_provider_info
from fastvlm_ops.ui import URL_PREFIX, URL_ROUTE

KEY = TaskInstanceKey("backup_maintenance", "confirm_maintenance", "manual__1", 1, -1)
ROOT = "https://airflow.example.org/ops"


@pytest.fixture(autouse=True)
def base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", f"{ROOT}/")


def test_it_leads_to_the_plan() -> None:
    assert PruningPageLink().get_link(None, ti_key=KEY) == f"{ROOT}{PAGES}/pruning"  # type: ignore[arg-type]
    assert f"/plugin/{URL_ROUTE}{URL_PREFIX}/backups" == PAGES


@pytest.mark.parametrize(
    ("xcoms", "path"),
    [
        ({"failure": {"nearest_intact_set": "full-1+x"}}, "/full-1%2Bx?restore="),
        ({"return_value": {"nearest_intact_set": "full-1"}}, "/full-1?restore="),
        ({"failure": {"nearest_intact_set": None}}, ""),
        ({}, ""),
    ],
)
def test_it_opens_the_form_with_the_intact_backup(
    xcoms: dict[str, Any], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.execution_time.xcom import XCom

    monkeypatch.setattr(XCom, "get_value", lambda *, ti_key, key: xcoms.get(key))
    link = RestoreIntactLink().get_link(None, ti_key=KEY)  # type: ignore[arg-type]
    assert link == f"{ROOT}{PAGES}{path}"


def test_operators_have_them_and_the_provider_names_them() -> None:
    links = {
        operators.PlanPruningOperator: [PruningPageLink],
        operators.ApprovePruningOperator: [PruningPageLink],
        operators.ForgetBackupsOperator: [PruningPageLink],
        operators.CollectGarbageOperator: [PruningPageLink],
        operators.VerifyRepositoryOperator: [RestoreIntactLink],
        operators.ConfirmMaintenanceOperator: [RestoreIntactLink, PruningPageLink],
    }
    for operator, expected in links.items():
        assert [type(link) for link in operator.operator_extra_links] == expected, operator
    named = get_provider_info()["extra-links"]
    assert {f"fastvlm_ops.links.backup.{link.__name__}" for link in (PruningPageLink, RestoreIntactLink)} <= {
        *named
    }
