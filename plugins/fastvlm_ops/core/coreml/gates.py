"""Gates that need no statistics: what they compare is the same in every session.

Each takes what the accepted run had (or None) and what the new one has, and gives a finding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastvlm_ops.core.config.coreml import CompareRules
from fastvlm_ops.core.coreml.devices.interface import Placement
from fastvlm_ops.core.coreml.verdicts import Finding, Verdict

# Differences up there are how floating point rounds: 200 dB (all the same) to 145 dB is no drift.
_BEST_PSNR_DB = 100.0
# A share of compressed parameters that fell by less is another split of the same weights.
_COMPRESSION_LOSS = 0.05
_NAMED_OPERATIONS = 5

_UNIT_NAMES = {"ane": "Neural Engine", "gpu": "GPU", "cpu": "CPU", None: "no unit"}
# Away from the Neural Engine is worse, and the CPU is the last resort.
_RANKS: dict[str | None, int] = {"ane": 0, "gpu": 1, "cpu": 2, None: 3}


@dataclass(frozen=True)
class Move:
    """An operation that is planned for another unit than before.

    :param operation: its first output's name
    :param kind: operator
    :param before: unit that it had; of a new operation, the one that most of the model had
    :param after: unit that it has
    :param cost_share: estimated part of the model's cost now; None where unknown
    :param is_new: whether the accepted version had no such operation
    """

    operation: str
    kind: str
    before: str | None
    after: str | None
    cost_share: float | None
    is_new: bool = False

    @property
    def is_worse(self) -> bool:
        """Whether it moved away from the Neural Engine."""
        return _RANKS[self.after] > _RANKS[self.before]

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def __str__(self) -> str:
        share = "unknown share" if self.cost_share is None else f"{self.cost_share:.1%}"
        new = "new, " if self.is_new else ""
        return (
            f"{self.operation} ({new}{self.kind}, {share} of the cost) from {_UNIT_NAMES[self.before]}"
            f" to {_UNIT_NAMES[self.after]}"
        )


def judge_placement(
    before: Sequence[Placement] | None, after: Sequence[Placement], rules: CompareRules
) -> Finding:
    """Tell which operations left the Neural Engine, or the GPU for the CPU, though nothing became slower.

    The values are the share of the cost that is planned beside the unit that most of the model had before.

    :param before: of the accepted run; None or empty where there is none
    :param after: of the new run
    :param rules: from which share of the cost on it counts
    """
    if not before:
        return _nothing_before("no accepted plan of placement yet")
    moves = find_moves(before, after)
    worse = [move for move in moves if move.is_worse]
    better = [move for move in moves if not move.is_worse]
    home = _home(before)
    was, now = (_share_away(one, home) for one in (before, after))
    details = {"moved": [move.as_dict() for move in moves], "counts": _counts(after)}
    if _is_flagged(worse, rules.flagged_cost_share):
        verdict, reason = Verdict.REGRESSION, f"moved: {_in_words(worse)}"
    elif not worse and _is_flagged(better, rules.flagged_cost_share):
        verdict, reason = Verdict.IMPROVEMENT, f"moved: {_in_words(better)}"
    elif moves:
        verdict, reason = Verdict.OK, f"moved, too little to matter: {_in_words(moves)}"
    else:
        verdict, reason = Verdict.OK, f"{len(after)} operations are planned as before"
    return Finding(
        verdict=verdict, baseline_value=was, value=now, confidence=1.0, reason=reason, details=details
    )


def find_moves(before: Sequence[Placement], after: Sequence[Placement]) -> list[Move]:
    """Return the operations whose unit is another one, dearest first.

    Operations are matched by name, then, as converters rename them, by kind and order. What has no match is
    new; it is held against the unit that most of the model had.

    :param before: of the accepted run
    :param after: of the new run
    """
    by_name = {one.operation: one for one in before}
    names = {one.operation for one in after}
    renamed: dict[str, list[Placement]] = defaultdict(list)
    for one in before:
        if one.operation not in names:
            renamed[one.kind].append(one)
    home = _home(before)
    moves = []
    for one in after:
        same = by_name.get(one.operation)
        if same is None and renamed[one.kind]:
            same = renamed[one.kind].pop(0)
        was = home if same is None else same.unit
        # A plan that names no unit for an operation says nothing about it.
        if was is not None and one.unit is not None and was != one.unit:
            moves.append(Move(one.operation, one.kind, was, one.unit, one.cost_share, is_new=same is None))
    return sorted(moves, key=lambda move: -(1.0 if move.cost_share is None else move.cost_share))


def judge_size(before: float | None, after: float | None, rules: CompareRules) -> Finding:
    """Tell whether a package grew.

    :param before: bytes of the accepted one
    :param after: bytes of the new one
    :param rules: how much growth is too much
    """
    if before is None or after is None or before <= 0:
        return _nothing_before("no accepted size yet", after)
    verdict = Verdict.OK
    if after > before * (1 + rules.size_growth):
        verdict = Verdict.REGRESSION
    elif after < before * (1 - rules.size_growth):
        verdict = Verdict.IMPROVEMENT
    reason = f"{after / before - 1:+.1%}: {_megabytes(before)} before, {_megabytes(after)} now"
    return _exact(verdict, before, after, reason)


def judge_flops(before: float | None, after: float | None) -> Finding:
    """Tell how much more or less a model computes. It informs: what it costs is for the latency to say.

    :param before: floating point operations of the accepted version
    :param after: of the new one
    """
    if before is None or after is None or before <= 0:
        return Finding(verdict=Verdict.INSUFFICIENT, value=after, reason="not known before", gate=False)
    reason = f"{after / before - 1:+.1%} operations"
    return Finding(
        verdict=Verdict.OK,
        baseline_value=before,
        value=after,
        change=after / before - 1,
        confidence=1.0,
        reason=reason,
        gate=False,
    )


def judge_parity(before: Mapping[str, Any] | None, after: Mapping[str, Any], rules: CompareRules) -> Finding:
    """Tell whether the outputs are still what they should be.

    :param before: a :class:`Parity` of the accepted run as JSON, or None
    :param after: of the new run
    :param rules: how much drift is too much, and the PSNR that has to be reached whatever was accepted
    """
    psnr = float(after["psnr_db"])
    was = None if before is None else float(before["psnr_db"])
    drop = None if was is None else min(was, _BEST_PSNR_DB) - min(psnr, _BEST_PSNR_DB)
    verdict, reason = Verdict.OK, f"{psnr:.1f} dB against the golden outputs"
    if after["missing"]:
        verdict, reason = Verdict.REGRESSION, f"outputs are missing: {', '.join(after['missing'])}"
    elif after["nan"] or after["inf"]:
        verdict = Verdict.REGRESSION
        reason = (
            f"the outputs hold {after['nan']} NaN and {after['inf']} infinite values, as after an overflow"
        )
    elif drop is not None and drop > rules.parity_drop_db:
        verdict, reason = Verdict.REGRESSION, f"drifted: {was:.1f} dB before, {psnr:.1f} dB now"
    elif psnr < rules.minimum_psnr_db:
        verdict, reason = (
            Verdict.REGRESSION,
            f"{psnr:.1f} dB, at least {rules.minimum_psnr_db:g} are asked for",
        )
    elif drop is not None and -drop > rules.parity_drop_db:
        verdict, reason = Verdict.IMPROVEMENT, f"closer: {was:.1f} dB before, {psnr:.1f} dB now"
    return _exact(verdict, was, psnr, reason, dict(after))


def judge_compression(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Finding:
    """Tell whether weights that were compressed no longer are.

    The values are shares of the parameters that are compressed.

    :param before: an :class:`Inspection` of the accepted version as JSON, or None
    :param after: of the new one
    """
    now, kinds = after.get("compressed_share"), dict(after.get("compression") or {})
    if before is None or before.get("compressed_share") is None or now is None:
        return _nothing_before("no accepted version to compare the compression with", now)
    was, kinds_before = float(before["compressed_share"]), dict(before.get("compression") or {})
    lost = was - float(now)
    verdict, reason = Verdict.OK, f"{now:.0%} of the parameters are compressed, {was:.0%} before"
    if lost > _COMPRESSION_LOSS:
        verdict = Verdict.REGRESSION
        gone = ", ".join(sorted(set(kinds_before) - set(kinds)))
        reason = f"compression lost: {reason}{f'; gone: {gone}' if gone else ''}"
    elif lost < -_COMPRESSION_LOSS:
        verdict = Verdict.IMPROVEMENT
    return _exact(verdict, was, float(now), reason, {"before": kinds_before, "after": kinds})


def _nothing_before(reason: str, value: float | None = None) -> Finding:
    return Finding(verdict=Verdict.INSUFFICIENT, value=value, reason=reason)


def _exact(
    verdict: Verdict, before: float | None, after: float, reason: str, details: dict[str, Any] | None = None
) -> Finding:
    return Finding(
        verdict=verdict,
        baseline_value=before,
        value=after,
        change=after / before - 1 if before else None,
        confidence=1.0,
        reason=reason,
        details=details or {},
    )


def _home(placements: Sequence[Placement]) -> str | None:
    """The unit that most of a model's cost is planned for; of its operations, where the cost is unknown."""
    totals: dict[str, float] = defaultdict(float)
    known = any(one.cost_share for one in placements)
    for one in placements:
        if one.unit is not None:
            totals[one.unit] += (one.cost_share or 0.0) if known else 1.0
    return max(totals, key=lambda unit: (totals[unit], unit)) if totals else None


def _share_away(placements: Sequence[Placement], home: str | None) -> float | None:
    """Share of the cost that is not on a unit; None where no cost is known."""
    if not any(one.cost_share for one in placements):
        return None
    return sum(one.cost_share or 0.0 for one in placements if one.unit not in (home, None))


def _is_flagged(moves: Sequence[Move], least: float) -> bool:
    """Whether moves are together large enough to count; an unknown share always is."""
    if any(move.cost_share is None for move in moves):
        return True
    return bool(moves) and sum(move.cost_share or 0.0 for move in moves) >= least


def _counts(placements: Sequence[Placement]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for one in placements:
        counts[one.unit or "unknown"] += 1
    return dict(counts)


def _in_words(moves: Sequence[Move]) -> str:
    named = "; ".join(str(move) for move in moves[:_NAMED_OPERATIONS])
    more = len(moves) - _NAMED_OPERATIONS
    return f"{named}; and {more} more" if more > 0 else named


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.2f} MB"
