"""The pools that the DAGs use. Airflow never starts a task whose pool does not exist, and only logs why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastvlm_ops.core.config.coreml import load_coreml
from fastvlm_ops.core.config.errors import ConfigError


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

DRILL_POOL = Pool(
    name="fastvlm_drills",
    slots=1,
    description="FastVLM Ops: one step of a disaster-recovery drill at a time.",
)
UNDO_POOL = Pool(
    name="fastvlm_drill_undo",
    slots=8,
    description="FastVLM Ops: faults of drills are taken back here, whatever else waits.",
)

POOLS = (BACKUP_POOL, MAINTENANCE_POOL, DRILL_POOL, UNDO_POOL)


def device_pool(device: str) -> Pool:
    """Return the pool of a device of ``coreml.yaml``: two models at once would measure each other.

    :param device: its name
    """
    return Pool(
        name=f"fastvlm_device_{device}",
        slots=1,
        description=f"FastVLM Ops: one model at a time is measured on {device}.",
    )


def pools_of(include_dir: Path) -> tuple[Pool, ...]:
    """Return all pools that the DAGs use, with those of the devices.

    :param include_dir: the folder of the definition files; while ``coreml.yaml`` in it cannot be read, no
        device has a pool, and the DAG says why
    """
    try:
        devices = load_coreml(include_dir).devices
    except ConfigError:
        return POOLS
    return (*POOLS, *(device_pool(device.name) for device in devices))
