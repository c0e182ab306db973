"""From tasks of a drill to its page."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from airflow.sdk import BaseOperatorLink, conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

PAGES = "/plugin/operations/fastvlm-ops/disaster_recovery"
"""Below the root of Airflow's UI, which shows the pages in its frame."""


class DrillPageLink(BaseOperatorLink):
    """To what the task's drill has hit, what users saw, its figures and its evidence."""

    name = "Drill"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address.

        :param operator: of the task
        :param ti_key: the task, which has just ended
        """
        run = urlencode({"run": f"{ti_key.dag_id}/{ti_key.run_id}"})
        return f"{conf.get('api', 'base_url', fallback='').rstrip('/')}{PAGES}/drill?{run}"
