"""What every DAG is held to, so that no DAG file has to be read to know it."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.airflow_home import ROOT
from tests.dags.support import RUNS

PACKAGE = ROOT / "plugins" / "fastvlm_ops"
DAG_IDS = sorted(RUNS)
BACKFILLABLE = {"capacity_forecast"}
#: Code that runs in tasks, or while DAGs are parsed.
TASK_CODE = sorted(
    path
    for folder in ("operators", "sensors", "triggers", "hooks", "links", "notifications", "dag_building")
    for path in (PACKAGE / folder).rglob("*.py")
) + sorted((ROOT / "dags").rglob("*.py"))
OPERATORS = PACKAGE / "operators"


@pytest.fixture(params=DAG_IDS)
def dag(request: pytest.FixtureRequest, airflow_dags: dict[str, Any]) -> Any:
    """One DAG."""
    return airflow_dags[request.param]


def test_the_dags_are_those_that_are_tested(airflow_dags: dict[str, Any]) -> None:
    assert sorted(airflow_dags) == DAG_IDS


def test_explains_itself(dag: Any) -> None:
    assert dag.description
    assert len(dag.doc_md.strip()) > 200
    is_drill = dag.dag_id.startswith("disaster_recovery_") and not dag.dag_id.endswith("_reaper")
    name = "disaster_recovery" if is_drill else dag.dag_id  # one for all scenarios
    runbook = ROOT / "docs" / "runbooks" / f"{name}.md"
    assert str(runbook.relative_to(ROOT)) in dag.doc_md
    assert runbook.is_file()


def test_has_tags_of_the_enum(dag: Any) -> None:
    from fastvlm_ops.dag_building.tags import Tag

    assert dag.tags
    assert set(dag.tags) <= {tag.value for tag in Tag}


def test_has_an_explicit_timetable_or_none(dag: Any) -> None:
    assert not isinstance(dag.schedule, str | timedelta)
    assert dag.catchup is False
    assert dag.max_active_runs == 1 or dag.dag_id in BACKFILLABLE


def test_can_be_backfilled_only_if_a_run_is_about_its_interval(dag: Any) -> None:
    from airflow.sdk import CronDataIntervalTimetable

    # Others store, restore or look at what is there today; under an old date it would be a lie.
    assert dag.allowed_run_types
    kinds = {kind.value for kind in dag.allowed_run_types}
    assert ("backfill" in kinds) == (dag.dag_id in BACKFILLABLE)
    if dag.dag_id in BACKFILLABLE:
        # `backfill create --to-date D` means midnight of D: a later hour of that day would be lost.
        assert dag.schedule == CronDataIntervalTimetable("0 0 * * *", timezone="UTC")
        assert "as_of" in dag.params
        assert not any(task.depends_on_past for task in dag.tasks)


def test_tasks_have_owner_retries_and_an_end(dag: Any) -> None:
    from fastvlm_ops.dag_building.defaults import OWNER

    for task in dag.tasks:
        assert task.owner == OWNER
        assert task.retries >= 1
        assert timedelta(0) < task.execution_timeout <= timedelta(hours=12)


def test_tasks_are_in_pools_that_are_made(dag: Any) -> None:
    from fastvlm_ops.core.config.pools import pools_of

    # A task of another pool would wait for ever, and only the scheduler's log would say why.
    assert {task.pool for task in dag.tasks} <= {pool.name for pool in pools_of(ROOT / "include")} | {
        "default_pool"
    }


def test_params_are_explained(dag: Any) -> None:
    for name, param in dag.params.items():
        schema = dag.params.get_param(name).schema
        assert schema.get("title"), name
        assert schema.get("description_md"), name
        assert schema.get("section"), name
        assert schema.get("type"), (name, param)


def test_what_can_destroy_is_a_dry_run_unless_told_otherwise(dag: Any) -> None:
    assert ("guarded" in dag.tags) == ("dry_run" in dag.params)
    if "dry_run" in dag.params:
        assert dag.params["dry_run"] is True


@pytest.mark.parametrize("path", sorted((ROOT / "dags").rglob("*.py")), ids=lambda path: path.stem)
def test_has_no_bare_cron_string(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "schedule":
            assert not (isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)), (
                f"{path.name}:{node.value.lineno}: a cron string means an empty interval; use a timetable"
            )


@pytest.mark.parametrize("path", TASK_CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_leaves_airflows_database_alone(path: Path) -> None:
    closed = ("airflow.models", "airflow.settings", "airflow.utils.session", "airflow.utils.db")
    for name, line in imported_names(ast.parse(path.read_text())):
        assert not f"{name}.".startswith(tuple(f"{module}." for module in closed)), (
            f"{path.name}:{line} imports {name}: Airflow's database is closed to tasks"
        )


def imported_names(tree: ast.AST) -> list[tuple[str, int]]:
    """All that a module imports, also inside functions, with lines."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def test_that_rule_sees_all_ways_to_import() -> None:
    source = "import airflow.models\ndef f():\n    from airflow import settings\n"
    assert [name for name, _ in imported_names(ast.parse(source))] == ["airflow.models", "airflow.settings"]


def operator_classes() -> list[type]:
    """All operators of the package."""
    from airflow.sdk import BaseOperator

    found = []
    for module in pkgutil.iter_modules([str(OPERATORS)]):
        members = vars(importlib.import_module(f"fastvlm_ops.operators.{module.name}")).values()
        found += [
            member
            for member in members
            if inspect.isclass(member)
            and issubclass(member, BaseOperator)
            and member.__module__.startswith("fastvlm_ops.operators")
        ]
    return sorted(set(found), key=lambda operator: operator.__name__)


def test_operators_template_their_connections_and_own_arguments() -> None:
    operators = operator_classes()
    assert len(operators) >= 6
    for operator in operators:
        own = set()
        for ancestor in operator.__mro__:
            if ancestor.__module__.startswith("fastvlm_ops.") and "__init__" in vars(ancestor):
                own |= set(inspect.signature(vars(ancestor)["__init__"]).parameters) - {"self", "kwargs"}
        assert set(operator.template_fields) == own, operator.__name__
