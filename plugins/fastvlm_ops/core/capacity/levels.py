"""The levels of every predictive distribution."""

from __future__ import annotations

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99)
"""Of the quantiles that are kept, in this order."""
