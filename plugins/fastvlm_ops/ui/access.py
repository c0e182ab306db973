"""Who may see a page, and who may start a DAG: Airflow's own answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import get_user, requires_access_dag
from airflow.models.dag import DagModel
from fastapi import Depends

User = Annotated[Any, Depends(get_user)]
SignedIn = Depends(get_user)


def may_read(dag_id: str) -> Any:
    """Return the dependency of a page: refuses who is not signed in (401) or may not see the DAG (403).

    :param dag_id: the DAG whose results the page shows
    """
    return Depends(requires_access_dag("GET", DagAccessEntity.RUN, dag_id))


def may_see(user: Any, dag_id: str) -> bool:
    """Return whether Airflow would show this user the runs of the DAG."""
    return _may(user, dag_id, "GET")


def may_trigger(user: Any, dag_id: str) -> bool:
    """Return whether Airflow would let this user start a run of the DAG."""
    return _may(user, dag_id, "POST")


def _may(user: Any, dag_id: str, method: Literal["GET", "POST"]) -> bool:
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    return bool(
        get_auth_manager().is_authorized_dag(
            method=method, access_entity=DagAccessEntity.RUN, details=details, user=user
        )
    )


def next_run(dag_id: str) -> tuple[datetime | None, bool]:
    """Return when Airflow runs the DAG next by its schedule, if at all, and whether it is paused."""
    dag = DagModel.get_dagmodel(dag_id)
    return (None, False) if dag is None else (dag.next_dagrun_create_after, bool(dag.is_paused))
