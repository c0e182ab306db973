"""Where lines, areas, limits and days of a picture stand, and what is said of it."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, date, datetime, timedelta, timezone
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvlm_ops.ui import formats
from fastvlm_ops.ui.lines import (
    HEIGHT,
    NARROW,
    WIDTH,
    Area,
    Cloud,
    Curve,
    Event,
    Limit,
    Picture,
    Spot,
    draw,
    nice_above,
)

START = date(2026, 11, 1)
Values = list[float | None]


def days(count: int) -> list[date]:
    return [START + timedelta(days=n) for n in range(count)]


def picture(values: Values, *limits: float | None, **options: object) -> Picture:
    return draw(
        "p",
        "Usage",
        summary="…",
        write=partial(formats.amount, unit="%"),
        curves=[Curve("mean", "mean", days(len(values)), values)],
        limits=[Limit("risk", f"limit {n}", value) for n, value in enumerate(limits)],
        **options,  # type: ignore[arg-type]
    )


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)]


def test_a_line_goes_through_its_values_from_the_left_to_the_right() -> None:
    drawn = picture([0, 50, 100])
    (line,) = drawn.lines
    xs, ys = zip(*points(line.path), strict=True)
    assert list(xs) == sorted(xs)
    assert drawn.left < xs[0] < xs[-1] < drawn.right
    assert (ys[0], ys[2]) == (drawn.base, drawn.top)
    assert ys[1] == pytest.approx((drawn.base + drawn.top) / 2)
    assert [tick.value for tick in drawn.ticks] == [0, 20, 40, 60, 80, 100]


def test_a_gap_is_a_gap_and_a_day_by_itself_is_a_dot() -> None:
    (line,) = picture([1, 2, None, 3, float("nan"), 4, 5]).lines
    assert [len(points(part)) for part in line.path.split("M")[1:]] == [2, 2, 2]
    dot = points(line.path.split("M")[2])
    assert dot[0] == dot[1]
    (line,) = picture([None, None]).lines
    assert line.path == ""


def test_days_that_are_missing_are_a_gap_too() -> None:
    some = [START, START + timedelta(days=1), START + timedelta(days=5)]
    drawn = draw("p", "t", summary="", write=formats.amount, curves=[Curve("mean", "m", some, [1, 2, 3])])
    assert drawn.lines[0].path.count("M") == 2


def test_an_area_is_closed_and_lies_between_its_values() -> None:
    drawn = draw(
        "p",
        "t",
        summary="",
        write=formats.amount,
        areas=[Area("band", "b", days(3), [10, 20, 10], [40, 50, 40])],
    )
    path = drawn.areas[0].path
    assert path.startswith("M")
    assert path.endswith("Z")
    found = points(path)
    assert len(found) == 6
    for (x, upper), (under_x, lower) in zip(found[:3], reversed(found[3:]), strict=True):
        assert x == under_x
        assert upper < lower  # y grows downwards


def test_limits_are_written_beside_the_picture_and_not_over_each_other() -> None:
    drawn = picture([50, 60], 100.0, 99.0, 98.0, 1.0, 0.5, 0.0, None)
    texts = [rule.text for rule in drawn.rules]
    assert texts == [
        "limit 0 100 %",
        "limit 1 99 %",
        "limit 2 98 %",
        "limit 3 1 %",
        "limit 4 0.5 %",
        "limit 5 0 %",
    ]
    heights = [rule.label_y for rule in drawn.rules]
    assert all(below - above >= 15 for above, below in itertools.pairwise(heights))
    assert heights[-1] <= HEIGHT
    assert drawn.right < drawn.width - 100
    assert picture([1]).right > drawn.right  # room for texts only where there are any


def test_a_limit_far_above_is_written_and_does_not_press_the_rest_flat() -> None:
    drawn = picture([4, 5], 100.0)
    assert drawn.rules[0].y is None
    assert drawn.rules[0].text == "limit 0 100 % ↑"
    assert drawn.ticks[-1].value == 5
    assert picture([0, 0], 100.0).rules[0].y is not None  # of nothing, everything is far above


def test_marked_days_stand_at_their_beginning_with_text_inside() -> None:
    events = [
        Event("made", "forecast made", START),
        Event("exhausted", "used up", START + timedelta(days=29)),
    ]
    drawn = picture([1.0] * 30, events=events)
    assert [mark.anchor for mark in drawn.marks] == ["start", "end"]
    assert drawn.marks[0].x == drawn.left
    assert drawn.marks[0].text_y == drawn.marks[1].text_y
    close = [Event("made", "forecast made", START), Event("exhausted", "used up", START)]
    assert len({mark.text_y for mark in picture([1.0] * 30, events=close).marks}) == 2


@pytest.mark.parametrize("count", [1, 2, 8, 30, 121, 400, 2000])
@pytest.mark.parametrize("width", [WIDTH, NARROW])
def test_days_below_do_not_touch(count: int, width: int) -> None:
    drawn = picture([1.0] * count, width=width)
    xs = [day.x for day in drawn.days]
    assert xs
    assert all(after - before >= 50 for before, after in itertools.pairwise(xs))


@given(st.floats(1e-9, 1e12))
def test_scales_end_just_above_the_greatest(value: float) -> None:
    assert value <= nice_above(value) <= 2 * value
    assert nice_above(0) == nice_above(-1) == 1


@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1e9)), min_size=1, max_size=60),
    st.lists(st.one_of(st.none(), st.floats(0, 1e9)), max_size=3),
)
def test_everything_stands_inside(values: Values, limits: Values) -> None:
    drawn = picture(values, *limits)
    for x, y in points(drawn.lines[0].path):
        assert drawn.left <= x <= drawn.right
        assert drawn.top <= y <= drawn.base
    assert all(drawn.top <= tick.y <= drawn.base for tick in drawn.ticks)
    assert 2 <= len(drawn.ticks) <= 12
    assert all(rule.y is None or drawn.top <= rule.y <= drawn.base for rule in drawn.rules)
    assert len(drawn.rules) == sum(limit is not None for limit in limits)


def test_a_scale_of_its_own_need_not_begin_at_zero() -> None:
    drawn = picture([0.93, 0.97], scale=(0.85, 1.0))
    assert drawn.ticks[0].value == 0.85
    assert drawn.ticks[-1].value == 1.0
    assert points(drawn.lines[0].path)[0][1] > points(drawn.lines[0].path)[1][1]


def test_nothing_at_all_is_a_picture_too() -> None:
    drawn = draw("p", "t", summary="", write=formats.amount)
    assert (drawn.lines, drawn.areas, drawn.legend) == ((), (), [])


def test_the_legend_names_what_is_drawn() -> None:
    drawn = picture([1], 2.0, None)
    assert drawn.legend == [("line", "mean", "mean"), ("rule", "risk", "limit 0")]


def of_moments(*moments: datetime, **options: object) -> Picture:
    return draw(
        "p",
        "Latency",
        summary="…",
        write=formats.amount,
        clouds=[Cloud("sessions", "a session", moments, [5.0] * len(moments))],
        scale=(4.0, 6.0),
        **options,  # type: ignore[arg-type]
    )


def test_moments_stand_within_their_day_whatever_their_zone() -> None:
    midnight = datetime(2026, 11, 1, tzinfo=UTC)
    moments = [midnight + timedelta(hours=hours) for hours in (0, 6, 24, 47)]
    moments.append(moments[1].astimezone(timezone(timedelta(hours=-9))))  # 21:00 of the day before there
    drawn = of_moments(*moments)
    xs = [x for x, _ in points(drawn.clouds[0].path)]
    assert xs[0] == drawn.left
    assert xs[1] - xs[0] == pytest.approx((xs[2] - xs[0]) / 4, abs=0.1)
    assert xs[3] < drawn.right
    assert xs[4] == xs[1]
    assert [day.text for day in drawn.days] == ["01 Nov", "02 Nov"]


def test_a_cloud_keeps_to_the_picture_and_leaves_out_what_is_no_number() -> None:
    drawn = draw(
        "p",
        "t",
        summary="",
        write=formats.amount,
        clouds=[Cloud("sessions", "s", days(4), [5.0, 100.0, 0.0, float("nan")])],
        scale=(4.0, 6.0),
    )
    assert drawn.clouds[0].path.count("M") == drawn.clouds[0].path.count("h0") == 3
    assert [y for _, y in points(drawn.clouds[0].path)][1:] == [drawn.top, drawn.base]


def test_spots_stand_at_their_values_and_at_the_foot_without_one() -> None:
    at = datetime(2026, 11, 1, 12, tzinfo=UTC)
    spots = [
        Spot("good", "fine", at, 6.0, "6 ms"),
        Spot("bad", "worse", at + timedelta(days=1), None, "crashed"),
        Spot("good", "fine", at + timedelta(days=2), 5.0, "5 ms"),
    ]
    drawn = of_moments(at, spots=spots)
    assert [dot.y for dot in drawn.dots] == [drawn.top, drawn.base, (drawn.top + drawn.base) / 2]
    assert drawn.legend == [
        ("cloud", "sessions", "a session"),
        ("dot", "good", "fine"),
        ("dot", "bad", "worse"),
    ]


def test_a_line_joins_moments_that_are_near_enough() -> None:
    at = datetime(2026, 11, 1, 1, tzinfo=UTC)
    moments = [at, at + timedelta(hours=25), at + timedelta(hours=75)]
    drawn = of_moments(at, curves=[Curve("mean", "m", moments, [5, 5, 5], timedelta(hours=40))])
    assert [len(points(part)) for part in drawn.lines[0].path.split("M")[1:]] == [2, 2]
    drawn = of_moments(at, curves=[Curve("mean", "m", moments, [5, 5, 5])])
    assert drawn.lines[0].path.count("M") == 3


def test_texts_at_the_foot_do_not_push_those_above() -> None:
    events = [
        Event("epoch", "a", START),
        Event("worse", "b", START + timedelta(days=1), at_foot=True),
        Event("worse", "c", START + timedelta(days=2), at_foot=True),
        Event("epoch", "d", START + timedelta(days=3)),
    ]
    drawn = picture([1.0] * 60, events=events)
    a, b, c, d = (mark.text_y for mark in drawn.marks)
    assert [mark.event.title for mark in drawn.marks] == ["a", "b", "c", "d"]
    assert d < a < drawn.top
    assert c < b < drawn.base
