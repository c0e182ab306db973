"""Airflow's own command line, on a database that it is told of in its environment.

A task may not use Airflow's database; its environment even names one that does not exist. Airflow's commands
are what Airflow offers for it, and they run here as a process of their own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastvlm_ops.core.programs.running import Output, run

if TYPE_CHECKING:
    from sqlalchemy import URL

# Of a task or of another configuration; each would lead to another database than the one that is meant.
_OTHERS = (
    "AIRFLOW__CORE__SQL_ALCHEMY_CONN",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_SECRET",
)


def airflow_environment(database: URL) -> dict[str, str]:
    """Return this environment, with Airflow's database in it.

    :param database: Airflow's own, SQLite or PostgreSQL
    """
    if database.drivername.startswith("postgresql"):
        database = database.set(drivername="postgresql+psycopg2")  # which Airflow is made and tested with
    kept = {name: value for name, value in os.environ.items() if name not in _OTHERS}
    return {
        **kept,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.render_as_string(hide_password=False),
        "_AIRFLOW_PROCESS_CONTEXT": "server",  # not a task's, so that the database is open to it
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",  # whatever it is here: callers read what is logged
    }


def run_airflow(
    arguments: Sequence[str], *, database: URL, timeout_seconds: float, folder: Path | None = None
) -> Output:
    """Run one of Airflow's commands and return what it wrote.

    :param arguments: as in ``["db", "clean", …]``; nothing secret, for Airflow writes them into its log table
    :param database: Airflow's own
    :param timeout_seconds: after which it is killed
    :param folder: its working folder
    :raises ProgramError: it failed, or did not end in time
    """
    return run(
        [sys.executable, "-m", "airflow", *arguments],
        name=f"airflow {' '.join(arguments[:2])}",
        environment=airflow_environment(database),
        timeout_seconds=timeout_seconds,
        folder=folder,
    )
