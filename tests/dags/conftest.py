"""What the DAG tests share: an Airflow database, the parsed DAGs, and a way to run them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow_home import ROOT  # first: it gives Airflow its home
from tests.airflow_kit import connection, kit, published, second_place  # noqa: F401 - fixtures
from tests.capacity_kit import metrics, metrics_server  # noqa: F401 - fixtures
from tests.coreml_kit import coreml_package  # noqa: F401 - fixtures
from tests.coreml_stack import golden_folders, models  # noqa: F401 - fixtures
from tests.dags.support import Run, collect, parse_dags
from tests.drill_stack import demo_service, drilled  # noqa: F401 - fixtures
from tests.wal_stack import wal, wal_server  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from airflow.sdk import DAG


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """An empty metadata database with the pools; about 6 s, once a worker."""
    from airflow.utils.db import initdb

    from fastvlm_ops.cli.pools import create_pools, missing_pools

    initdb()
    create_pools(missing_pools())


@pytest.fixture(scope="session")
def airflow_dags() -> dict[str, DAG]:
    """All DAGs of the project, by id."""
    return parse_dags(ROOT / "dags")


@pytest.fixture
def run_dag(airflow_database: None) -> Callable[..., Run]:
    """A function that runs a DAG to its end by ``dag.test()`` and returns a :class:`Run`."""

    def run(dag_id: str, conf: dict[str, Any] | None = None, **arguments: Any) -> Run:
        dag = parse_dags(ROOT / "dags")[dag_id]
        for task in dag.tasks:
            task.retries = 0  # dag.test() would wait for the delays between them
        return collect(dag.test(run_conf=conf, **arguments))

    return run
