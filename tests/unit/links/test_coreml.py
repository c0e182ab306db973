"""Links from tasks of coreml_benchmark to the pages."""

from __future__ import annotations

import pytest

from fastvlm_ops.links.coreml import PAGES, CoreMLPageLink
from fastvlm_ops.operators import coreml as operators
from fastvlm_ops.provider_info import get_provider_info
from fastvlm_ops.ui import URL_PREFIX, URL_ROUTE


def test_it_leads_to_the_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/ops/")
    link = CoreMLPageLink().get_link(None, ti_key=None)  # type: ignore[arg-type]
    assert link == f"https://airflow.example.org/ops{PAGES}"
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
