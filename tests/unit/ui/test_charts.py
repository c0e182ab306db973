"""Where bars of a chart stand, and what is said of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fastvlm_ops.ui import formats
from fastvlm_ops.ui.charts import HEIGHT, WIDTH, Chart, Point, bar_chart, bytes_top, seconds_top

START = datetime(2026, 11, 1, tzinfo=UTC)


def chart(*values: float | None) -> Chart:
    points = [
        Point(f"set-{n}", START + timedelta(days=n), value, "full", f"/backups/set-{n}")
        for n, value in enumerate(values)
    ]
    return bar_chart("d", "Duration", points, formats.duration, seconds_top)


def test_bars_stand_inside_side_by_side_and_as_high_as_their_values() -> None:
    drawn = chart(100, 50, 0, 25)
    heights = [bar.height for bar in drawn.bars]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.02)
    assert heights[2] == 0
    assert all(bar.y + bar.height == pytest.approx(drawn.base, abs=0.02) for bar in drawn.bars)
    for left, right in zip(drawn.bars, drawn.bars[1:], strict=False):
        assert left.x + left.width <= right.x
    assert drawn.bars[0].x >= drawn.left
    assert drawn.bars[-1].x + drawn.bars[-1].width <= WIDTH
    assert [tick.value for tick in drawn.ticks] == [0, 60, 120]
    assert all(0 < tick.y < HEIGHT for tick in drawn.ticks)


def test_unknown_is_no_bar_of_nothing_and_little_is_not_nothing() -> None:
    unknown, little, _ = chart(None, 0.001, 1000).bars
    assert unknown.height == 0
    assert unknown.point.value is None
    assert little.height == 1


def test_says_what_is_drawn() -> None:
    assert chart(100, None, 30).summary == (
        "Duration of 3 backups from 2026-11-01 to 2026-11-03: lowest 30 s, highest 1 min 40 s, last 30 s."
    )
    assert chart(None, None).summary == chart().summary == "Duration: nothing is known."


@pytest.mark.parametrize("greatest", [0, 1, 999, 1023, 1024, 5 << 20, 1023 << 20, 3 << 40])
def test_scales_in_bytes_end_just_above_the_greatest(greatest: int) -> None:
    assert greatest <= bytes_top(greatest) <= max(2.5 * greatest, 1)


@pytest.mark.parametrize("greatest", [0, 0.3, 59, 60, 61, 7000, 14401, 86400 * 3.5])
def test_scales_in_seconds_end_just_above_the_greatest(greatest: float) -> None:
    assert greatest <= seconds_top(greatest) <= max(7 * greatest, 1)
