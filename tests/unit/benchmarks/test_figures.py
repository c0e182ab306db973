"""What a figure says, and when its target is met."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.figures import RESULTS, Figure, figures_table, write_figures

KEYS = ["name", "value", "unit", "peer", "peer_value", "ratio", "target", "better", "met"]


@pytest.mark.parametrize(
    ("figure", "ratio", "met"),
    [
        (Figure("wall", 6.0, "s", 0.65, "restic 1", 10.0), 0.6, True),
        (Figure("wall", 6.6, "s", 0.65, "restic 1", 10.0), 0.66, False),
        (Figure("rate", 12.0, "MB/s", 1.1, "restic 1", 10.0, "higher"), 1.2, True),
        (Figure("rate", 10.0, "MB/s", 1.1, "restic 1", 10.0, "higher"), 1.0, False),
        (Figure("wall", 0.1, "s", 0.65, "restic could not be run: no apt-get"), None, False),
        (Figure("memory", 200.0, "MiB", 256), None, True),
        (Figure("memory", 300.0, "MiB", 256), None, False),
    ],
)
def test_target_is_for_the_ratio_or_without_a_peer_for_the_value(
    figure: Figure, ratio: float | None, met: bool
) -> None:
    assert figure.ratio == (ratio if ratio is None else pytest.approx(ratio))
    assert figure.met is met


def test_file_of_results(tmp_path: Path) -> None:
    file = tmp_path / "results" / "backup.json"
    write_figures([Figure("wall", 1 / 3, "s", 0.65, "restic 1", 1.0)], file)
    (figure,) = json.loads(file.read_text())
    assert list(figure) == KEYS
    assert (figure["value"], figure["ratio"], figure["met"]) == (0.333, 0.333, True)


def test_table_says_what_is_missed_and_why_the_peer_is_absent() -> None:
    table = figures_table([Figure("wall", 1.0, "s", 0.65, "restic could not be run: no apt-get")])
    assert "MISSED" in table
    assert "restic could not be run: no apt-get. 0 of 1 targets met." in table


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda file: file.stem)
def test_committed_results(file: Path) -> None:
    figures = json.loads(file.read_text())
    assert figures
    for figure in figures:
        assert list(figure) == KEYS
        again = Figure(
            **{
                key: figure[key]
                for key in ("name", "value", "unit", "target", "peer", "peer_value", "better")
            }
        )
        assert figure["ratio"] == (again.ratio and pytest.approx(again.ratio, abs=0.01))
        assert isinstance(figure["met"], bool)
