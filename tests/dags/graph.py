"""The whole graph of all DAGs as JSON: tasks, edges, schedules, params.

A change of it is meant to be seen in review. Renew the stored one with
``.venv/bin/python -m tests.dags.graph``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STORED = Path(__file__).with_name("graph.json")
UPDATE = ".venv/bin/python -m tests.dags.graph"


def graph_of(dags: dict[str, Any]) -> dict[str, Any]:
    """Return what the stored graph has.

    :param dags: all DAGs, by id
    """
    return {dag_id: _dag(dag) for dag_id, dag in sorted(dags.items())}


def _dag(dag: Any) -> dict[str, Any]:
    return {
        "schedule": repr(dag.schedule),
        "run_types": sorted(kind.value for kind in dag.allowed_run_types or ()),
        "tags": sorted(dag.tags),
        "params": {
            name: {"default": value, **dag.params.get_param(name).schema}
            for name, value in dag.params.dump().items()
        },
        "tasks": {task.task_id: _task(task) for task in sorted(dag.tasks, key=lambda task: task.task_id)},
    }


def _task(task: Any) -> dict[str, Any]:
    from airflow.sdk import TriggerRule

    operator = task.operator_class if task.is_mapped else type(task)
    return {
        "operator": f"{operator.__module__}.{operator.__name__}",
        "mapped": task.is_mapped,
        "pool": task.pool,
        "trigger_rule": TriggerRule(task.trigger_rule).value,
        "retries": task.retries,
        "execution_timeout_seconds": task.execution_timeout.total_seconds(),
        "downstream": sorted(task.downstream_task_ids),
    }


def text_of(graph: dict[str, Any]) -> str:
    """Return a graph as it is stored.

    :param graph: from :func:`graph_of`
    """
    return json.dumps(graph, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    from tests.airflow_home import ROOT
    from tests.dags.support import parse_dags

    STORED.write_text(text_of(graph_of(parse_dags(ROOT / "dags"))), encoding="utf-8")
