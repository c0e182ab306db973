"""Tells what came of a run, and keeps a release back that got worse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastvlm_ops import settings
from fastvlm_ops.links.coreml import CoreMLPageLink
from fastvlm_ops.operators.coreml.shared import CoreMLOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

_LISTED = 50


class RegressionError(Exception):
    """A model got worse, or it is not known whether it did."""

    retryable = False


class ReportBenchmarksOperator(CoreMLOperator):
    """Write the gauges, and say in the log what was measured and what was said of it.

    :param compared: output of :class:`CompareWithBaselineOperator`; None when it failed (templated)
    :param promoted: output of :class:`PromoteBaselineOperator`; None when it failed (templated)
    """

    template_fields: Sequence[str] = ("s3_conn_id", "operations_db_conn_id", "compared", "promoted")
    operator_extra_links = (CoreMLPageLink(),)

    def __init__(self, *, compared: Any, promoted: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.compared = compared
        self.promoted = promoted

    def work(self, context: Context) -> dict[str, Any]:
        """Return how many runs there are of each verdict, and where the gauges are."""
        from fastvlm_ops.core.coreml.publishing import write_gauges
        from fastvlm_ops.core.coreml.weighing import name_of

        folder = settings.metrics_dir()
        gauges = None
        if folder is None:
            self.log.info("No gauges are written: [fastvlm_ops] metrics_dir is not set")
        else:
            with self.open_store() as store:
                gauges = write_gauges(store, folder)
        compared, promoted = self.compared or {}, self.promoted or {}
        for run in compared.get("runs", ()):
            self.log.info("%s: %s. %s", name_of(run), run["verdict"], run["reason"])
        return {
            "verdicts": compared.get("verdicts", {}),
            "accepted": len(promoted.get("accepted", ())),
            "models": promoted.get("models", []),
            "metrics": None if gauges is None else str(gauges),
        }


class RegressionGateOperator(CoreMLOperator):
    """The verdict of a run: fails when a model got worse, or when it is not known whether one did.

    What a person has accepted fails nothing. Belongs last with ``trigger_rule="all_done"``.

    :param discovered: output of :class:`DiscoverModelsOperator`; None when it failed (templated)
    :param inspected: outputs of :class:`InspectModelOperator` (templated)
    :param compared: output of :class:`CompareWithBaselineOperator`; None when it failed (templated)
    :param promoted: output of :class:`PromoteBaselineOperator`; None when it failed (templated)
    """

    template_fields: Sequence[str] = (
        "s3_conn_id",
        "operations_db_conn_id",
        "discovered",
        "inspected",
        "compared",
        "promoted",
    )
    operator_extra_links = (CoreMLPageLink(),)

    def __init__(
        self, *, discovered: Any, inspected: Any, compared: Any, promoted: Any, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.discovered = discovered
        self.inspected = inspected
        self.compared = compared
        self.promoted = promoted

    def work(self, context: Context) -> dict[str, Any]:
        """Weigh all of it."""
        if not self.discovered:
            raise RegressionError(
                "no model was found, so that nothing is known; see the first task that failed"
            )
        inspected = {one["model"] for one in self.inspected or ()}
        lines = [
            f"{one['model']}{' ' + one['version'] if one['version'] else ''}: its package is refused; see"
            " inspect_model"
            for one in self.discovered
            if one["model"] not in inspected
        ]
        if not self.compared or not self.compared["runs"]:
            nothing = "nothing was compared, so that nothing is known; see the first task that failed"
            raise RegressionError("\n".join([*lines, nothing]))
        policy = self.definitions.missing_devices
        accepted = (self.promoted or {}).get("accepted", ())
        for problem in self.compared["problems"]:
            if problem["run"] in accepted:
                self.log.warning("accepted all the same: %s", problem["text"])
            elif problem["verdict"] == "MISSING" and policy == "warn":
                self.log.warning("%s", problem["text"])
            else:
                lines.append(problem["text"])
        if lines:
            more = f"\nand {len(lines) - _LISTED} more" if len(lines) > _LISTED else ""
            raise RegressionError("\n".join(lines[:_LISTED]) + more)
        if self.promoted is None:
            raise RegressionError(
                "nothing got worse, but the baseline was not promoted; see promote_baseline"
            )
        self.log.info("%s", self.compared["verdicts"])
        return {"verdicts": self.compared["verdicts"], "models": self.promoted["models"]}
