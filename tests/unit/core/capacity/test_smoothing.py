"""The smoothed level against statsmodels, which is far too slow to be asked for each series."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.tsa.holtwinters import SimpleExpSmoothing
from statsmodels.tsa.statespace.structural import UnobservedComponents

from fastvlm_ops.core.capacity.cleaning import DAY, WEEK
from fastvlm_ops.core.capacity.models import SMOOTHING, smoothed_level


def _days(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 100 + np.cumsum(rng.normal(0, 3, 56)) + rng.normal(0, 5, 56)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_simple_exponential_smoothing(seed: int) -> None:
    days = _days(seed)
    ours = smoothed_level(np.repeat(days, DAY).reshape(1, -1, WEEK))[0]
    model = SimpleExpSmoothing(days, initialization_method="known", initial_level=days[:7].mean())
    fitted = model.fit(smoothing_level=SMOOTHING, optimized=False)
    assert ours == pytest.approx(fitted.forecast(1)[0], rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_local_level_of_unobserved_components(seed: int) -> None:
    """Its gain K at rest solves K² / (1 - K) = variance of the level / variance of the noise."""
    days = _days(seed)
    ours = smoothed_level(np.repeat(days, DAY).reshape(1, -1, WEEK))[0]
    model = UnobservedComponents(days, level="local level")
    gain_at_rest = SMOOTHING / (1 - SMOOTHING)  # of the predicted variance, in units of the noise's
    model.ssm.initialize_known(np.array([days[:7].mean()]), np.array([[gain_at_rest]]))
    smoothed = model.smooth([1.0, SMOOTHING**2 / (1 - SMOOTHING)])
    assert ours == pytest.approx(smoothed.forecast(1)[0], rel=1e-9)
