"""The levels at which a forecast's distribution is given."""

from __future__ import annotations

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99)


def column(level: float) -> str:
    """Name of a level's column, as in ``q0.95``.

    :param level: one of LEVELS
    """
    return f"q{level:g}"
