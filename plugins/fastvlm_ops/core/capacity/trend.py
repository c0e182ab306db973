"""Whether a series grows, and how fast."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.cleaning import WEEK, Floats
from fastvlm_ops.core.capacity.models import daily_slopes
from fastvlm_ops.core.capacity.networks import median_of_rows

_LEAST_WEEKS = 4
_SIGNIFICANT = 1.96  # of a standard normal: one chance in twenty


def find_trend(filled: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Theil-Sen slope per day of the weeks' medians, and whether Mann and Kendall's test finds it real.

    Weeks, since days that follow each other are alike and would make any drift look significant.

    :param filled: series x hours without NaN
    """
    weeks = filled.shape[1] // WEEK
    if weeks < _LEAST_WEEKS:
        return np.zeros(len(filled)), np.zeros(len(filled), dtype=bool)
    whole = filled[:, filled.shape[1] - weeks * WEEK :]
    levels = median_of_rows(whole.reshape(len(filled), weeks, WEEK))
    first, second = np.triu_indices(weeks, k=1)
    balance = np.sign(levels[:, second] - levels[:, first]).sum(axis=1)
    spread = np.sqrt(weeks * (weeks - 1) * (2 * weeks + 5) / 18)
    score = np.maximum(np.abs(balance) - 1, 0) / spread
    return daily_slopes(whole), score > _SIGNIFICANT
