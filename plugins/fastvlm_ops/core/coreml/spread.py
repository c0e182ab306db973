"""Which sessions belong together, and which are far from the others of their group: throttled ones, mostly.

A hot or busy device runs some sessions a quarter slower. They say nothing of the model, and they would hide a
change or feign one. Where they are few they are told apart and left out, on both sides by the same rule;
where they are many, the group has no speed to speak of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Cuts, each with the share of the distances whose largest tells the scale, and what it is of normal ones. The
# first goes by the nearest third, which even many far sessions hardly widen, and is narrow; the last ones are
# wide, so that of ordinary sessions hardly any is left out.
_CUTS = ((2.0, 1 / 3, 0.4307), (4.0, 0.5, 0.6745), (4.0, 0.5, 0.6745))

_FEWEST_NIGHTS, _FEWEST_OF_A_NIGHT = 6, 3
# With so few nights Student's factor would let hardly a change through: this is what a dozen ask for.
_LARGEST_FACTOR = 3.1


def find_near(groups: Sequence[Floats], smallest: float) -> tuple[Bools, ...]:
    """Return which sessions of each group are near the group's own centre; the others are far.

    A group as a whole may be anywhere: only its own sessions are compared with its centre. The scale is that
    of all groups together, since one group alone may be small.

    :param groups: logarithms of values, none of them empty
    :param smallest: distance below which nothing is far, as a logarithm
    """
    deviations = [group - _centre(group) for group in groups]
    near = tuple(np.ones(len(group), dtype=bool) for group in groups)
    for cut, part, of_normal in _CUTS:
        together = np.concatenate([one[keep] for one, keep in zip(deviations, near, strict=True)])
        limit = max(smallest, cut * float(np.quantile(np.abs(together), part)) / of_normal)
        near = tuple(np.abs(one) <= limit for one in deviations)
    return near


def _centre(group: Floats) -> float:
    """Middle of the shortest half: where most sessions are, though nearly half of them may be elsewhere."""
    ordered = np.sort(group)
    half = len(ordered) // 2 + 1
    lengths = ordered[half - 1 :] - ordered[: len(ordered) - half + 1]
    start = int(np.argmin(lengths))
    return float(ordered[start + (half - 1) // 2])


def too_many_far(near: Sequence[Bools], share: float) -> bool:
    """Return whether so many sessions are far that nothing can be concluded.

    That is so where the share among all may be as high as the limit, or where one group's is surely above it.

    :param near: of :func:`find_near`
    :param share: the limit
    """
    found, error = _far_share(np.concatenate(near))
    return found + error >= share or any(found - error > share for found, error in map(_far_share, near))


def has_two_speeds(slower: Floats, near: Bools, share: float) -> bool:
    """Return whether a group that looks slower has many sessions that are not.

    Where the most sessions of a group are throttled, the few fast ones are the far ones, and what looks like
    the group's speed is the throttled one.

    :param slower: logarithms of the group that looks slower
    :param near: of :func:`find_near`
    :param share: limit for throttled sessions; half of it is enough of fast ones
    """
    fast = slower < slower[near].min()
    return float(fast.mean()) > share / 2


def _far_share(near: Bools) -> tuple[float, float]:
    """The share of far sessions, and its standard error."""
    share = 1 - float(near.mean())
    return share, float(np.sqrt(share * (1 - share) / len(near)))


def variation_of_nights(
    nights: Sequence[Floats], error: float, p_value: float, *, compared: int | None = None
) -> float:
    """Return by how much one more night may lie above the others by chance; 0 where only its sessions count.

    Sessions of one night may agree with each other more than with those of other nights. Then the nights are
    what is counted, and a night is only worse if it differs from them by more than they do. It is 0 too where
    there are too few nights to tell.

    :param nights: logarithms of the sessions of each night
    :param error: standard error of the one night's level, by its sessions
    :param p_value: chance of it
    :param compared: so many of the last sessions it is compared with; all of them by default
    """
    from scipy.special import stdtrit

    nights = [night for night in nights if len(night) >= _FEWEST_OF_A_NIGHT]
    if len(nights) < _FEWEST_NIGHTS:
        return 0.0
    sizes = np.array([len(night) for night in nights])
    levels = np.array([night.mean() for night in nights])
    between, within = len(nights) - 1, int(sizes.sum()) - len(nights)
    middle = float(sizes @ levels) / sizes.sum()
    variance_between = float(sizes @ (levels - middle) ** 2) / between
    variance_within = sum(float(((night - night.mean()) ** 2).sum()) for night in nights) / within
    size = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / between
    variance = (variance_between - variance_within) / size
    if variance <= 0:
        return 0.0
    behind = len(nights) if compared is None else min(len(nights), compared / float(sizes.mean()))
    factor = min(float(stdtrit(between, 1 - p_value)), _LARGEST_FACTOR)
    return factor * float(np.sqrt(variance * (1 + 1 / behind) + error**2))
