"""The pages there are. A domain adds itself here, and thereby to the navigation."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter

from fastvlm_ops.ui.backups.routes import DAG_ID as BACKUPS_DAG_ID
from fastvlm_ops.ui.backups.routes import router as backups
from fastvlm_ops.ui.capacity.routes import DAG_ID as CAPACITY_DAG_ID
from fastvlm_ops.ui.capacity.routes import router as capacity
from fastvlm_ops.ui.coreml.routes import DAG_ID as COREML_DAG_ID
from fastvlm_ops.ui.coreml.routes import router as coreml
from fastvlm_ops.ui.disaster_recovery.routes import DAG_ID as DISASTER_RECOVERY_DAG_ID
from fastvlm_ops.ui.disaster_recovery.routes import router as disaster_recovery


@dataclass(frozen=True)
class Section:
    """A domain's pages.

    :param name: of the folder, and first part of its pages' addresses
    :param title: in the navigation
    :param dag_id: who may see this DAG's runs may see the pages
    :param router: with addresses below ``/<name>``; each of its routes must refuse on its own
    """

    name: str
    title: str
    dag_id: str
    router: APIRouter


SECTIONS = (
    Section("backups", "Backups", BACKUPS_DAG_ID, backups),
    Section("disaster_recovery", "Drills", DISASTER_RECOVERY_DAG_ID, disaster_recovery),
    Section("capacity", "Capacity", CAPACITY_DAG_ID, capacity),
    Section("coreml", "Core ML", COREML_DAG_ID, coreml),
)
"""In the order of the navigation; the first is where ``/`` leads."""
