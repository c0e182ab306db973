"""The pools that the DAGs use. Airflow never starts a task whose pool does not exist, and only logs why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pool:
    """A pool of Airflow.

    :param name: its name
    :param slots: how many tasks may run in it at once, until a person changes it
    :param description: what it is for, as Airflow's list of pools shows it
    """

    name: str
    slots: int
    description: str


BACKUP_POOL = Pool(
    name="fastvlm_backup",
    slots=4,
    description="FastVLM Ops: so many tasks at a time may read or write backups.",
)
MAINTENANCE_POOL = Pool(
    name="fastvlm_maintenance",
    slots=1,
    description="FastVLM Ops: one task at a time may tidy Airflow's own database.",
)

POOLS = (BACKUP_POOL, MAINTENANCE_POOL)
