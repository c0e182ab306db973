"""Parity of outputs: the worst counts, and what is no number is never passed over."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvlm_ops.core.coreml.errors import GoldenError
from fastvlm_ops.core.coreml.parity import IDENTICAL_DB, Parity, compare_outputs

CHANCE = np.random.default_rng(5)
WANTED = CHANCE.standard_normal((2, 8, 16)).astype(np.float32)


def noisy(decibels: float, wanted: np.ndarray = WANTED) -> np.ndarray:
    """The same with noise that leaves this PSNR."""
    noise = CHANCE.standard_normal(wanted.shape)
    peak = np.abs(wanted).max()
    noise *= peak / 10 ** (decibels / 20) / np.sqrt(np.mean(noise**2))
    return (wanted.astype(np.float64) + noise).astype(np.float64)


def test_identical() -> None:
    found = compare_outputs({"y": WANTED}, {"y": WANTED.copy(), "more": WANTED})
    assert found == Parity(IDENTICAL_DB, pytest.approx(1.0), 0.0, 1.0, 0, 0, (), "y")
    assert found.finite


@pytest.mark.parametrize("decibels", [10, 30, 55, 80, 140])
def test_psnr_is_that_of_the_noise(decibels: float) -> None:
    found = compare_outputs({"y": WANTED}, {"y": noisy(decibels)})
    assert found.psnr_db == pytest.approx(decibels, abs=0.01)


@given(scale=st.floats(1e-6, 1e6), decibels=st.floats(20, 100))
def test_psnr_does_not_depend_on_the_scale(scale: float, decibels: float) -> None:
    other = noisy(decibels)
    one = compare_outputs({"y": WANTED}, {"y": other}).psnr_db
    wanted = WANTED.astype(np.float64) * scale
    assert compare_outputs({"y": wanted}, {"y": other * scale}).psnr_db == pytest.approx(one, abs=1e-6)


def test_the_worst_of_several_counts() -> None:
    wanted = {"good": WANTED, "bad": WANTED, "fair": WANTED}
    found = compare_outputs(wanted, {"good": noisy(80), "bad": noisy(20), "fair": noisy(50)})
    bad = compare_outputs({"bad": WANTED}, {"bad": noisy(20)})
    assert found.worst_output == "bad"
    assert found.psnr_db == pytest.approx(20, abs=0.01)
    assert found.cosine == pytest.approx(bad.cosine, abs=0.02)
    assert found.max_abs > 0.1
    assert found.argmax_agree is not None
    assert found.argmax_agree < 1


class TestNotFinite:
    @pytest.mark.parametrize(
        ("value", "nan", "inf"), [(np.nan, 1, 0), (np.inf, 0, 1), (-np.inf, 0, 1)], ids=["nan", "inf", "-inf"]
    )
    def test_one_value_is_enough(self, value: float, nan: int, inf: int) -> None:
        given = WANTED.copy()
        given[0, 3, 5] = value
        found = compare_outputs({"y": WANTED, "z": WANTED}, {"y": given, "z": WANTED})
        assert (found.nan, found.inf, found.finite) == (nan, inf, False)
        assert (found.psnr_db, found.cosine, found.worst_output) == (0.0, 0.0, "y")
        assert found.argmax_agree == pytest.approx(15 / 16)  # of the 16 rows that one is not the same
        assert found.max_abs == 0.0

    def test_all(self) -> None:
        found = compare_outputs({"y": WANTED}, {"y": np.full_like(WANTED, np.nan)})
        assert (found.nan, found.argmax_agree) == (WANTED.size, 0.0)
        assert json.loads(json.dumps(found.as_dict(), allow_nan=False)) == found.as_dict()

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_golden_outputs_may_not_be(self, value: float) -> None:
        with pytest.raises(GoldenError, match="golden output 'y' has values that are not finite"):
            compare_outputs({"y": np.array([1, value])}, {"y": np.array([1, value])})


class TestMissing:
    def test_an_output_that_is_not_there(self) -> None:
        found = compare_outputs({"y": WANTED, "z": WANTED}, {"z": WANTED})
        assert found.missing == ("y: not among the outputs",)
        assert (found.psnr_db, found.cosine, found.argmax_agree, found.worst_output) == (0.0, 0.0, 0.0, "y")

    def test_an_output_of_another_shape(self) -> None:
        found = compare_outputs({"y": np.ones((1, 4))}, {"y": np.ones((4, 1))})
        assert found.missing == ("y: has the shape (4, 1), not (1, 4)",)
        assert found.psnr_db == 0.0

    def test_nothing_to_compare_with(self) -> None:
        with pytest.raises(GoldenError, match="no golden output"):
            compare_outputs({}, {"y": WANTED})


class TestForms:
    def test_types_may_differ(self) -> None:
        found = compare_outputs({"y": np.float32([[1, 2]])}, {"y": np.float16([[1, 2]])})
        assert found.psnr_db == IDENTICAL_DB

    def test_tokens(self) -> None:
        tokens = np.array([[3, 1, 2]], np.int32)
        assert compare_outputs({"y": tokens}, {"y": tokens}).psnr_db == IDENTICAL_DB
        assert compare_outputs({"y": tokens}, {"y": tokens[:, ::-1]}).psnr_db < 20

    @pytest.mark.parametrize("shape", [(), (1,), (4, 1), (0, 3)])
    def test_without_a_choice_there_is_no_agreement(self, shape: tuple[int, ...]) -> None:
        found = compare_outputs({"y": np.ones(shape)}, {"y": np.ones(shape)})
        assert (found.psnr_db, found.argmax_agree) == (IDENTICAL_DB, None)

    def test_of_nothing_but_zeros(self) -> None:
        zeros, ones = np.zeros((2, 2)), np.ones((2, 2))
        assert compare_outputs({"y": zeros}, {"y": zeros}).cosine == 1.0
        assert compare_outputs({"y": zeros}, {"y": zeros}).psnr_db == IDENTICAL_DB
        assert compare_outputs({"y": zeros}, {"y": ones}).psnr_db == 0.0
        assert compare_outputs({"y": ones}, {"y": zeros}).cosine == 0.0

    def test_opposite(self) -> None:
        found = compare_outputs({"y": WANTED}, {"y": -WANTED})
        assert found.cosine == pytest.approx(-1)
        assert 0 <= found.psnr_db < 20

    def test_largest_numbers(self) -> None:
        huge = np.array([3e38, -3e38, 1e38, 0], np.float32)
        found = compare_outputs({"y": huge}, {"y": -huge})
        assert math.isfinite(found.psnr_db)
        assert found.cosine == pytest.approx(-1)

    def test_as_json_and_back(self) -> None:
        found = compare_outputs({"y": WANTED, "z": WANTED}, {"y": noisy(40)})
        assert Parity.from_dict(json.loads(json.dumps(found.as_dict()))) == found
