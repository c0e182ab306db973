"""Two versions timed against each other, in turns, where times of separate sessions say little.

On a machine that does other things too, a session's time differs from the next one's by more than models do.
Turns of both in one process share what disturbs them: their ratio tells 5 % apart. It is told of the same
machine in the same minute, so that it needs no epoch and no history.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastvlm_ops.core.config.coreml import CompareRules
from fastvlm_ops.core.coreml.verdicts import Finding, Verdict

BLOCKS = 20
_MOST_ITERATIONS = 15
_BUDGET_MS = 60_000.0
_FEWEST = 8
# On a busy machine equal models were seen to differ by nearly 2 %.
_LEAST_EFFECT = 0.05


@dataclass(frozen=True)
class Accepted:
    """The version that is in the baseline.

    :param version: of the package
    :param digest: of its files
    :param package: where it is
    """

    version: str
    digest: str
    package: Path


@dataclass(frozen=True)
class Turns:
    """What was measured.

    :param version: of the accepted model
    :param digest: of its files
    :param pairs_ms: fastest prediction of the accepted model and of the candidate, of each block
    """

    version: str
    digest: str
    pairs_ms: tuple[tuple[float, float], ...]


def iterations_for(milliseconds: float) -> int:
    """Return how many predictions a turn may have, so that all turns together take about a minute.

    :param milliseconds: that a prediction takes
    """
    return int(np.clip(_BUDGET_MS / (2 * BLOCKS * max(milliseconds, 1e-3)), 1, _MOST_ITERATIONS))


def judge_turns(turns: Turns, rules: CompareRules) -> Finding:
    """Return whether the candidate is slower, by Wilcoxon's signed ranks of the blocks. It only informs.

    :param turns: that were taken
    :param rules: what counts as worse
    """
    from scipy.stats import wilcoxon

    pairs = np.array(turns.pairs_ms, dtype=float).reshape(-1, 2)
    beside = f"in turns with the accepted version {turns.version}"
    if len(pairs) < _FEWEST or not (np.isfinite(pairs) & (pairs > 0)).all():
        reason = f"{len(pairs)} usable blocks {beside}, at least {_FEWEST} are needed"
        return Finding(verdict=Verdict.INSUFFICIENT, reason=reason, gate=False)
    ratios = np.log(pairs[:, 1] / pairs[:, 0])
    shift = float(np.median(ratios))
    side = "greater" if shift >= 0 else "less"
    p_value = float(wilcoxon(ratios, alternative=side).pvalue) if ratios.any() else 1.0
    effect = float(np.log1p(max(rules.minimum_effect, _LEAST_EFFECT)))
    verdict = Verdict.OK
    if abs(shift) >= effect and p_value < rules.p_value:
        verdict = Verdict.REGRESSION if shift > 0 else Verdict.IMPROVEMENT
    change = float(np.expm1(shift))
    return Finding(
        verdict=verdict,
        baseline_value=float(np.median(pairs[:, 0])),
        value=float(np.median(pairs[:, 1])),
        change=change,
        p_value=p_value,
        confidence=1 - p_value,
        reason=f"{change:+.1%} in {len(pairs)} blocks {beside}",
        gate=False,
        details={"blocks": len(pairs), "against": turns.digest},
    )
