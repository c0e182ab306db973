"""The pictures of a subject: its latency and its parity over time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from fastvlm_ops.ui import formats
from fastvlm_ops.ui.coreml.history import Change, Detail, EpochStart, Night
from fastvlm_ops.ui.coreml.standing import IDENTICAL_DB, tone, write_db, write_ms
from fastvlm_ops.ui.lines import NARROW, Area, Cloud, Curve, Event, Limit, Picture, Spot, draw

_LONGEST = timedelta(hours=40)
"""Between two nights that a line joins: a night without a result is a gap."""
_ROOM = 0.35
"""Of the nights' span, above and below them; sessions beyond stand at the picture's edge."""
_LEAST_ROOM = 0.02  # of the value: what hardly varies is not blown up
_LABEL = 30
_DB_STEP = 10.0
_MIB = 1 << 20
_TITLES = {"bad": "night: worse, or failed", "warn": "night: nothing certain", "good": "night: fine"}


def latency_picture(detail: Detail) -> Picture:
    """Return the picture of the latency: sessions, nights, baseline, changes and epochs.

    :param detail: of the subject
    """
    nights = detail.nights
    days = [night.at for night in nights]
    bands = [night.band for night in nights if night.band is not None]
    dots = [(night.at, value) for night in nights for value in night.latencies]
    return draw(
        "latency",
        "Latency of a prediction",
        summary=_latency_summary(detail),
        write=write_ms,
        areas=_bands(nights),
        curves=[Curve("mean", "nightly median", days, [night.latency for night in nights], _LONGEST)],
        clouds=[Cloud("sessions", "a session", *zip(*dots, strict=True))] if dots else [],
        spots=[_spot(night, night.latency, write_ms(night.latency)) for night in nights],
        limits=[Limit("accepted", "accepted", bands[-1][2] if bands else None)],
        events=[*map(_epoch_event, detail.epochs), *map(_change_event, detail.changes)],
        scale=_scale([*(night.latency for night in nights), *(end for band in bands for end in band[:2])]),
    )


def _bands(nights: Sequence[Night]) -> list[Area]:
    """The baseline by epoch: what was accepted in one is not joined with what was in another."""
    known = [night for night in nights if night.band is not None]
    areas = []
    for _, group in itertools.groupby(known, key=lambda night: night.run["epoch"]):
        some = list(group)
        low, high = ([night.band[end] for night in some if night.band] for end in (0, 1))
        title = "accepted baseline: 5 to 95 % of its sessions"
        areas.append(Area("accepted", title, [night.at for night in some], low, high, _LONGEST))
    return areas


def _spot(night: Night, value: float | None, shown: str) -> Spot:
    colour = tone(night.verdict)
    what = night.run["failure_code"] or "nothing known"
    text = shown if value is not None else str(what).replace("_", " ")
    said = f"{formats.moment(night.at)}: {text}, version {night.run['version']}, {night.verdict}"
    return Spot(colour, _TITLES[colour], night.at, value, said + (", accepted" if night.accepted else ""))


def _epoch_event(epoch: EpochStart) -> Event:
    short = epoch.reason if len(epoch.reason) <= _LABEL else epoch.reason[: _LABEL - 1].rstrip(" ,→") + "…"
    return Event("epoch", short, epoch.at)


def _change_event(change: Change) -> Event:
    kind = "worse" if change.change > 0 else "better"
    return Event(kind, formats.change(change.change), change.at, at_foot=True)


def _scale(values: Sequence[float | None]) -> tuple[float, float] | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    least, greatest = min(known), max(known)
    room = max((greatest - least) * _ROOM, greatest * _LEAST_ROOM, 1e-9)
    return max(least - room, 0.0), greatest + room


def _latency_summary(detail: Detail) -> str:
    known = [night for night in detail.nights if night.latency is not None]
    if not known:
        return "Nothing is known."
    values = [night.latency for night in known if night.latency is not None]
    parts = [
        f"{len(known)} of {len(detail.nights)} runs from {known[0].at:%Y-%m-%d} to {known[-1].at:%Y-%m-%d}"
        f" gave a latency: lowest {write_ms(min(values))}, highest {write_ms(max(values))},"
        f" last {write_ms(values[-1])}"
    ]
    parts += [f"{formats.change(one.change)} on {one.at:%Y-%m-%d}" for one in detail.changes]
    parts += [f"new epoch on {one.at:%Y-%m-%d}: {one.reason}" for one in detail.epochs]
    return "; ".join(parts) + "."


def parity_picture(detail: Detail, least_db: float | None) -> Picture | None:
    """Return the picture of how much outputs differ from the golden ones; None where no run tells.

    :param detail: of the subject
    :param least_db: below which they are wrong; None where it cannot be read
    """
    measured = [night for night in detail.nights if _parity_known(night)]
    if not measured:
        return None
    values = [night.run["psnr_db"] for night in measured]
    known = [value for value in values if value is not None]
    around = [*known, *([least_db] if least_db is not None else [])]
    low = max(math.floor(min(around, default=0.0) / _DB_STEP) * _DB_STEP - _DB_STEP, 0.0)
    high = math.ceil(max(around, default=IDENTICAL_DB) / _DB_STEP) * _DB_STEP + _DB_STEP
    days = [night.at for night in measured]
    return draw(
        "parity",
        "Parity with the golden outputs (PSNR)",
        summary=_parity_summary(measured, known, least_db),
        write=write_db,
        curves=[Curve("mean", "worst output", days, values, _LONGEST)],
        spots=[_parity_spot(night, least_db) for night in measured],
        limits=[Limit("least", "at least", least_db)],
        scale=(low, high),
        width=NARROW,
    )


def _parity_known(night: Night) -> bool:
    return night.run["psnr_db"] is not None or bool(bad_numbers(night))


def bad_numbers(night: Night) -> int:
    """Return how many numbers of the outputs are none, or infinite."""
    return (night.run["nan_count"] or 0) + (night.run["inf_count"] or 0)


def _parity_spot(night: Night, least_db: float | None) -> Spot:
    value, bad = night.run["psnr_db"], bad_numbers(night)
    wrong = bool(bad) or (value is not None and least_db is not None and value < least_db)
    text = f"{formats.moment(night.at)}: {write_db(value)}, version {night.run['version']}"
    text += f", {formats.count(bad)} numbers are NaN or infinite" if bad else ""
    title = "wrong: too far off, NaN or infinite" if wrong else "right"
    return Spot("bad" if wrong else "good", title, night.at, None if bad else value, text)


def _parity_summary(measured: Sequence[Night], known: Sequence[float], least_db: float | None) -> str:
    wrong = sum(bool(bad_numbers(night)) for night in measured)
    parts = [f"{len(measured)} runs were compared with the golden outputs"]
    if known:
        parts.append(
            f"lowest {write_db(min(known))}, highest {write_db(max(known))}, last {write_db(known[-1])}"
        )
    if least_db is not None:
        parts.append(f"at least {write_db(least_db)} are wanted")
    parts.append(f"{wrong} runs had numbers that are NaN or infinite")
    return "; ".join(parts) + "."


def other_pictures(detail: Detail) -> list[Picture]:
    """Return the pictures of memory, loading and size, of those that are known.

    :param detail: of the subject
    """
    drawn = (
        ("memory", "Peak memory", "peak_memory_bytes", _MIB, "MiB"),
        ("load", "First load", "load_cold_ms", 1, "ms"),
        ("size", "Size of the package", "size_bytes", _MIB, "MiB"),
    )
    return [
        _plain(detail.nights, *one)
        for one in drawn
        if any(night.run[one[2]] is not None for night in detail.nights)
    ]


def _plain(nights: Sequence[Night], name: str, title: str, column: str, part: int, unit: str) -> Picture:
    values = [None if (value := night.run[column]) is None else value / part for night in nights]
    known, write = [value for value in values if value is not None], partial(formats.amount, unit=unit)
    return draw(
        name,
        title,
        summary=f"{title} of {len(known)} runs: lowest {write(min(known))}, highest {write(max(known))},"
        f" last {write(known[-1])}.",
        write=write,
        curves=[Curve("mean", "a run", [night.at for night in nights], values, _LONGEST)],
        width=NARROW,
    )


def sparkline(recent: Sequence[tuple[datetime, float | None]], width: int = 110, height: int = 26) -> str:
    """Return the path of a small line of the last latencies; empty where fewer than two are known.

    :param recent: moment and latency, oldest first
    """
    known = [value for _, value in recent if value is not None]
    if len(known) < 2:
        return ""
    first, span = recent[0][0], max((recent[-1][0] - recent[0][0]).total_seconds(), 1.0)
    low, high = _scale(known) or (0.0, 1.0)
    path, open_ = [], False
    for at, value in recent:
        if value is None:
            open_ = False
            continue
        x = 2 + (at - first).total_seconds() / span * (width - 4)
        y = height - 2 - (value - low) / (high - low) * (height - 4)
        path.append(f"{'L' if open_ else 'M'}{x:.1f} {y:.1f}" + ("" if open_ else "h0"))
        open_ = True
    return "".join(path)
