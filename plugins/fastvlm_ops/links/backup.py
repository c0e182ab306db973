"""From tasks of backup_maintenance to the pages that they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink, conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

PAGES = "/plugin/operations/fastvlm-ops/backups"
"""Below the root of Airflow's UI, which shows the pages in its frame."""


class PruningPageLink(BaseOperatorLink):
    """To the newest plan of what is kept and removed."""

    name = "Pruning"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address.

        :param operator: of the task
        :param ti_key: the task, which has just ended
        """
        return page_address("/pruning")


class RestoreIntactLink(BaseOperatorLink):
    """Where damage was found: to the form of restore_backup, filled in with the nearest intact backup.

    Else, or where there is no intact one, to the list of backups.
    """

    name = "Restore intact backup"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address.

        :param operator: of the task
        :param ti_key: the task, which has just ended
        """
        from airflow.sdk.execution_time.xcom import XCom

        found: Any = XCom.get_value(ti_key=ti_key, key="failure")
        found = found or XCom.get_value(ti_key=ti_key, key="return_value")
        nearest = found.get("nearest_intact_set") if isinstance(found, dict) else None
        return restore_address(nearest) if isinstance(nearest, str) else page_address("")


def page_address(path: str) -> str:
    """Return the address of a page of backups, inside Airflow.

    :param path: below the list of backups, with its slash
    """
    return conf.get("api", "base_url", fallback="").rstrip("/") + PAGES + path


def restore_address(set_id: str) -> str:
    """Return the address at which the form of restore_backup opens, filled in with a backup.

    :param set_id: of the backup
    """
    return page_address(f"/{quote(set_id, safe='')}?restore=")
