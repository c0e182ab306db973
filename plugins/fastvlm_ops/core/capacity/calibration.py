"""Bounds corrected by how past forecasts turned out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.cleaning import Floats
from fastvlm_ops.core.capacity.origins import BUCKET_ENDS, buckets

_LOWEST, _HIGHEST = 0.7, 2.0  # what is asked beyond is a change of the load, not of the bounds
_BOUND = 0.95
_TRUST_HOURS = 2000.0  # so many scored hours move the factor halfway to what they ask for


@dataclass(frozen=True)
class Calibration:
    """Factors of the distance between the forecast's middle and its bounds.

    :param factors: by the end of the lead bucket in hours, as in BUCKET_ENDS
    :param scored_hours: how many measured hours each was learnt from
    """

    factors: Mapping[int, float] = field(default_factory=dict)
    scored_hours: Mapping[int, int] = field(default_factory=dict)

    def factor(self, lead_hours: int) -> float:
        """Of a lead; 1 where nothing was learnt.

        :param lead_hours: the first hour of the horizon is 1
        """
        end = next((end for end in BUCKET_ENDS if lead_hours <= end), BUCKET_ENDS[-1])
        return self.factors.get(end, 1.0)

    def apply(self, quantiles: Floats, middle: int) -> Floats:
        """Widen or narrow bounds.

        :param quantiles: levels x series x hours
        :param middle: number of the median's level
        """
        if not self.factors:
            return quantiles
        changed = quantiles.copy()
        for part in buckets(quantiles.shape[2]):
            centre = quantiles[middle, :, part]
            changed[:, :, part] = centre + (quantiles[:, :, part] - centre) * self.factor(part.start + 1)
        return changed

    @classmethod
    def learn(
        cls, lead_hours: NDArray[np.int64], actual: Floats, median: Floats, upper: Floats
    ) -> Calibration:
        """From forecasts whose hours have come, one entry for each hour, of many series.

        With the factor the 95 % bound would have covered 95 %; few scored hours draw it to 1.
        The forecasts have to be those made without a calibration, or its factors are to be multiplied.

        :param lead_hours: how far ahead each was made, from 1 on
        :param actual: what was measured; NaN is left out
        :param median: of the forecast
        :param upper: its 95 % bound
        """
        width = upper - median
        usable = np.isfinite(actual) & np.isfinite(median) & (width > 0)
        factors, hours = {}, {}
        start = 0
        for end in BUCKET_ENDS:
            chosen = usable & (lead_hours > start) & (lead_hours <= end)
            start = end
            count = int(np.count_nonzero(chosen))
            if not count:
                continue
            asked = float(np.quantile((actual[chosen] - median[chosen]) / width[chosen], _BOUND))
            trust = count / (count + _TRUST_HOURS)
            factors[end] = round(min(max(1 + trust * (asked - 1), _LOWEST), _HIGHEST), 4)
            hours[end] = count
        return cls(factors, hours)

    def to_json(self) -> str:
        """As text, with sorted keys."""
        content = {
            "factors": {str(end): value for end, value in self.factors.items()},
            "scored_hours": {str(end): value for end, value in self.scored_hours.items()},
        }
        return json.dumps(content, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """What to_json gave.

        :raises ValueError: it is something else, or a factor lies outside what learn gives
        """
        try:
            content = json.loads(text)
            factors = {int(end): float(value) for end, value in content["factors"].items()}
            hours = {int(end): int(value) for end, value in content["scored_hours"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a calibration written by Calibration.to_json: {error!r}") from error
        wrong = [value for value in factors.values() if not _LOWEST <= value <= _HIGHEST]
        if wrong:
            raise ValueError(f"factors of a calibration lie between {_LOWEST} and {_HIGHEST}, found {wrong}")
        return cls(factors, hours)
