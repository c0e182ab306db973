"""What tests of operators share: a context, and ways to make them succeed and fail."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException

from fastvlm_ops.operators import backup
from fastvlm_ops.triggers.backup import WATCHED_ASSET
from fastvlm_ops.triggers.coreml import PACKAGES_ASSET
from tests.airflow_kit import COMPONENTS

MOMENT = datetime(2026, 1, 4, 2, tzinfo=UTC)


class Context(dict):
    """A task's context, as far as the operators use it; keeps what is pushed to XCom and about assets.

    :param run_id: of the run
    :param pulled: what tasks that stand before have pushed to XCom, by key
    :param moment: what the run is about
    :param run_type: ``scheduled`` or ``manual``
    """

    def __init__(
        self, run_id: str = "run", moment: datetime = MOMENT, run_type: str = "manual", **pulled: Any
    ) -> None:
        self.pushed: dict[str, Any] = {}
        self.stored: dict[str, Any] = {}
        store = SimpleNamespace(set=lambda key, value: self.stored.update({key: value}))
        super().__init__(
            params={},
            dag_run=SimpleNamespace(
                dag_id="dag", run_id=run_id, run_type=run_type, data_interval_end=moment, run_after=moment
            ),
            ti=SimpleNamespace(
                xcom_push=lambda key, value: self.pushed.update({key: value}),
                xcom_pull=lambda task_ids, key: pulled.get(key),
            ),
            asset_state_store={Asset.ref(name=name): store for name in (WATCHED_ASSET, PACKAGES_ASSET)},
        )


def prepare() -> backup.PrepareRepositoryOperator:
    return backup.PrepareRepositoryOperator(task_id="prepare", components=COMPONENTS)


def create(component: str, kind: str = "full") -> backup.CreateBackupOperator:
    return backup.CreateBackupOperator(task_id="create", component=component, kind=kind)


def failure(operator: Any, context: Context | None = None) -> str:
    """Execute an operator that must fail for good; returns its message, which its XCom has too."""
    context = context or Context()
    with pytest.raises(AirflowFailException) as caught:
        operator.execute(context)
    assert context.pushed["failure"]["message"] == str(caught.value)
    assert "direct cause" not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)
