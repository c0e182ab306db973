"""What operators of all domains share: the run's key and as-of, and failures that people can read."""

from __future__ import annotations

import logging
from abc import abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowRuntimeError

from fastvlm_ops.triggers.watching import SIGNATURE_KEY

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


def run_key(context: Context) -> str:
    """Return what makes the writes of this run idempotent, the same for each of its attempts.

    :param context: of the task; a run id alone is unique only within its DAG
    """
    dag_run = context["dag_run"]
    return f"{dag_run.dag_id}/{dag_run.run_id}"


def as_of(context: Context) -> datetime:
    """Return the time that a run is about: Param ``as_of``, else the interval's end, else its due time.

    :param context: of the task; a manual run may have no logical date and then no interval either
    :raises ValueError: the Param is not a time in ISO 8601
    """
    chosen = context["params"].get("as_of")
    if chosen:
        moment = datetime.fromisoformat(chosen)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    dag_run = context["dag_run"]
    moment = dag_run.data_interval_end or dag_run.run_after
    return datetime.fromtimestamp(moment.timestamp(), UTC)


def record_signature(context: Context, asset: str, signature: str) -> None:
    """Tell the watcher of an asset what has been looked at, so that it starts no run for it.

    :param context: of a task that has the asset among its inlets
    :param asset: its name
    :param signature: of what was looked at, taken before that
    """
    try:
        context["asset_state_store"][Asset.ref(name=asset)].set(SIGNATURE_KEY, signature)
    except (KeyError, AirflowRuntimeError) as error:
        log.warning("Not recorded, so that one more run may find no change: %s", error)


class EvidenceOperator(BaseOperator):
    """Base of operators whose failure leaves evidence and one clear message.

    Before a failure is raised, ``{"error", "message"}`` and what :meth:`subject` adds go to XCom under the
    key ``failure``. A failure that a further attempt cannot cure ends the task at once.
    """

    def execute(self, context: Context) -> Any:
        try:
            return self.work(context)
        except Exception as error:
            evidence = {"error": type(error).__name__, "message": str(error), **self.subject()}
            context["ti"].xcom_push(key="failure", value=evidence)
            retryable = getattr(error, "retryable", None)
            if retryable is None:
                raise  # unforeseen, so that the frames matter; it may pass by itself
            # Errors of ours have a message for people, which frames and causes would only bury.
            if retryable:
                raise error.with_traceback(None) from None
            raise AirflowFailException(str(error)) from None

    def on_kill(self) -> None:
        """Kill the programs that the task has started; what waits for them then fails."""
        from fastvlm_ops.core.programs import kill_running

        kill_running()

    @abstractmethod
    def work(self, context: Context) -> Any:
        """Do the task.

        :param context: of the task
        :returns: small JSON for XCom
        """

    def subject(self) -> dict[str, Any]:
        """Return what the evidence of a failure should name besides the error."""
        return {}
