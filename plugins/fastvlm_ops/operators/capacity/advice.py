"""From forecasts to recommendations, the approval of those that take away, the report and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.core.config import include_hash
from fastvlm_ops.links.capacity import CapacityPageLink
from fastvlm_ops.operators.approving import AskPersonOperator
from fastvlm_ops.operators.capacity.shared import CapacityOperator
from fastvlm_ops.operators.shared import EvidenceOperator, run_key

if TYPE_CHECKING:
    from airflow.sdk import Context

_LISTED = 50


class ForecastUnknownError(Exception):
    """Nothing was forecast, or not all that should have been."""

    retryable = False


class RecommendScalingOperator(CapacityOperator):
    """Recommend how many replicas each service should have, from the published forecasts of an as-of hour.

    :param published: output of :class:`PublishForecastOperator` (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "operations_db_conn_id", "published")
    operator_extra_links = (CapacityPageLink(),)

    def __init__(self, *, published: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.published = published

    def work(self, context: Context) -> dict[str, Any]:
        """Return how many there are of each action, and those that change something."""
        from collections import Counter

        from fastvlm_ops.core.capacity.advice import recommend_all, replicas_of, rules_of

        moment = datetime.fromisoformat(self.published["as_of"])
        with self.open_store() as store:
            advice = recommend_all(
                store,
                as_of=moment,
                replicas=replicas_of(self.objects, moment),
                rules=rules_of(self.definitions),
                run_key=run_key(context),
            )
        for one in advice:
            self.log.info("%s: %s. %s", one.service, one.action.replace("_", " "), one.reason)
        return {
            "as_of": moment.isoformat(),
            "actions": dict(sorted(Counter(one.action for one in advice).items())),
            **{
                action: [
                    {
                        "service": one.service,
                        "replicas_now": one.replicas_now,
                        "replicas_wanted": one.replicas_wanted,
                        "reason": one.reason,
                    }
                    for one in advice
                    if one.action == action
                ][:_LISTED]
                for action in ("scale_up", "scale_down")
            },
        }


class ApproveScaleDownOperator(AskPersonOperator):
    """Ask a person before a scale-down is approved.

    Nothing is skipped on rejection: what follows notes the answer.

    :param recommended: output of :class:`RecommendScalingOperator` (templated)
    :param dry_run: whether nothing is approved anyhow, so that nobody is asked (templated)
    :param timeout_minutes: how long to wait for an answer (templated)
    """

    template_fields: Sequence[str] = ("recommended", "dry_run", "timeout_minutes")
    question = "Take replicas away?"

    def __init__(self, *, recommended: Any, dry_run: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.recommended = recommended
        self.dry_run = dry_run

    def is_needed(self) -> bool:
        """Return whether a replica would be taken away."""
        return not self.dry_run and bool(self.recommended["scale_down"])

    def describe(self) -> str:
        """Return which services would get fewer replicas."""
        return request_text(self.recommended)


class ReportCapacityOperator(CapacityOperator):
    """Note what was decided, then write the report and the gauges, and remove the run's working objects.

    Its outlets get an event with ``{"as_of", "uri"}``.

    :param published: output of :class:`PublishForecastOperator` (templated)
    :param decision: output of :class:`ApproveScaleDownOperator` (templated)
    :param dry_run: whether everything stays planned (templated)
    """

    template_fields: Sequence[str] = (
        "s3_conn_id",
        "operations_db_conn_id",
        "published",
        "decision",
        "dry_run",
    )
    operator_extra_links = (CapacityPageLink(),)

    def __init__(self, *, published: Any, decision: Any, dry_run: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.published = published
        self.decision = decision
        self.dry_run = dry_run

    def work(self, context: Context) -> dict[str, Any]:
        """Return where the report and the gauges are, and how many services there are of each action."""
        from fastvlm_ops.core.capacity.advice import decide, rules_of
        from fastvlm_ops.core.capacity.objects import run_folder
        from fastvlm_ops.core.capacity.publishing import remove_parts
        from fastvlm_ops.core.capacity.reports import store_report, write_gauges

        moment, objects, folder = (
            datetime.fromisoformat(self.published["as_of"]),
            self.objects,
            settings.metrics_dir(),
        )
        with self.open_store() as store:
            if not self.dry_run:
                approved = bool((self.decision or {}).get("approved"))
                decide(store, as_of=moment, approved=approved, rules=rules_of(self.definitions))
            report = store_report(
                objects, store, as_of=moment, include_hash=include_hash(settings.include_dir())
            )
            gauges = None if folder is None else write_gauges(store, folder)
        if folder is None:
            self.log.info("No gauges are written: [fastvlm_ops] metrics_dir is not set")
        remove_parts(objects, run_folder(run_key(context)))
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {"as_of": report["as_of"], "uri": self.published["uri"]}
        return {**report, "dry_run": bool(self.dry_run), "metrics": None if gauges is None else str(gauges)}


class ConfirmForecastOperator(EvidenceOperator):
    """The verdict of a run: fails unless forecasts of at least one service were published, and none failed.

    Belongs last with ``trigger_rule="all_done"``.

    :param published: output of :class:`PublishForecastOperator`; None when it failed (templated)
    :param report: output of :class:`ReportCapacityOperator`; None when it failed (templated)
    """

    template_fields: Sequence[str] = ("published", "report")
    operator_extra_links = (CapacityPageLink(),)

    def __init__(self, *, published: Any, report: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.published = published
        self.report = report

    def work(self, context: Context) -> dict[str, Any]:
        """Weigh both results."""
        if not self.published:
            raise ForecastUnknownError(
                "no forecast was published, and that of an earlier run of this hour stands; see the first"
                " task that failed"
            )
        if not self.report:
            raise ForecastUnknownError(
                f"{self.published['uri']} is published, but without recommendations or without a report; see"
                " the first task that failed"
            )
        if not self.published["services"]:
            raise ForecastUnknownError(
                "no query of capacity.yaml gave a series with the label service, so that nothing is known;"
                " try resources.cpu.average in Prometheus for that hour"
            )
        failed = self.published["statuses"].get("failed", 0)
        if failed:
            raise ForecastUnknownError(
                f"{failed} of {self.published['series']} series could not be forecast; the others are"
                " published. Their reasons are in capacity_forecast, column reason"
            )
        self.log.info("%s: %s", self.published["uri"], self.published["statuses"])
        return {"as_of": self.published["as_of"], "actions": self.report["actions"]}


def request_text(recommended: dict[str, Any]) -> str:
    """Return what a person has to decide on, as Markdown.

    :param recommended: output of :class:`RecommendScalingOperator`
    """
    lines = [
        f"As of {recommended['as_of']}, these services would get **fewer replicas**. Approved, it is noted as"
        " such, and `fastvlm_capacity_replicas_wanted` says so.",
        "",
        "| service | now | then | why |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {one['service']} | {one['replicas_now']} | **{one['replicas_wanted']}** | {one['reason']} |"
        for one in recommended["scale_down"]
    ]
    total = recommended["actions"].get("scale_down", 0)
    if total > len(recommended["scale_down"]):
        lines += ["", f"and {total - len(recommended['scale_down'])} more, in capacity_recommendation."]
    return "\n".join(lines)
