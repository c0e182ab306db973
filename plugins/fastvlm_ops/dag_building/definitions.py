"""Builds DAGs from definition files so that a broken file is seen, and harms no other DAG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from airflow.sdk import DAG, BaseOperator, Context
from airflow.sdk.exceptions import AirflowFailException

from fastvlm_ops import settings
from fastvlm_ops.core.config import (
    Components,
    ConfigError,
    CoreMLDefinitions,
    load_components,
    load_coreml,
    load_watched_components,
)

# With the definitions that DAG files are made from, since those import nothing of core.
__all__ = [
    "FAILING_TASK_ID",
    "Components",
    "CoreMLDefinitions",
    "dag_from_definitions",
    "load_components",
    "load_coreml",
    "load_watched_components",
]

FAILING_TASK_ID = "definition_error"

DefinitionsT = TypeVar("DefinitionsT")


class ReportDefinitionErrorOperator(BaseOperator):
    """Fails with what is wrong in a definition file.

    :param message: names the file, the key and what would be right
    """

    ui_color = "#f8d7da"

    def __init__(self, *, message: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.message = message

    def execute(self, context: Context) -> NoReturn:
        """Fail at once: the next attempt would read the same file."""
        raise AirflowFailException(self.message)


def dag_from_definitions(
    load: Callable[[Path], DefinitionsT],
    wire: Callable[[DAG, DefinitionsT], None],
    schedule: Any | Callable[[DefinitionsT | None], Any],
    doc_md: str,
    **dag_arguments: Any,
) -> DAG:
    """Build a DAG from a definition file.

    Where the file is broken, the DAG has in place of its tasks a single one that fails with the message, on
    the same schedule: a backup that cannot run must be seen, in its own place, and not be missed. (An import
    error would take the DAG, and all others of its file, off the list.)

    :param load: reads the file; takes ``[fastvlm_ops] include_dir``
    :param wire: adds the tasks; takes the DAG, and what ``load`` returns
    :param schedule: a timetable, or None; or what makes it of the definitions, which are None where the file
        is broken
    :param doc_md: what the DAG does, for people
    :param dag_arguments: further ones of :class:`~airflow.sdk.DAG`
    """
    try:
        definitions = load(settings.include_dir())
    except (ConfigError, settings.SettingError) as error:
        notice = f"**This DAG cannot run:**\n```\n{error}\n```\n\n"
        when = schedule(None) if callable(schedule) else schedule
        with DAG(schedule=when, doc_md=notice + doc_md, **dag_arguments) as failing:
            ReportDefinitionErrorOperator(task_id=FAILING_TASK_ID, message=str(error))
        return failing
    when = schedule(definitions) if callable(schedule) else schedule
    with DAG(schedule=when, doc_md=doc_md, **dag_arguments) as dag:
        wire(dag, definitions)
    return dag
