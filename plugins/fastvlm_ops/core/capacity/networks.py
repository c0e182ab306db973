"""Medians, and sorting networks over whole planes of numbers.

So many short rows are sorted several times as fast by comparing plane with plane, as row by row.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.capacity.cleaning import Floats

Pairs = tuple[tuple[int, int], ...]


@functools.cache
def comparisons(count: int, *, sorted_runs: int = 1, middle: bool = False) -> Pairs:
    """Batcher's odd-even merge sort (1968): which planes to compare, in order.

    :param count: of planes
    :param sorted_runs: so many planes that follow each other are sorted already; a power of two
    :param middle: leave out what the middle one or two do not depend on
    """
    pairs = []
    sizes = (2**power for power in range(count.bit_length()))
    for size in (size for size in sizes if sorted_runs <= size < count):
        for step in (size >> power for power in range(size.bit_length())):
            for start in range(step % size, count - step, 2 * step):
                for one in range(start, start + min(step, count - start - step)):
                    if one // (2 * size) == (one + step) // (2 * size):
                        pairs.append((one, one + step))
    if not middle:
        return tuple(pairs)
    needed, kept = {(count - 1) // 2, count // 2}, []
    for pair in reversed(pairs):
        if needed.intersection(pair):
            kept.append(pair)
            needed.update(pair)
    return tuple(kept[::-1])


def sort_planes(planes: list[Floats], pairs: Pairs) -> list[Floats]:
    """Sort along the list, at each place by itself.

    :param planes: of one shape; they are written to
    :param pairs: from :func:`comparisons`
    """
    planes = list(planes)
    lower = np.empty_like(planes[0])
    for one, other in pairs:
        np.minimum(planes[one], planes[other], out=lower)
        np.maximum(planes[one], planes[other], out=planes[other])
        planes[one], lower = lower, planes[one]
    return planes


def middle_of(planes: list[Floats], pairs: Pairs) -> Floats:
    """Median along the list; see :func:`sort_planes`."""
    ordered = sort_planes(planes, pairs)
    return np.asarray((ordered[(len(planes) - 1) // 2] + ordered[len(planes) // 2]) / 2)


def median_of_rows(values: Floats) -> Floats:
    """Median along the last axis: NumPy sorts short rows several times as fast as it partitions them."""
    count = values.shape[-1]
    ordered = np.sort(values, axis=-1)
    return np.asarray((ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2)


def with_index(planes: Floats) -> list[Floats]:
    """Write the number of each plane into its numbers, in place of their last bits: what is sorted then
    knows where it came from. Numbers that differ in nothing else go by their planes' numbers.

    :param planes: planes x any shape, finite
    """
    mask = (1 << (len(planes) - 1).bit_length()) - 1
    return [((plane.view(np.int64) & ~mask) | number).view(np.float64) for number, plane in enumerate(planes)]


def index_of(planes: Floats, count: int) -> NDArray[np.int64]:
    """Read the numbers that :func:`with_index` wrote.

    :param count: of planes that it was given
    """
    mask = (1 << (count - 1).bit_length()) - 1
    return np.asarray(planes.view(np.int64) & mask)
