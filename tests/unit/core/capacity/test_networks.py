"""Planes are sorted as NumPy sorts rows, and what is sorted knows where it came from."""

from __future__ import annotations

import numpy as np
import pytest

from fastvlm_ops.core.capacity.networks import comparisons, index_of, middle_of, sort_planes, with_index

NUMBERS = np.random.default_rng(3)


@pytest.mark.parametrize("count", range(1, 34))
def test_planes_are_sorted_at_each_place(count: int) -> None:
    planes = NUMBERS.integers(-9, 9, (count, 50, 3)).astype(float)  # many are equal
    assert np.array_equal(np.sort(planes, axis=0), sort_planes(list(planes.copy()), comparisons(count)))
    middle = middle_of(list(planes.copy()), comparisons(count, middle=True))
    assert np.array_equal(np.median(planes, axis=0), middle)


@pytest.mark.parametrize(("count", "runs"), [(24, 8), (20, 8), (14, 2), (7, 4)])
def test_runs_that_are_sorted_are_merged(count: int, runs: int) -> None:
    planes = NUMBERS.normal(size=(count, 50))
    for start in range(0, count, runs):
        planes[start : start + runs].sort(axis=0)
    merging = comparisons(count, sorted_runs=runs)
    assert np.array_equal(np.sort(planes, axis=0), sort_planes(list(planes), merging))
    assert len(merging) < len(comparisons(count))


def test_what_is_sorted_knows_where_it_came_from() -> None:
    planes = NUMBERS.normal(size=(14, 1000)) * 10.0 ** NUMBERS.integers(-12, 12, 1000)
    planes[3] = planes[5] = 0.0
    ordered = np.stack(sort_planes(with_index(planes), comparisons(14)))
    order = index_of(ordered, 14)
    assert np.array_equal(np.sort(order, axis=0), np.tile(np.arange(14)[:, None], 1000))
    assert np.array_equal(np.take_along_axis(planes, order, axis=0), np.sort(planes, axis=0))
    assert np.allclose(ordered, np.sort(planes, axis=0), rtol=1e-14, atol=1e-320)
