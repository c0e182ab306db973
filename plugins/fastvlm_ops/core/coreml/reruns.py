"""Whether the first look at a run asks for more sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastvlm_ops.core.coreml.comparing import sessions_to_add
from fastvlm_ops.core.coreml.verdicts import Metric

if TYPE_CHECKING:
    from fastvlm_ops.core.config.coreml import CompareRules
    from fastvlm_ops.core.coreml.records import BaselineRecord, RunRecord


def sessions_wanted(first: RunRecord, baseline: BaselineRecord | None, rules: CompareRules) -> int:
    """Return how many sessions shall be added, for the metric that asks for the most.

    :param first: the run, with the sessions of its first look
    :param baseline: what it is compared with; None where nothing was accepted
    :param rules: what counts as worse
    """
    before = baseline.of_epoch(first.epoch) if baseline else ()
    effects = {
        Metric.LATENCY_P50: None,
        Metric.LOAD_COLD: rules.load_effect,
        Metric.PEAK_MEMORY: rules.memory_growth,
    }
    return max(
        sessions_to_add(
            [value for run in before for value in run.values(metric)],
            first.values(metric),
            rules,
            effect=effect,
        )
        if first.values(metric)
        else 0
        for metric, effect in effects.items()
    )
