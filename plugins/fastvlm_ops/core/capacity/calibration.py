"""Bounds corrected by how past forecasts turned out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

_LOWEST, _HIGHEST = 0.5, 3.0


@dataclass(frozen=True)
class Calibration:
    """Factors of the distance between the forecast's middle and its bounds.

    :param factors: by the end of the lead bucket in hours
    :param scored_hours: how many measured hours each was learnt from
    """

    factors: Mapping[int, float] = field(default_factory=dict)
    scored_hours: Mapping[int, int] = field(default_factory=dict)

    def factor(self, lead_end: int) -> float:
        """Of a lead bucket; 1 where nothing was learnt."""
        return min(max(self.factors.get(lead_end, 1.0), _LOWEST), _HIGHEST)

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

        :raises ValueError: it is something else
        """
        try:
            content = json.loads(text)
            return cls(
                {int(end): float(value) for end, value in content["factors"].items()},
                {int(end): int(value) for end, value in content["scored_hours"].items()},
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a calibration written by Calibration.to_json: {error}") from error
