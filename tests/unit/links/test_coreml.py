"""Links from tasks of coreml_benchmark to the pages."""

from __future__ import annotations

import pytest
from airflow.models.taskinstancekey import TaskInstanceKey

from fastvlm_ops.links.coreml import PAGES, CoreMLPageLink
from fastvlm_ops.operators import coreml as operators
from fastvlm_ops.provider_info import get_provider_info
from fastvlm_ops.ui import URL_PREFIX, URL_ROUTE, addresses


def test_it_leads_to_what_the_run_has_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/ops/")
    key = TaskInstanceKey("coreml_benchmark", "regression_gate", "manual__2026-11-30T01:00:00+00:00", 1, -1)
    link = CoreMLPageLink().get_link(None, ti_key=key)  # type: ignore[arg-type]
    page = addresses.coreml_list("coreml_benchmark/manual__2026-11-30T01:00:00+00:00")
    assert link == f"https://airflow.example.org/ops{PAGES.removesuffix('/coreml')}{page}"
    assert f"/plugin/{URL_ROUTE}{URL_PREFIX}/coreml" == PAGES


def test_operators_have_it_and_the_provider_names_it() -> None:
    for operator in (
        operators.BenchmarkModelOperator,
        operators.CompareWithBaselineOperator,
        operators.PromoteBaselineOperator,
        operators.ReportBenchmarksOperator,
        operators.RegressionGateOperator,
    ):
        assert [type(link) for link in operator.operator_extra_links] == [CoreMLPageLink], operator
    assert "fastvlm_ops.links.coreml.CoreMLPageLink" in get_provider_info()["extra-links"]
