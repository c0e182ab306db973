"""What operators of all domains that ask a person share: the question, its time-out, and the answer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

#: XCom of how it was decided.
DECISION_KEY = "decision"


class AskPersonOperator(ApprovalOperator):
    """Base of operators that ask a person, where there is something to ask; without an answer in time, the
    answer is no.

    The task returns ``{"needed", "approved", "timed_out", "by"}``, and leaves it as XCom ``decision`` also
    where a rejection skips what follows.

    :param timeout_minutes: how long to wait for an answer (templated)
    """

    template_fields: Sequence[str] = ("timeout_minutes",)
    #: What is asked, in a few words.
    question: ClassVar[str]
    #: Whether a rejection skips the tasks directly behind; else they have to look at the answer.
    skips_on_rejection: ClassVar[bool] = False

    def __init__(self, *, timeout_minutes: Any = 240, **kwargs: Any) -> None:
        super().__init__(
            subject=self.question, defaults=self.REJECT, response_timeout=timedelta(hours=4), **kwargs
        )
        self.timeout_minutes = timeout_minutes

    @abstractmethod
    def is_needed(self) -> bool:
        """Return whether there is something to ask."""

    @abstractmethod
    def describe(self) -> str:
        """Return what a person has to decide on, as Markdown."""

    def execute(self, context: Context) -> Any:
        """Ask, where there is need."""
        if not self.is_needed():
            self.log.info("Nobody has to be asked")
            return {"needed": False, "approved": False, "timed_out": False, "by": None}
        self.response_timeout = timedelta(minutes=float(self.timeout_minutes))
        self.body = self.describe()
        self.log.info(self.body)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Take the answer."""
        decision = {
            "needed": True,
            "approved": event.get("chosen_options") == [self.APPROVE],
            "timed_out": bool(event.get("timedout")),
            "by": (event.get("responded_by_user") or {}).get("name"),
        }
        # Before the parent class raises what skips others: a verdict has to know.
        context["ti"].xcom_push(key=DECISION_KEY, value=decision)
        self.log.info(decision_text(decision))
        if self.skips_on_rejection:
            super().execute_complete(context, event)
        else:
            HITLOperator.execute_complete(self, context, event)
        return decision


def decision_text(decision: dict[str, Any]) -> str:
    """Return how it was decided, for people.

    :param decision: XCom ``decision`` of an :class:`AskPersonOperator`
    """
    if decision["timed_out"]:
        return "nobody answered in time, which rejects it: nothing was touched"
    who = decision["by"] or "somebody"
    return f"approved by {who}" if decision["approved"] else f"rejected by {who}: nothing was touched"


def rejection(context: Context, task_id: str) -> str | None:
    """Return why a person, or nobody, has kept a run from going on; None where nobody did.

    :param context: of a task behind the question
    :param task_id: of the task that asked
    """
    decision = context["ti"].xcom_pull(task_ids=task_id, key=DECISION_KEY)
    return None if not decision or decision["approved"] else decision_text(decision)
