"""Works out the tables of core/capacity/extremes.py: python -m benchmarks.capacity_steps folder-of-CSVs.

At origins two days apart, how many of its steps the figure that came was from its middle; each series counts
alike. With each series left out in turn, it says how often and by how much the others' table would have been
wrong for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.capacity_data import DAY, LONGEST_HISTORY, SHORTEST_HISTORY, read_series
from benchmarks.capacity_risk import each_series_alike, weighted_quantile
from fastvlm_ops.core.capacity.cleaning import cut_freaks
from fastvlm_ops.core.capacity.extremes import HORIZONS, PEAK_LEVEL, usual
from fastvlm_ops.core.capacity.levels import LEVELS

CHANCES = (0.05, 0.10)


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of CSV files with the columns timestamp and value")
    series = read_series(parser.parse_args().data)
    for level in (PEAK_LEVEL, 1.0):
        print(f"level {level:g}")
        for horizon in HORIZONS:
            names, steps, needs = _measured(series, horizon, level)
            row = [weighted_quantile(steps, each_series_alike(names), one) for one in LEVELS]
            print(f"  {horizon:4} h ({', '.join(f'{one:.2f}' for one in row)})")
            print("         left out in turn:", "; ".join(_left_out(names, steps, needs)))
    return 0


def _measured(
    series: dict[str, np.ndarray], horizon: int, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Series of each origin; steps from the middle to what came; size of a step there."""
    names, steps, sizes = [], [], []
    for name, values in series.items():
        for origin in range(len(values) - horizon, SHORTEST_HISTORY - 1, -2 * DAY):
            history = values[max(0, origin - LONGEST_HISTORY) : origin]
            came = values[origin : origin + horizon]
            if np.isfinite(came).mean() < 0.5 or np.isfinite(history).sum() < SHORTEST_HISTORY / 2:
                continue
            history = history[np.flatnonzero(np.isfinite(history))[0] :]
            known = usual(cut_freaks(history[None, :])[0], level)
            figure = max(np.nanquantile(came, level) - known.lowest[0], 0.0)
            names.append(name)
            steps.append((np.log(figure + known.floor[0]) - known.middle[0]) / known.step[0])
            sizes.append(known.step[0])
    return np.array(names), np.array(steps), np.array(sizes)


def _left_out(names: np.ndarray, steps: np.ndarray, sizes: np.ndarray) -> list[str]:
    said = []
    for chance in CHANCES:
        asked = np.empty(len(steps))
        for name in np.unique(names):
            others = names != name
            weights = each_series_alike(names[others])
            asked[~others] = weighted_quantile(steps[others], weights, 1 - chance)
        weights = each_series_alike(names)
        short = weights[steps > asked].sum()
        waste = np.exp(weighted_quantile((asked - steps) * sizes, weights, 0.5)) - 1
        said.append(f"{chance:.0%} fell short in {short:.1%}, wasted {waste:.0%} (median)")
    return said


if __name__ == "__main__":
    raise SystemExit(main())
