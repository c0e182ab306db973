"""From measurements to verdicts, and to what later runs are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

from fastvlm_ops.links.coreml import CoreMLPageLink
from fastvlm_ops.operators.approving import AskPersonOperator
from fastvlm_ops.operators.coreml.shared import CoreMLOperator
from fastvlm_ops.operators.shared import run_key

if TYPE_CHECKING:
    from airflow.sdk import Context

    from fastvlm_ops.core.coreml.storing import RunId

#: What the form may ask for.
PROMOTE_GREEN, PROMOTE_ASK, PROMOTE_NONE = "green", "ask", "none"
_LISTED = 50


class CompareWithBaselineOperator(CoreMLOperator):
    """Judge all that a run has measured, against what was accepted before.

    Belongs after all devices with ``trigger_rule="all_done"``: what one lacks takes nothing from the others.
    What was planned and has no result is judged too.

    :param plans: by device, the output of :class:`PlanBenchmarksOperator`; None where it failed (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "operations_db_conn_id", "plans")
    operator_extra_links = (CoreMLPageLink(),)

    def __init__(self, *, plans: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plans = plans

    def work(self, context: Context) -> dict[str, Any]:
        """Judge."""
        from fastvlm_ops.core.coreml.weighing import name_of, weigh_run

        with self.open_results() as (store, artefacts):
            result = weigh_run(
                store, artefacts, self.definitions.compare, run_key=run_key(context), plans=self.plans or {}
            )
        for run in result["runs"]:
            self.log.info("%s: %s. %s", name_of(run), run["verdict"], run["reason"])
        return result


class ApprovePromotionOperator(AskPersonOperator):
    """Ask a person whether runs that are not green become part of the baseline all the same.

    Nothing is skipped on rejection: what follows notes the answer.

    :param compared: output of :class:`CompareWithBaselineOperator` (templated)
    :param promote: ``green``, ``ask`` or ``none``: whether anybody is asked (templated)
    :param timeout_minutes: how long to wait for an answer (templated)
    """

    template_fields: Sequence[str] = ("compared", "promote", "timeout_minutes")
    question = "Accept models that are not green?"

    def __init__(self, *, compared: Any, promote: str = PROMOTE_GREEN, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.compared = compared
        self.promote = promote

    def is_needed(self) -> bool:
        """Return whether that is wanted, and there is something to accept."""
        return self.promote == PROMOTE_ASK and bool(_questionable(self.compared))

    def describe(self) -> str:
        """Return which runs are not green."""
        return request_text(self.compared)


class PromoteBaselineOperator(CoreMLOperator):
    """Put runs into the baseline: those that are green, and all that were measured where a person approved.

    For each model that is accepted on every device, the asset gets an event with model, version and digest,
    through the alias among the outlets: without such a model, there is none.

    :param compared: output of :class:`CompareWithBaselineOperator` (templated)
    :param decision: output of :class:`ApprovePromotionOperator` (templated)
    :param promote: ``green``, ``ask`` or ``none`` (templated)
    :param asset: name and URI of the asset (templated)
    """

    template_fields: Sequence[str] = (
        "s3_conn_id",
        "operations_db_conn_id",
        "compared",
        "decision",
        "promote",
        "asset",
    )
    operator_extra_links = (CoreMLPageLink(),)

    def __init__(
        self,
        *,
        compared: Any,
        decision: Any,
        promote: str = PROMOTE_GREEN,
        asset: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.compared = compared
        self.decision = decision
        self.promote = promote
        self.asset = asset

    def work(self, context: Context) -> dict[str, Any]:
        """Promote."""
        from fastvlm_ops.core.coreml.baselines import GREEN, accept
        from fastvlm_ops.core.coreml.weighing import accepted_models, name_of

        if self.promote == PROMOTE_NONE:
            self.log.info("The form says that nothing is promoted")
            return {"accepted": [], "models": []}
        runs, decision = self.compared["runs"], self.decision or {}
        asked = _questionable(self.compared) if decision.get("approved") else []
        with self.open_store() as store:
            accept(store, [self._id(run) for run in runs if run["green"]], accepted_by=GREEN)
            accept(store, [self._id(run) for run in asked], accepted_by=decision.get("by") or "unknown")
        accepted = [name_of(run) for run in runs if run["green"] or run in asked]
        models = accepted_models(self.compared, set(accepted))
        for line in accepted or ["nothing"]:
            self.log.info("Accepted: %s", line)
        self._tell(context, models)
        return {"accepted": accepted, "models": models}

    def _id(self, run: Mapping[str, Any]) -> RunId:
        from fastvlm_ops.core.coreml.storing import RunId

        return RunId(self.compared["run_key"], run["device"], run["model"], run["compute_unit"])

    def _tell(self, context: Context, models: Sequence[dict[str, str]]) -> None:
        if self.asset is None:
            return
        for outlet in self.outlets:
            for model in models if isinstance(outlet, AssetAlias) else ():
                context["outlet_events"][outlet].add(Asset(**self.asset), extra=model)


def request_text(compared: Mapping[str, Any]) -> str:
    """Return what a person has to decide on, as Markdown.

    :param compared: output of :class:`CompareWithBaselineOperator`
    """
    lines = [
        "Approved, later versions are compared with **these**, and the models count as accepted.",
        "",
        "| model | version | device | compute unit | verdict | why it is not green |",
        "|---|---|---|---|---|---|",
    ]
    questionable = _questionable(compared)
    lines += [
        f"| {run['model']} | {run['version']} | {run['device']} | {run['compute_unit']} |"
        f" **{run['verdict']}** | {run['reason']} |"
        for run in questionable[:_LISTED]
    ]
    if len(questionable) > _LISTED:
        lines += ["", f"and {len(questionable) - _LISTED} more, in coreml_verdict."]
    return "\n".join(lines)


def _questionable(compared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Runs that are not green, and were measured in full, so that they could be compared with."""
    return [run for run in compared["runs"] if not run["green"] and run["complete"]]
