"""From tasks of capacity_forecast to the services that they are about, and of capacity_accuracy to scores."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink, conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

PAGES = "/plugin/operations/fastvlm-ops/capacity"
"""Below the root of Airflow's UI, which shows the pages in its frame."""


class CapacityPageLink(BaseOperatorLink):
    """To the services as of the task's hour; to the newest where the task did not say which that is."""

    name = "Capacity"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address.

        :param operator: of the task
        :param ti_key: the task, which has just ended
        """
        hour = _hour(ti_key)
        return _address(PAGES) + (f"?as_of={hour}" if hour else "")


class AccuracyPageLink(BaseOperatorLink):
    """To how right forecasts were, over time."""

    name = "Accuracy"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address.

        :param operator: of the task
        :param ti_key: the task, which has just ended
        """
        return _address(f"{PAGES}/accuracy")


def _address(path: str) -> str:
    return conf.get("api", "base_url", fallback="").rstrip("/") + path


def _hour(ti_key: TaskInstanceKey) -> str:
    """The as-of hour that the task returned, as part of an address; empty where it returned none."""
    from airflow.sdk.execution_time.xcom import XCom

    result: Any = XCom.get_value(ti_key=ti_key, key="return_value")
    as_of = result.get("as_of") if isinstance(result, dict) else None
    try:
        return f"{datetime.fromisoformat(as_of).astimezone(UTC):%Y-%m-%dT%HZ}" if as_of else ""
    except (TypeError, ValueError):
        return ""
