"""Parses and runs the project's DAGs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import DAG

#: Every DAG, with the form that it is run with in test_every_dag.py.
RUNS: dict[str, dict[str, Any]] = {
    "airflow_maintenance": {},
    "backup_configuration": {},
    "backup_deadline": {},
    "backup_full": {},
    "backup_incremental": {},
    "backup_maintenance": {},
    "backup_wal": {},
    "backup_replicate": {},
    "capacity_accuracy": {},
    "capacity_forecast": {},
    "coreml_benchmark": {},
    "disaster_recovery_configuration_corrupted": {},
    "disaster_recovery_model_store_lost": {},
    "disaster_recovery_object_store_unreachable": {},
    "disaster_recovery_primary_database_lost": {},
    "disaster_recovery_reaper": {},
    "disaster_recovery_restore_test": {},
    "disaster_recovery_service_hung": {},
    "disaster_recovery_service_process_killed": {},
    "restore_backup": {"target": "drill"},
}

#: DAGs that break a service, which has to be there for that.
DRILLS = [
    dag_id
    for dag_id in RUNS
    if dag_id.startswith("disaster_recovery_") and not dag_id.endswith(("_reaper", "_restore_test"))
]

#: What has to run before a DAG can succeed.
BEFORE: dict[str, str] = {"backup_deadline": "backup_incremental", "capacity_accuracy": "capacity_forecast"}


def parse_dags(path: Path) -> dict[str, DAG]:
    """Parse a folder or file as Airflow's DAG processor does.

    :param path: folder or file
    :returns: the DAGs in it, by id
    """
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=path)
    assert not bag.import_errors
    return dict(bag.dags)


@dataclass(frozen=True)
class Run:
    """What is left of a DAG run: its state, its tasks' states, labels in the UI, and XComs."""

    state: str
    tasks: dict[str, list[str]]
    labels: dict[str, list[str | None]]
    xcoms: dict[str, dict[str, list[Any]]]

    def returned(self, task_id: str) -> list[Any]:
        """What the instances of a task returned, in the order of the mapping."""
        return self.xcoms.get(task_id, {}).get("return_value", [])

    def failures(self, task_id: str) -> list[dict[str, Any]]:
        """The evidence that failed instances of a task left."""
        return self.xcoms.get(task_id, {}).get("failure", [])


def collect(dag_run: Any) -> Run:
    """Read what a DAG run left in Airflow's database.

    :param dag_run: from ``dag.test()``
    """
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    tasks: dict[str, list[str]] = {}
    labels: dict[str, list[str | None]] = {}
    xcoms: dict[str, dict[str, list[Any]]] = {}
    with create_session() as session:
        for instance in sorted(dag_run.get_task_instances(session=session), key=lambda ti: ti.map_index):
            tasks.setdefault(instance.task_id, []).append(str(instance.state))
            labels.setdefault(instance.task_id, []).append(instance.rendered_map_index)
        query = select(XComModel).where(
            XComModel.dag_id == dag_run.dag_id, XComModel.run_id == dag_run.run_id
        )
        for row in session.scalars(query.order_by(XComModel.map_index)):
            values = xcoms.setdefault(row.task_id, {}).setdefault(row.key, [])
            values.append(XComModel.deserialize_value(row))
    return Run(str(dag_run.state), tasks, labels, xcoms)
