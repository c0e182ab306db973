"""From tasks of coreml_benchmark to the models that they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink, conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

PAGES = "/plugin/operations/fastvlm-ops/coreml"
"""Below the root of Airflow's UI, which shows the pages in its frame."""


class CoreMLPageLink(BaseOperatorLink):
    """To every model on every device, with its newest verdict."""

    name = "Core ML"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address.

        :param operator: of the task
        :param ti_key: the task, which has just ended
        """
        return conf.get("api", "base_url", fallback="").rstrip("/") + PAGES
