"""What every DAG has in common; a test holds each of them to it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fastvlm_ops.core.config import pools

OWNER = "fastvlm-ops"

#: Of tasks that read or write much of the backups.
BACKUP_POOL = pools.BACKUP_POOL.name
#: Of tasks that change Airflow's own database.
MAINTENANCE_POOL = pools.MAINTENANCE_POOL.name
#: Of the steps of drills.
DRILL_POOL = pools.DRILL_POOL.name
#: Of tasks that take a drill's fault back.
UNDO_POOL = pools.UNDO_POOL.name


def device_pool(device: str) -> str:
    """Return the pool of tasks that run models on a device: one at a time.

    :param device: its name in ``coreml.yaml``
    """
    return pools.device_pool(device).name


def task_defaults(
    *,
    execution_timeout: timedelta,
    retries: int = 2,
    retry_delay: timedelta = timedelta(minutes=1),
) -> dict[str, Any]:
    """Return ``default_args`` for a DAG.

    :param execution_timeout: after which a task is stopped; without one, a hung connection would hold the
        DAG's only run for ever
    :param retries: further attempts of a failed task, for what passes by itself
    :param retry_delay: before the first of them; doubled each time, up to half an hour
    """
    return {
        "owner": OWNER,
        "retries": retries,
        "retry_delay": retry_delay,
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(minutes=30),
        "execution_timeout": execution_timeout,
    }
