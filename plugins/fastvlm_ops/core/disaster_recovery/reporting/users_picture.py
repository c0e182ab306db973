"""The picture of what users saw around the fault: each request, each write, the outage and the objective."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastvlm_ops.core.disaster_recovery.reporting import words
from fastvlm_ops.core.disaster_recovery.reporting.axes import (
    LEFT,
    RIGHT,
    WIDTH,
    Box,
    Flag,
    Scale,
    Tick,
    place_flags,
)
from fastvlm_ops.core.disaster_recovery.reporting.timeline import OUTCOMES, Timeline

_LEAST_MS, _MOST_MS = 1.0, 2000.0
_LATENCIES = ((1, "1 ms"), (10, "10 ms"), (100, "100 ms"), (1000, "1 s"))


@dataclass(frozen=True)
class UsersPicture:
    """What users saw around the fault.

    :param requests: SVG paths of dots, by kind: ``ok`` by their latency, ``failed`` in a row above
    :param writes: SVG paths of strokes, by outcome
    :param has_writes: whether the canary ever wrote anything
    :param objective_x: where the objective of the RTO is; None where it is outside
    """

    ticks: tuple[Tick, ...]
    latencies: tuple[Tick, ...]
    outages: tuple[Box, ...]
    flags: tuple[Flag, ...]
    requests: dict[str, str]
    writes: dict[str, str]
    has_writes: bool
    objective_x: float | None
    objective: str
    summary: str

    width, height, left, right, top = WIDTH, 304, LEFT, WIDTH - RIGHT, 50
    failed_y, requests_top, requests_base = 66, 84, 204
    writes_top, writes_base, base = 226, 266, 276


def users_picture(timeline: Timeline, objective_seconds: float) -> UsersPicture | None:
    """Return what users saw around the fault; None where nobody watched.

    :param timeline: of the drill
    :param objective_seconds: of the RTO
    """
    if not timeline.requests or not timeline.has_fault:
        return None
    scale = _around_the_fault(timeline)
    inside = objective_seconds <= scale.end
    outages = tuple(
        Box(
            scale.x(one.start),
            max(scale.x(scale.end if one.end is None else one.end) - scale.x(one.start), 1.0),
            "outage",
            f"{words.number(one.failed, one.what.removesuffix('s'))} failed, from {words.seconds(one.start)} "
            + ("on" if one.end is None else f"to {words.seconds(one.end)} after the fault"),
        )
        for one in timeline.outages
        if one.start <= scale.end
    )
    return UsersPicture(
        ticks=scale.ticks,
        latencies=tuple(Tick(_latency_y(ms), text) for ms, text in _LATENCIES),
        outages=outages,
        flags=_flags(timeline, scale),
        requests=_request_paths(timeline, scale),
        writes=_write_paths(timeline, scale),
        has_writes=bool(timeline.writes),
        objective_x=scale.x(objective_seconds) if inside else None,
        objective=f"objective {words.seconds(objective_seconds)}" + ("" if inside else " \u2192"),
        summary=_users_summary(timeline, objective_seconds),
    )


def _around_the_fault(timeline: Timeline) -> Scale:
    ends = [one.end for one in timeline.outages if one.end is not None]
    open_ended = any(one.end is None for one in timeline.outages)
    last = timeline.requests[-1].at
    interesting = max([*ends, timeline.recovered or 0.0, 1.0])
    end = last if open_ended else min(last, interesting * 1.5 + 1.0)
    start = max(timeline.requests[0].at, -max(2.0, 0.25 * end))
    return Scale(start, max(end, start + 1.0))


def _flags(timeline: Timeline, scale: Scale) -> tuple[Flag, ...]:
    """Fault, detection, recovery and the end of the fault, each text where it covers no other."""
    moments: list[tuple[float, str, str]] = [(0.0, "fault", "fault")]
    first = timeline.outages[0] if timeline.outages else None
    if first is not None and (first.end is None or first.known <= first.end):
        moments.append((first.known, "detected", f"noticed {words.seconds(first.known)}"))
    if timeline.recovered is not None:
        moments.append((timeline.recovered, "recovered", f"recovered {words.seconds(timeline.recovered)}"))
    if timeline.undone is not None and timeline.undone <= scale.end:
        moments.append((timeline.undone, "undone", f"fault undone {words.seconds(timeline.undone)}"))
    return place_flags([(scale.x(at), kind, text) for at, kind, text in moments], scale.right)


def _latency_y(ms: float) -> float:
    low, high = math.log10(_LEAST_MS), math.log10(_MOST_MS)
    share = (math.log10(min(max(ms, _LEAST_MS), _MOST_MS)) - low) / (high - low)
    top, base = UsersPicture.requests_top, UsersPicture.requests_base
    return round(base - share * (base - top), 1)


def _request_paths(timeline: Timeline, scale: Scale) -> dict[str, str]:
    paths: dict[str, list[str]] = {"ok": [], "failed": []}
    for one in timeline.requests:
        if not scale.start <= one.at <= scale.end:
            continue
        y = _latency_y(one.latency_ms or 0.0) if one.ok else UsersPicture.failed_y
        paths["ok" if one.ok else "failed"].append(f"M{scale.x(one.at)} {y}h0")
    return {kind: "".join(parts) for kind, parts in paths.items() if parts}


def _write_paths(timeline: Timeline, scale: Scale) -> dict[str, str]:
    paths: dict[str, list[str]] = {outcome: [] for outcome in OUTCOMES}
    top, base = UsersPicture.writes_top, UsersPicture.writes_base
    middle = (top + base) / 2
    for one in timeline.writes:
        if scale.start <= one.at <= scale.end:
            # What was acknowledged stands below, and what was not above: to be told without colours too.
            ends = (middle, base) if one.outcome == "acknowledged" else (top, middle)
            ends = (top, base) if one.outcome == "lost" else ends
            paths[one.outcome].append(f"M{scale.x(one.at)} {ends[0]}V{ends[1]}")
    return {outcome: "".join(parts) for outcome, parts in paths.items() if parts}


def _users_summary(timeline: Timeline, objective_seconds: float) -> str:
    if not timeline.outages:
        return "No request failed after the fault."
    failed = sum(one.failed for one in timeline.outages)
    recovered = (
        f"the first right answer came {words.seconds(timeline.recovered)} after the fault"
        if timeline.recovered is not None
        else "requests never were answered rightly again"
    )
    noticed = words.seconds(timeline.outages[0].start)
    return (
        f"{words.number(failed, 'request')} failed, first {noticed} after the fault; {recovered};"
        f" the objective is {words.seconds(objective_seconds)}."
    )
