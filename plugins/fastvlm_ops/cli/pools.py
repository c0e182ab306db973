"""Creates the pools that the DAGs use, in Airflow's database; also as ``python -m fastvlm_ops.cli.pools``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from fastvlm_ops import settings
from fastvlm_ops.core.config.pools import POOLS, Pool, pools_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def needed_pools() -> tuple[Pool, ...]:
    """Return the pools that the DAGs use with the definition files that this Airflow is set to."""
    try:
        return pools_of(settings.include_path())
    except settings.SettingError:  # doctor and the DAGs say what is wrong with it
        return POOLS


def missing_pools() -> list[Pool]:
    """Return the pools that the DAGs use and this Airflow does not have.

    :raises sqlalchemy.exc.SQLAlchemyError: Airflow's database cannot be read
    """
    from airflow.models.pool import Pool as AirflowPool
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        there = set(session.scalars(select(AirflowPool.pool)))
    return [pool for pool in needed_pools() if pool.name not in there]


def create_pools(pools: Sequence[Pool]) -> None:
    """Create pools. Those that are there are left alone by callers: a person may have changed their slots.

    :raises sqlalchemy.exc.SQLAlchemyError: Airflow's database cannot be written
    """
    from airflow.models.pool import Pool as AirflowPool

    for pool in pools:
        AirflowPool.create_or_update_pool(
            pool.name, slots=pool.slots, description=pool.description, include_deferred=False
        )


if __name__ == "__main__":
    # What is not a task: Airflow's own configuration and database are its to use.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    missing = missing_pools()
    create_pools(missing)
    sys.stdout.write(f"created: {', '.join(pool.name for pool in missing) or 'none, all are there'}\n")
