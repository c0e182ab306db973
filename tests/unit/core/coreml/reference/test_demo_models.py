"""Both demo models, as packages, against the same networks in NumPy alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fastvlm_ops.core.coreml.parity import compare_outputs
from fastvlm_ops.core.coreml.reference import Precision, ReferenceModel
from fastvlm_ops.local.coreml_models import Name, Variant, example_inputs
from tests import coreml_numpy
from tests.coreml_kit import Build

NETWORKS: dict[Name, Callable[[np.ndarray], np.ndarray]] = {
    "VisionEncoder": coreml_numpy.encode,
    "TextDecoder": coreml_numpy.decode,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_original_is_the_network_within_a_ten_thousandth(coreml_package: Build, name: Name) -> None:
    inputs = example_inputs(name)

    (found,) = ReferenceModel(coreml_package(name, "original")).predict(inputs).values()

    expected = NETWORKS[name](next(iter(inputs.values())))
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("variant", "precision", "least", "most"),
    [
        ("uncompressed", Precision.FP32, 65, 95),
        ("uncompressed", Precision.FP16_ROUNDED, 60, 85),
        ("good", Precision.FP16_ROUNDED, 40, 60),
        ("slower", Precision.FP16_ROUNDED, 40, 60),
        ("bigger", Precision.FP16_ROUNDED, 40, 60),
        ("cpu_op", Precision.FP16_ROUNDED, 40, 60),
        ("drift", Precision.FP16_ROUNDED, 25, 35),
        ("overflow", Precision.FP32, 40, 60),
    ],
)
def test_versions_are_as_far_from_the_network_as_they_are_made(
    coreml_package: Build,
    name: Name,
    variant: Variant,
    precision: Precision,
    least: float,
    most: float,
) -> None:
    inputs = example_inputs(name)

    found = ReferenceModel(coreml_package(name, variant), precision).predict(inputs)

    (output,) = found
    expected = NETWORKS[name](next(iter(inputs.values()))).astype(np.float32)
    parity = compare_outputs({output: expected}, found)
    assert parity.finite
    assert least <= parity.psnr_db <= most


@pytest.mark.parametrize("name", NETWORKS)
def test_rounding_shows_the_overflow(coreml_package: Build, name: Name) -> None:
    model = ReferenceModel(coreml_package(name, "overflow"), Precision.FP16_ROUNDED)

    (found,) = model.predict(example_inputs(name)).values()

    assert np.isnan(found).any()
