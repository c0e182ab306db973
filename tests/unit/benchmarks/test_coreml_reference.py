"""The benchmark of the Linux reference says what was not measured, and does not call it good."""

from __future__ import annotations

from benchmarks.coreml_reference import Measured, figures_of

SIZES = {"encoder": 256, "decoder": 64}
MEASURED = [
    Measured("encoder", difference=0.1, ours=[50.0, 60.0, 55.0], torch=[100.0, 100.0, 120.0]),
    Measured("decoder", difference=200.0, ours=[30.0], torch=[20.0]),
]


def test_each_model_has_its_parity_and_its_time_beside_torchs() -> None:
    figures = figures_of(MEASURED, SIZES, "torch 2")

    assert [figure.met for figure in figures] == [True, False, True, False]
    assert figures[2].value == 55
    assert figures[2].ratio == 0.55
    assert figures[2].peer == "torch 2"


def test_without_torch_nothing_is_met_and_the_figures_say_why() -> None:
    figures = figures_of([Measured("encoder"), Measured("decoder")], SIZES, "torch: no such package")

    assert not any(figure.met for figure in figures)
    assert {figure.peer for figure in figures} == {"torch: no such package"}
