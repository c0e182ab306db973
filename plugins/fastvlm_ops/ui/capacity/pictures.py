"""The pictures of capacity: a forecast with its history and limits, and accuracy over time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from functools import partial

from fastvlm_ops.ui import formats
from fastvlm_ops.ui.capacity.data import TITLES, AsOfScores, Days, Need, ends_at
from fastvlm_ops.ui.lines import NARROW, Area, Curve, Event, Limit, Picture, draw

COVERED = (0.93, 0.97)
"""What a 95 % bound is to cover of the hours, on average."""
_NAIVE = 1.0


def forecast_picture(need: Need, history: Days, forecast: Days) -> Picture:
    """Return the picture of a resource: its history, the fan of its forecast, limits and days.

    :param need: the resource's row
    :param history: by day
    :param forecast: by day
    """
    write = partial(formats.amount, unit=need.unit)
    events = [Event("made", "forecast made", need.as_of.date())]
    if need.exhaustion_date is not None:
        events.append(Event("exhausted", f"used up on {need.exhaustion_date:%d %b}", need.exhaustion_date))
    days, values = forecast.days, forecast.values
    return draw(
        "forecast",
        f"{TITLES.get(need.metric, need.metric)} by day",
        summary=_forecast_summary(need, history),
        write=write,
        areas=[
            Area("band", "history: the day's mean to its peak", history.days, *_of(history, "mean", "max")),
            Area("fan99", "busiest hour: up to the 99 % bound", days, values["q0.95"], values["q0.99"]),
            Area("fan95", "busiest hour: middle to the 95 % bound", days, values["q0.5"], values["q0.95"]),
        ],
        curves=[
            Curve("past", "p95 of the day's hours", history.days, history.values["p95"]),
            Curve("mean", "forecast: the day's mean", days, values["mean"]),
        ],
        limits=[
            Limit("capacity", "capacity", need.capacity),
            Limit("risk", "required (risk)", need.required_risk),
            Limit("seed", "required (rule)", need.required_seed),
        ],
        events=events,
    )


def _of(days: Days, lower: str, upper: str) -> tuple[list[float | None], list[float | None]]:
    return days.values[lower], days.values[upper]


def _forecast_summary(need: Need, history: Days) -> str:
    write = partial(formats.amount, unit=need.unit)
    peaks = [value for value in history.values["max"] if value is not None]
    parts = [f"{len(history.days)} days of history"]
    if peaks:
        parts[0] += f", at most {write(max(peaks))}"
    parts.append(f"forecast until {ends_at(need.as_of, need.horizon_days):%Y-%m-%d}")
    parts.append(f"required by risk {write(need.required_risk)}, by the rule {write(need.required_seed)}")
    parts.append(f"capacity {write(need.capacity)}")
    if need.exhaustion_date is not None:
        parts.append(f"probably used up on {need.exhaustion_date:%Y-%m-%d}")
    return "; ".join(parts) + "."


def accuracy_pictures(scores: Sequence[AsOfScores], chance_of_shortfall: float | None) -> list[Picture]:
    """Return the pictures of accuracy over time.

    :param scores: oldest first
    :param chance_of_shortfall: that was set; None where it cannot be read
    """
    days = [score.as_of.date() for score in scores]
    covered = [score.coverage95 for score in scores]
    return [
        _errors(days, scores),
        draw(
            "coverage",
            "Hours under the 95 % bound",
            summary=_told("Share of hours under the 95 % bound", scores, covered, formats.share),
            write=formats.share,
            areas=[Area("target", "wanted: 93 to 97 %", days, *_bounds(len(days)))],
            curves=[Curve("mean", "all services", days, covered)],
            scale=(min([0.85, *(value for value in covered if value is not None)]), 1.0),
            width=NARROW,
        ),
        _shares(
            "shortfall",
            "Fell short of the required capacity",
            [score.shortfall for score in scores],
            scores,
            Limit("risk", "allowed", chance_of_shortfall),
        ),
        _shares("waste", "Required beyond what was used", [score.waste for score in scores], scores, None),
    ]


def _bounds(count: int) -> tuple[list[float], list[float]]:
    low, high = COVERED
    return [low] * count, [high] * count


def _errors(days: Sequence[date], scores: Sequence[AsOfScores]) -> Picture:
    quartiles = [score.mase or (None, None, None) for score in scores]
    low, middle, high = zip(*quartiles, strict=True) if quartiles else ((), (), ())
    return draw(
        "mase",
        "Error (MASE)",
        summary=_told("Median MASE", scores, middle, formats.amount),
        write=formats.amount,
        areas=[Area("band", "half of the services", days, low, high)],
        curves=[Curve("mean", "median", days, middle)],
        limits=[Limit("seed", "as last week", _NAIVE)],
        width=NARROW,
    )


def _shares(
    name: str, title: str, values: Sequence[float | None], scores: Sequence[AsOfScores], limit: Limit | None
) -> Picture:
    days = [score.as_of.date() for score in scores]
    return draw(
        name,
        title,
        summary=_told(title, scores, values, formats.share),
        write=formats.share,
        curves=[Curve("mean", "services" if name == "shortfall" else "median", days, values)],
        limits=[] if limit is None else [limit],
        width=NARROW,
    )


def _told(what: str, scores: Sequence[AsOfScores], values: Sequence[float | None], write: object) -> str:
    known: list[tuple[datetime, float]] = [
        (score.as_of, value) for score, value in zip(scores, values, strict=True) if value is not None
    ]
    if not known or not callable(write):
        return f"{what}: nothing is known."
    figures = [value for _, value in known]
    return (
        f"{what} of {len(known)} forecasts from {known[0][0]:%Y-%m-%d} to {known[-1][0]:%Y-%m-%d}: lowest"
        f" {write(min(figures))}, highest {write(max(figures))}, last {write(figures[-1])}."
    )
