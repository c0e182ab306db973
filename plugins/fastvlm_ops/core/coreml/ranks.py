"""Mann-Whitney's test, and the shift and interval that belong to it (Hodges-Lehmann)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastvlm_ops.core.coreml.spread import Floats

# Exact probabilities cost a table of this many entries; above, the normal approximation is as good.
_EXACT_PAIRS = 3000


@dataclass(frozen=True)
class Shift:
    """By how much one group lies above another.

    :param estimate: median of all differences between a value of one and a value of the other
    :param low: lower end of its confidence interval
    :param high: upper end
    :param error: standard error of the estimate, by the width of the interval
    :param p_value: one-sided, in the direction of the estimate
    """

    estimate: float
    low: float
    high: float
    error: float
    p_value: float


def shift(lower: Floats, upper: Floats, level: float) -> Shift:
    """Return by how much one group lies above the other.

    :param lower: the group that is compared with
    :param upper: the group whose shift is wanted
    :param level: chance that the shift is beyond one end of the interval, as in 0.01
    """
    from scipy.special import ndtri
    from scipy.stats import mannwhitneyu

    differences = np.sort((upper[:, None] - lower[None, :]).ravel())
    pairs = len(differences)
    estimate = float(np.median(differences))
    tied = len(np.unique(np.concatenate([lower, upper]))) < len(lower) + len(upper)
    method = "asymptotic" if tied or pairs > _EXACT_PAIRS else "exact"
    alternative = "greater" if estimate >= 0 else "less"
    tested = mannwhitneyu(upper, lower, alternative=alternative, method=method)
    deviations = -float(ndtri(level))
    width = deviations * np.sqrt(pairs * (len(lower) + len(upper) + 1) / 12)
    outside = max(0, min(int(np.floor(pairs / 2 - width)), (pairs - 1) // 2))
    low, high = float(differences[outside]), float(differences[pairs - 1 - outside])
    return Shift(
        estimate=estimate,
        low=low,
        high=high,
        error=(high - low) / (2 * deviations),
        p_value=min(1.0, float(tested.pvalue)),
    )
