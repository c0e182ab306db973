"""Keeps the share of false alarms down where a run asks hundreds of questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastvlm_ops.core.coreml.verdicts import Judgement, Metric, Verdict

_CHANGES = (Verdict.REGRESSION, Verdict.IMPROVEMENT)


def passes(p_values: Sequence[float], rate: float) -> list[bool]:
    """Return which of many tests stand, so that at most a given share of them is expected to be false.

    Benjamini and Hochberg's procedure: it holds for tests that are independent or rise and fall together, as
    the metrics of one session do.

    :param p_values: of all tests, those too that found nothing
    :param rate: expected share of false ones among those that stand
    """
    if not p_values:
        return []
    ordered = np.sort(p_values)
    below = np.flatnonzero(ordered <= rate * np.arange(1, len(ordered) + 1) / len(ordered))
    limit = ordered[below[-1]] if len(below) else -1.0
    return [p_value <= limit for p_value in p_values]


def control_false_discovery(judgements: Sequence[Judgement], rate: float) -> list[Judgement]:
    """Return the judgements of a run, of which those changes became OK that are no longer believable.

    What is exact has no p value and stays. So does the trend: its level is kept over the nights, and a change
    that one night drops would not be told again.

    :param judgements: of all metrics, models, compute units and devices of a run
    :param rate: expected share of false ones among the changes that are reported
    """
    tested = [one for one in judgements if one.p_value is not None and one.metric is not Metric.LATENCY_TREND]
    # A one-sided test looked both ways, and took the side that it saw.
    stand = passes([min(1.0, 2 * one.p_value) for one in tested if one.p_value is not None], rate)
    fallen = {id(one) for one, stands in zip(tested, stand, strict=True) if not stands}
    return [
        replace(
            one,
            verdict=Verdict.OK,
            reason=f"{one.reason}; among {len(tested)} tests chance gives such a change",
            details={**one.details, "verdict_alone": str(one.verdict)},
        )
        if id(one) in fallen and one.verdict in _CHANGES
        else one
        for one in judgements
    ]
