"""Links from tasks of capacity to the pages."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from airflow.sdk.execution_time.xcom import XCom

from fastvlm_ops.links.capacity import PAGES, AccuracyPageLink, CapacityPageLink
from fastvlm_ops.operators import capacity as operators
from fastvlm_ops.provider_info import get_provider_info
from fastvlm_ops.ui import URL_PREFIX, URL_ROUTE
from fastvlm_ops.ui.capacity.routes import SECTION


@pytest.fixture
def base_url(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/ops/")
    return "https://airflow.example.org/ops"


def result(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    monkeypatch.setattr(XCom, "get_value", lambda **_: value)


def test_it_leads_to_the_pages() -> None:
    assert f"/plugin/{URL_ROUTE}{URL_PREFIX}/{SECTION}" == PAGES


def test_it_leads_to_the_hour_that_the_task_was_about(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result(monkeypatch, {"as_of": "2026-03-03T02:00:00+02:00"})
    link = CapacityPageLink().get_link(None, ti_key=None)  # type: ignore[arg-type]
    assert link == f"{base_url}{PAGES}?as_of=2026-03-03T00Z"


@pytest.mark.parametrize("value", [None, {}, {"as_of": None}, {"as_of": "soon"}, {"as_of": 3}, "text"])
def test_without_an_hour_it_leads_to_the_newest(
    base_url: str, monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    result(monkeypatch, value)
    assert CapacityPageLink().get_link(None, ti_key=None) == base_url + PAGES  # type: ignore[arg-type]


def test_accuracy(base_url: str) -> None:
    assert AccuracyPageLink().get_link(None, ti_key=None) == f"{base_url}{PAGES}/accuracy"  # type: ignore[arg-type]


def test_operators_have_them_and_the_provider_names_them() -> None:
    for operator in (
        operators.PublishForecastOperator,
        operators.RecommendScalingOperator,
        operators.ReportCapacityOperator,
        operators.ConfirmForecastOperator,
    ):
        assert [type(link) for link in operator.operator_extra_links] == [CapacityPageLink], operator
    for operator in (operators.ScoreForecastOperator, operators.CheckForecastDriftOperator):
        assert [type(link) for link in operator.operator_extra_links] == [AccuracyPageLink], operator
    for path in get_provider_info()["extra-links"]:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name)
