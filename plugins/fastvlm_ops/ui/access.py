"""Who may see a page, and who may start a DAG: Airflow's own answers."""

from __future__ import annotations

from typing import Annotated, Any

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


def may_trigger(user: Any, dag_id: str) -> bool:
    """Return whether Airflow would let this user start a run of the DAG."""
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    return bool(
        get_auth_manager().is_authorized_dag(
            method="POST", access_entity=DagAccessEntity.RUN, details=details, user=user
        )
    )
