"""What the pages of Core ML benchmarks read from the operations database, and draw of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from fastvlm_ops.core.config.coreml import CompareRules
from fastvlm_ops.core.coreml.devices.interface import Device, HardwareClass, Placement, SessionResult
from fastvlm_ops.core.coreml.epochs import Epoch
from fastvlm_ops.core.coreml.judging import judge_run
from fastvlm_ops.core.coreml.records import BaselineRecord, RunRecord
from fastvlm_ops.core.coreml.storing import record_verdicts
from fastvlm_ops.core.store import Store, open_store
from fastvlm_ops.core.store.tables.coreml import baselines, runs, sessions, verdicts
from fastvlm_ops.ui.coreml.data import read_overview
from fastvlm_ops.ui.coreml.history import Detail, read_detail
from fastvlm_ops.ui.coreml.pictures import latency_picture, other_pictures, parity_picture, sparkline
from fastvlm_ops.ui.coreml.standing import (
    NOT_JUDGED,
    NOT_MEASURED,
    STALE,
    STALE_AFTER,
    Judged,
    Standing,
    Subject,
    rank,
    tone,
)

AT = datetime.now(UTC).replace(hour=1, minute=0, second=0, microsecond=0)  # what is older is stale
DAY = timedelta(days=1)
PHONE = Subject("Encoder", "phone", "ALL")
REFERENCE = Subject("Encoder", "linux-reference", "ALL")
RULES = CompareRules()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'operations.db'}", migrate_first=True) as store:
        yield store


@pytest.fixture
def either_store(database_url: str) -> Iterator[Store]:
    """One in each kind of database: for the tests whose queries say most."""
    with open_store(database_url, migrate_first=True) as store:
        yield store


def key(night: int) -> str:
    return f"coreml_benchmark/r{night}"


def run(subject: Subject, night: int = 0, **changes: Any) -> dict[str, Any]:
    """The row of a run, so many nights ago; what is not given is unknown."""
    row: dict[str, Any] = dict.fromkeys(column.name for column in runs.c)
    system = changes.pop("system", "18.1")
    device = {"hardware_class": "iphone", "os_version": system, "os_build": f"B{system}"}
    epoch = Epoch.of({**device, "model": "iPhone16,1"}, {"xcode": "16"}, subject.compute_unit)
    row |= {"run_key": key(night), **subject._asdict(), "measured_at": AT - night * DAY, **device}
    row |= {"device_model": "iPhone16,1", "toolchain": {"xcode": "16"}, "epoch": epoch.key}
    row |= {"version": "1", "digest": "d1", "status": "complete", "sessions": 3, "sessions_failed": 0}
    return row | {"latency_p50_ms": 10.0} | changes


def said(subject: Subject, night: int = 0, metric: str = "latency_p50", **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"run_key": key(night), **subject._asdict(), "metric": metric, "verdict": "OK"}
    row |= dict.fromkeys(("baseline_value", "value", "change", "p_value", "confidence"))
    row |= {"judged_at": AT - night * DAY, "reason": f"about {metric}", "gate": True, "details": {}}
    return row | changes


def session(subject: Subject, night: int, index: int, value: float | None, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(column.name for column in sessions.c)
    row |= {"run_key": key(night), **subject._asdict(), "session_index": index, "measured_at": AT}
    return row | {"predictions": 20, "p50_ms": value, "cooldown_seconds": 0.0} | changes


def accepted(subject: Subject, night: int, epoch: str, **changes: Any) -> dict[str, Any]:
    row = {"run_key": key(night), **subject._asdict(), "accepted_at": AT - night * DAY + DAY / 24}
    return row | {"accepted_by": "green", "version": "1", "digest": "d1", "epoch": epoch} | changes


def fill(store: Store, table: Any, *rows: dict[str, Any]) -> None:
    with store.write() as connection:
        connection.execute(insert(table), list(rows))


def one(store: Store, subject: Subject = PHONE) -> Standing:
    return next(one for one in read_overview(store, None).standings if one.subject == subject)


# Where a subject stands.


def test_the_worst_of_what_counts_is_the_verdict(store: Store) -> None:
    fill(store, runs, run(PHONE))
    fill(
        store,
        verdicts,
        said(PHONE, metric="size", verdict="UNSTABLE"),
        said(PHONE, metric="latency_p50", verdict="REGRESSION"),
        said(PHONE, metric="placement", verdict="REGRESSION"),
        said(PHONE, metric="load_warm", verdict="FAILED", gate=False),
        said(PHONE, metric="parity"),
    )
    found = one(store)
    assert (found.verdict, found.tone) == ("REGRESSION", "bad")
    assert [judged.metric for judged in found.worst] == ["latency_p50", "placement"]
    assert found.reason == "about latency_p50"
    assert [judged.metric for judged in found.judged][-1] == "load_warm"  # what only informs comes last


@pytest.mark.parametrize(
    ("verdict", "colour"),
    [
        ("REGRESSION", "bad"),
        ("FAILED", "bad"),
        ("MISSING", "bad"),
        ("UNSTABLE", "warn"),
        ("INSUFFICIENT", "warn"),
        (NOT_JUDGED, "warn"),
        (NOT_MEASURED, "warn"),
        (STALE, "warn"),
        ("IMPROVEMENT", "good"),
        ("OK", "good"),
        ("A WORD OF TOMORROW", "bad"),
    ],
)
def test_nothing_but_what_is_known_to_be_good_looks_good(verdict: str, colour: str) -> None:
    assert tone(verdict) == colour
    assert (rank(verdict) < rank("IMPROVEMENT")) == (colour != "good")


def test_without_verdicts_it_is_not_judged_and_never_ok(store: Store) -> None:
    fill(store, runs, run(PHONE), run(REFERENCE, failure_detail="the reference lacks topk"))
    fill(store, verdicts, said(PHONE, gate=False))
    assert (one(store).verdict, one(store).tone) == (NOT_JUDGED, "warn")
    assert "not compared" in one(store).reason
    assert one(store, REFERENCE).reason == "the reference lacks topk"


def test_the_list_is_of_the_newest_run_of_each_worst_first(either_store: Store) -> None:
    store = either_store
    other = Subject("Encoder", "phone", "CPU_ONLY")
    fill(
        store,
        runs,
        run(PHONE, 1),
        run(PHONE, 0, version="2"),
        run(other, 3),
        run(REFERENCE, 0, hardware_class="linux-reference"),
    )
    fill(
        store,
        verdicts,
        said(PHONE, 1, verdict="FAILED"),  # of an earlier run
        said(PHONE, 0),
        said(other, 3, verdict="INSUFFICIENT"),
        said(REFERENCE, 0),
    )
    overview = read_overview(store, None)
    assert [(one.subject, one.verdict) for one in overview.standings] == [
        (other, "INSUFFICIENT"),
        (PHONE, "OK"),
        (REFERENCE, "OK"),  # Apple's hardware first
    ]
    assert overview.newest_at == AT
    assert one(store).run is not None
    assert one(store).run["version"] == "2"  # type: ignore[index]
    of_run = read_overview(store, {Subject("New", "phone", "ALL"): None}, key(1))
    assert [(one.subject, one.verdict) for one in of_run.standings] == [(PHONE, "FAILED")]


def test_what_was_never_measured_is_listed_and_what_is_not_declared_is_told(store: Store) -> None:
    new = Subject("New", "linux-reference", "ALL")
    fill(store, runs, run(PHONE))
    fill(store, verdicts, said(PHONE, verdict="REGRESSION"))
    overview = read_overview(store, {new: "linux-reference"})
    assert [(one.subject, one.verdict, one.declared) for one in overview.standings] == [
        (new, NOT_MEASURED, True),
        (PHONE, "REGRESSION", False),  # which nobody wants to know any more
    ]
    assert overview.count("REGRESSION") == 0
    assert overview.standings[0].is_apple is False
    assert read_overview(store, None).standings[0].declared is None


@pytest.mark.parametrize(
    ("said_then", "now", "reason"),
    [("OK", STALE, "it was OK 4 d ago"), ("REGRESSION", "REGRESSION", "about latency_p50")],
)
def test_what_was_good_long_ago_is_no_longer_known_to_be(
    store: Store, said_then: str, now: str, reason: str
) -> None:
    row = run(PHONE, measured_at=datetime.now(UTC) - STALE_AFTER - DAY)
    fill(store, runs, row)
    fill(store, verdicts, said(PHONE, verdict=said_then))
    found = one(store)
    assert (found.said, found.verdict, found.is_stale) == (said_then, now, True)
    assert found.tone != "good"
    assert found.reason.startswith(reason)
    undeclared = read_overview(store, {}).standings[0]
    of_run = read_overview(store, None, key(0)).standings[0]
    assert (undeclared.verdict, of_run.verdict) == (said_then, said_then)
    fresh = replace(found, now=row["measured_at"] + STALE_AFTER)
    assert (fresh.verdict, fresh.is_stale) == (said_then, False)


def test_a_missing_device_keeps_its_class_and_has_no_latency(store: Store) -> None:
    fill(
        store,
        runs,
        run(PHONE, 2, latency_p50_ms=11.0),
        run(PHONE, 1, latency_p50_ms=300.0, hardware_class="linux-reference"),
        run(PHONE, 0, latency_p50_ms=None, hardware_class=None, epoch="", toolchain={}),
    )
    fill(store, verdicts, said(PHONE, metric="status", verdict="MISSING"))
    found = one(store)
    assert (found.verdict, found.hardware_class) == ("MISSING", "linux-reference")
    # What ran on hardware of another class is not drawn beside it.
    assert [value for _, value in found.recent] == [None, 300.0, None]


def test_rows_are_chosen_by_part_verdict_and_group(store: Store) -> None:
    fill(store, runs, run(PHONE), run(REFERENCE))
    fill(store, verdicts, said(PHONE, verdict="MISSING"), said(REFERENCE))
    overview = read_overview(store, None)

    def devices(**wanted: str) -> list[str]:
        return [one.subject.device for one in overview.chosen(wanted)]

    assert devices() == ["phone", "linux-reference"]
    assert devices(device="phone") == devices(verdict="MISSING") == devices(verdict="none") == ["phone"]
    assert devices(verdict="good") == devices(model="Encoder", verdict="OK") == ["linux-reference"]
    assert devices(model="Other") == devices(device="phone", verdict="OK") == []
    assert overview.choices("verdict") == ["MISSING", "OK"]
    assert overview.choices("device") == ["linux-reference", "phone"]


def test_nothing_at_all(store: Store) -> None:
    overview = read_overview(store, None)
    assert (overview.standings, overview.newest_at) == ([], None)
    assert read_detail(store, PHONE, "", 90, RULES) is None


def test_intervals_and_moved_operations_are_read_from_details_of_any_shape() -> None:
    moved = [{"operation": "conv_1"}]
    judged = Judged(said(PHONE, details={"low": 0.1, "high": True, "moved": [*moved, "x"]}))
    assert (judged.low, judged.high, [one["operation"] for one in judged.moved_operations]) == (
        0.1,
        None,
        ["conv_1"],
    )
    assert judged.moved_operations[0]["cost_share"] is None
    for details in ({}, None, [1], {"moved": None}, {"low": "1"}):
        judged = Judged(said(PHONE, details=details))
        assert (judged.low, judged.high, judged.moved_operations) == (None, None, [])
    with pytest.raises(AttributeError):
        _ = judged.no_such_column


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("latency_p90", 12.34, "12.3 ms"),
        ("latency_p90", None, "unknown"),
        ("size", 3_730_000.0, "3.6 MiB"),
        ("parity", 200.0, "identical"),
        ("parity", 81.8, "81.8 dB"),
        ("compression", 0.5, "50 %"),
        ("placement", 0.16, "16 % elsewhere"),
        ("placement", None, "unknown"),
        ("status", None, ""),
        ("of_tomorrow", 1.0, ""),
    ],
)
def test_values_are_written_by_metric(metric: str, value: float | None, text: str) -> None:
    assert Judged(said(PHONE, metric=metric)).write(value) == text


@pytest.mark.parametrize(
    ("metric", "before", "now", "text"),
    [
        ("latency_p50", 10.0, 10.5, "+5.0 %"),
        ("parity", 81.8, 30.4, "\u221251.4 dB"),
        ("parity", 81.8, 81.77, "±0.0 dB"),
        ("parity", 81.8, 82.0, "+0.2 dB"),
        ("placement", 0.03, 0.16, "+13.0 points"),
        ("compression", 0.9, 0.0, "\u221290.0 points"),
        ("parity", None, 30.4, ""),
        ("latency_p50", None, 10.0, ""),
    ],
)
def test_changes_are_written_by_metric(metric: str, before: float | None, now: float, text: str) -> None:
    change = now / before - 1 if before else None
    row = said(PHONE, metric=metric, baseline_value=before, value=now, change=change)
    assert Judged(row).written_change == text


def test_a_placement_that_is_not_known_is_none() -> None:
    shares = {
        "cost_share_ane": 0.75,
        "cost_share_gpu": 0.0,
        "cost_share_cpu": 0.25,
        "cost_share_unknown": None,
    }
    assert [(unit, share) for unit, _, share in Standing(PHONE, run(PHONE, **shares)).shares] == [
        ("ane", 0.75),
        ("cpu", 0.25),
    ]
    assert Standing(PHONE, run(PHONE)).shares == Standing(PHONE).shares == []


# How it came there.


def nights(store: Store, count: int, *, step_at: int = 0, **changes: Any) -> None:
    """So many nights, the newest last; from one on, 8 % slower and not accepted."""
    for number in range(count):
        night, slow = count - 1 - number, bool(step_at) and number >= step_at
        row = run(PHONE, night, **changes)
        level = 10.0 * (1 + 0.004 * ((number * 7) % 5 - 2)) * (1.08 if slow else 1)
        fill(store, runs, row)
        fill(store, sessions, *(session(PHONE, night, n, level * (1 + 0.003 * n)) for n in range(5)))
        fill(store, verdicts, said(PHONE, night, verdict="REGRESSION" if slow else "OK"))
        if not slow:
            fill(store, baselines, accepted(PHONE, night, row["epoch"]))


def detail(store: Store, run_key: str = "", days: int = 90) -> Detail:
    found = read_detail(store, PHONE, run_key, days, RULES)
    assert found is not None
    return found


def test_a_step_is_found_and_the_baseline_stays_below_it(either_store: Store) -> None:
    store = either_store
    nights(store, 30, step_at=24)
    found = detail(store)
    assert len(found.nights) == 30
    assert [night.verdict for night in found.nights] == ["OK"] * 24 + ["REGRESSION"] * 6
    assert [night.accepted for night in found.nights] == [True] * 24 + [False] * 6
    (change,) = found.changes
    assert change.at == found.nights[24].at
    assert change.change == pytest.approx(0.08, abs=0.02)
    assert found.nights[0].band is None  # nothing was accepted before
    low, high, middle = found.nights[-1].band or (0, 0, 0)
    assert low < middle < high < found.nights[-1].latency  # type: ignore[operator]
    assert found.nights[-1].band == found.nights[24].band
    picture = latency_picture(found)
    assert picture.clouds[0].path.count("M") == 30 * 5
    assert [dot.spot.kind for dot in picture.dots] == ["good"] * 24 + ["bad"] * 6
    assert [mark.event.kind for mark in picture.marks] == ["worse"]
    assert re.fullmatch(r"\+\d\.\d %", picture.marks[0].event.title)
    assert "30 of 30 runs" in picture.summary
    assert f"on {change.at:%Y-%m-%d}" in picture.summary


def test_a_new_system_starts_a_new_baseline(store: Store) -> None:
    nights(store, 12)
    for number in range(3):
        row = run(PHONE, -1 - number, system="18.2")
        fill(store, runs, row)
        fill(store, sessions, *(session(PHONE, -1 - number, n, 12.0) for n in range(5)))
        fill(store, baselines, accepted(PHONE, -1 - number, row["epoch"]))
    found = detail(store)
    assert [(epoch.at, epoch.reason) for epoch in found.epochs] == [(AT + DAY, "OS 18.1 → 18.2")]
    assert found.changes == []  # 20 % more, and not to be compared
    assert found.nights[12].band is None
    assert found.nights[13].band == (12.0, 12.0, 12.0)
    picture = latency_picture(found)
    assert len(picture.areas) == 2
    assert [mark.event.title for mark in picture.marks] == ["OS 18.1 → 18.2"]
    assert [entry for entry in picture.legend if entry[0] == "area"] == [picture.legend[0]]


def test_another_class_of_hardware_is_not_drawn_but_counted(store: Store) -> None:
    fill(store, runs, run(PHONE, 3, hardware_class="linux-reference"), run(PHONE, 1))
    fill(store, runs, run(PHONE, 0, hardware_class=None, epoch="", failure_code="device_missing"))
    found = detail(store)
    assert [night.run["run_key"] for night in found.nights] == [key(1), key(0)]
    assert found.elsewhere == 1
    assert found.standing.hardware_class == "iphone"
    assert found.epochs == []  # a night without its device is none


def test_failed_sessions_and_runs_are_gaps(store: Store) -> None:
    fill(store, runs, run(PHONE, 2), run(PHONE, 1, latency_p50_ms=None, failure_code="app_crashed"))
    fill(store, runs, run(PHONE, 0))
    fill(store, sessions, session(PHONE, 2, 0, 10.0), session(PHONE, 2, 1, 50.0, failure_code="no_answer"))
    found = detail(store)
    assert [list(night.latencies) for night in found.nights] == [[10.0], [], []]
    picture = latency_picture(found)
    assert picture.lines[0].path.count("M") == 2
    assert picture.dots[1].spot.value is None
    assert "app crashed" in picture.dots[1].spot.text
    assert [dot.spot.kind for dot in picture.dots] == ["warn"] * 3  # nobody has judged them


def test_another_run_and_a_shorter_history_can_be_chosen(either_store: Store) -> None:
    store = either_store
    nights(store, 20, step_at=15)
    found = detail(store, key(7), days=7)
    assert found.standing.verdict == "OK"
    assert len(found.nights) == 8
    assert found.nights[0].band is not None  # of nights that are not shown
    assert (len(found.runs), found.runs[0]) == (20, (key(0), AT))
    assert [judged.run_key for judged in found.earlier] == [key(n) for n in range(5)]
    assert [judged.run_key for judged in detail(store).earlier] == [key(n) for n in range(1, 5)]
    assert read_detail(store, PHONE, "coreml_benchmark/none", 90, RULES) is None


def test_versions_have_their_plan_and_what_moved(either_store: Store) -> None:
    store = either_store
    shares = {"cost_share_ane": 1.0, "cost_share_gpu": 0.0, "cost_share_cpu": 0.0, "cost_share_unknown": 0.0}
    fill(store, runs, run(PHONE, 3, **shares), run(PHONE, 2, version="2", digest="d2", **shares))
    fill(store, runs, run(PHONE, 1, version="2", digest="d2"))
    moved = {"verdict": "REGRESSION", "details": {"moved": [{"operation": "conv"}]}}
    fill(store, verdicts, *(said(PHONE, night, "placement", **moved) for night in (2, 1)))
    fill(store, verdicts, said(PHONE, 3, "placement", details={"moved": [{"operation": "a little"}]}))
    new, old = detail(store).versions
    assert (new.name, new.runs, new.first_at, old.name) == ("2", 2, AT - 2 * DAY, "1")
    assert new.placed is not None
    assert new.placed["run_key"] == key(2)  # the newest that has a plan
    (once,) = new.moved  # though it was said in both nights
    assert [one["operation"] for one in once.moved_operations] == ["conv"]
    assert [(one.verdict, one.moved_operations[0]["operation"]) for one in old.moved] == [("OK", "a little")]


def test_parity_and_what_else_is_known_are_drawn(store: Store) -> None:
    fill(
        store,
        runs,
        run(PHONE, 3, psnr_db=81.0, peak_memory_bytes=1 << 21),
        run(PHONE, 2, psnr_db=30.0, peak_memory_bytes=None),
        run(PHONE, 1, psnr_db=None, nan_count=7, inf_count=1, peak_memory_bytes=1 << 20),
        run(PHONE, 0),
    )
    found = detail(store)
    picture = parity_picture(found, 35.0)
    assert picture is not None
    assert [dot.spot.kind for dot in picture.dots] == ["good", "bad", "bad"]
    assert "8 numbers are NaN or infinite" in picture.dots[2].spot.text
    assert [rule.text for rule in picture.rules] == ["at least 35 dB"]
    assert "3 runs were compared" in picture.summary
    assert "1 runs had numbers" in picture.summary
    (memory,) = other_pictures(found)
    assert memory.title == "Peak memory"
    assert "lowest 1 MiB, highest 2 MiB, last 1 MiB" in memory.summary


def test_without_anything_known_pictures_say_so(store: Store) -> None:
    fill(store, runs, run(PHONE, latency_p50_ms=None))
    found = detail(store)
    picture = latency_picture(found)
    assert (picture.areas, picture.clouds, picture.rules) == ((), (), ())
    assert picture.summary == "Nothing is known."
    assert parity_picture(found, 35.0) is None
    assert other_pictures(found) == []


def test_a_small_line_has_gaps_and_stays_inside() -> None:
    values = [1.0, 2.0, None, 4.0, 3.0]
    path = sparkline([(AT + n * DAY, value) for n, value in enumerate(values)], 100, 20)
    assert path.count("M") == 2
    points = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)]
    assert len(points) == 4
    assert all(0 <= x <= 100 and 0 <= y <= 20 for x, y in points)
    assert points[2][1] < points[0][1]  # more is higher
    assert sparkline([(AT, 1.0), (AT + DAY, None)]) == sparkline([]) == ""


# What the benchmarks themselves say.


def record(night: int, latency_ms: float, unit: str) -> RunRecord:
    placement = (
        Placement("conv_1", "ios17.conv", "ane", 0.8),
        Placement("pool_1", "ios17.avg_pool", unit, 0.2),
    )
    device = Device("phone", HardwareClass.IPHONE, "iPhone16,1", "18.1", "22B83")
    epoch = Epoch.of(device.as_dict(), {"xcode": "16"}, "ALL")
    sessions = tuple(
        SessionResult(n, samples_ms=(latency_ms * (1 + 0.004 * (n % 4)),) * 5, placement=placement)
        for n in range(12)
    )
    return RunRecord(
        run_key=key(night),
        device=device.as_dict(),
        model="Encoder",
        version="1",
        digest=f"d{night}",
        compute_unit="ALL",
        epoch=epoch.key,
        hardware_class=str(HardwareClass.IPHONE),
        sessions=sessions,
        toolchain={"xcode": "16"},
        started_at=(AT - night * DAY).isoformat(),
    )


def test_what_was_judged_is_what_is_shown(store: Store) -> None:
    candidate = record(0, 10.8, "cpu")
    judgements = judge_run(candidate, BaselineRecord((record(2, 10.0, "ane"), record(1, 10.0, "ane"))), RULES)
    shares = {"cost_share_ane": 0.8, "cost_share_gpu": 0.0, "cost_share_cpu": 0.2}
    fill(store, runs, run(PHONE, digest="d0", latency_p50_ms=10.8, **shares))
    record_verdicts(store, key(0), judgements)
    found = one(store)
    assert (found.verdict, [judged.metric for judged in found.worst]) == (
        "REGRESSION",
        ["latency_p50", "latency_p90", "placement"],
    )
    latency, placement = found.worst[0], found.worst[2]
    assert latency.low is not None
    assert latency.high is not None
    assert latency.low < 0.08 < latency.high
    assert latency.written_change == "+8.0 %"
    assert placement.moved_operations == [
        {
            **{"operation": "pool_1", "kind": "ios17.avg_pool", "before": "ane", "after": "cpu"},
            **{"cost_share": 0.2, "is_new": False},
        }
    ]
    assert placement.written_change == "+20.0 points"
    assert [judged.moved_operations for judged in detail(store).versions[0].moved] == [
        placement.moved_operations
    ]
