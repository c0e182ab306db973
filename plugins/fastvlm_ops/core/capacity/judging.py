"""How right the last forecasts were, and which have become worse."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from fastvlm_ops.core.capacity.scoring import DriftRules, PastScore, drift
from fastvlm_ops.core.config.capacity import Capacity
from fastvlm_ops.core.store.tables.capacity import scores

if TYPE_CHECKING:
    from fastvlm_ops.core.store import Store

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Accuracy:
    """How right the forecasts of one metric were over one horizon, over all services.

    :param metric: of which
    :param horizon_days: over which
    :param scores: that were looked at: those of the last as-of hours
    :param mase: their median
    :param pinball95: their median
    :param coverage95: their mean
    :param shortfalls: share that fell short of what was required
    :param waste: median, of those that did not fall short
    """

    metric: str
    horizon_days: int
    scores: int
    mase: float | None
    pinball95: float | None
    coverage95: float | None
    shortfalls: float | None
    waste: float | None


@dataclass(frozen=True)
class Alarm:
    """Forecasts of one series that have become worse.

    :param service: of which
    :param metric: of which
    :param horizon_days: over which
    :param reasons: in words
    """

    service: str
    metric: str
    horizon_days: int
    reasons: tuple[str, ...]


def drift_rules(definitions: Capacity) -> DriftRules:
    """Return the rules that ``capacity.yaml`` states.

    :param definitions: ``capacity.yaml``
    """
    accuracy = definitions.accuracy
    return DriftRules(
        recent=accuracy.runs,
        fewest=min(accuracy.fewest, accuracy.runs),
        coverage_least=accuracy.coverage95_minimum,
        coverage_most=accuracy.coverage95_maximum,
        mase_factor=accuracy.mase_factor,
        shortfalls_most=accuracy.shortfalls_maximum,
    )


def judge(store: Store, definitions: Capacity, *, at: datetime) -> tuple[list[Accuracy], list[Alarm]]:
    """Return how right the last forecasts were, and which series' forecasts have become worse.

    :param store: the operations database
    :param definitions: ``capacity.yaml``
    :param at: full hour, in UTC: scores of forecasts that end after it are left out
    """
    recent = definitions.accuracy.runs
    query = select(scores).where(scores.c.as_of < at).order_by(scores.c.as_of)
    with store.read() as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    rows = [row for row in rows if row["as_of"] + row["horizon_days"] * _DAY <= at]
    by_metric: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    by_series: dict[tuple[int, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_metric[row["horizon_days"], row["metric"]].append(row)
        by_series[row["horizon_days"], row["metric"], row["service"]].append(row)
    table = [
        _accuracy(metric, days, _last_hours(found, recent))
        for (days, metric), found in sorted(by_metric.items())
    ]
    alarms = []
    for (days, metric, service), found in sorted(by_series.items()):
        past = [PastScore(row["as_of"], row["mase"], row["coverage95"], row["shortfall"]) for row in found]
        verdict = drift(past, drift_rules(definitions))
        if verdict.alarm:
            alarms.append(Alarm(service, metric, days, verdict.reasons))
    return table, alarms


def _last_hours(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    hours = set(sorted({row["as_of"] for row in rows})[-count:])
    return [row for row in rows if row["as_of"] in hours]


def _accuracy(metric: str, days: int, rows: Sequence[Mapping[str, Any]]) -> Accuracy:
    known = {
        name: [row[name] for row in rows if row[name] is not None]
        for name in ("mase", "pinball95", "coverage95", "shortfall")
    }
    waste = [row["waste"] for row in rows if row["waste"] is not None and not row["shortfall"]]
    return Accuracy(
        metric=metric,
        horizon_days=days,
        scores=len(rows),
        mase=median(known["mase"]) if known["mase"] else None,
        pinball95=median(known["pinball95"]) if known["pinball95"] else None,
        coverage95=fmean(known["coverage95"]) if known["coverage95"] else None,
        shortfalls=fmean(known["shortfall"]) if known["shortfall"] else None,
        waste=median(waste) if waste else None,
    )


def accuracy_table(table: Sequence[Accuracy]) -> str:
    """Return a table for people.

    :param table: of :func:`judge`
    """
    head = ("metric", "days", "scores", "MASE", "pinball95", "covered", "short", "waste")
    rows = [
        (
            one.metric,
            str(one.horizon_days),
            str(one.scores),
            _said(one.mase),
            _said(one.pinball95),
            _share(one.coverage95),
            _share(one.shortfalls),
            _share(one.waste),
        )
        for one in table
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in (head, *rows)
    ]
    return "\n".join(lines)


def _said(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
