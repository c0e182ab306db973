"""The demo's Core ML models: the same bytes each time, and each bad version bad in its way alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastvlm_ops.core.coreml.inspecting import inspect_package
from fastvlm_ops.core.coreml.packages import digest
from fastvlm_ops.core.coreml.parity import Parity, compare_outputs
from fastvlm_ops.core.coreml.reference.model import ReferenceModel
from fastvlm_ops.core.coreml.reference.translate import Precision
from fastvlm_ops.local.coreml_models import NAMES, VARIANTS, Name, Variant, build_model, example_inputs
from tests.coreml_kit import Build, coreml_package  # noqa: F401 - a fixture

GOOD_DB: dict[Name, tuple[float, float]] = {"VisionEncoder": (50, 60), "TextDecoder": (40, 50)}


@pytest.fixture(scope="module")
def golden(coreml_package: Build) -> dict[Name, dict[str, np.ndarray]]:  # noqa: F811
    """What the originals give."""
    return {
        name: ReferenceModel(coreml_package(name, "original")).predict(example_inputs(name)) for name in NAMES
    }


@pytest.mark.parametrize("name", NAMES)
class TestVersions:
    @pytest.fixture
    def parity(self, name: Name, coreml_package: Build, golden: dict[Name, dict[str, np.ndarray]]):  # noqa: F811
        def of(variant: Variant, precision: Precision = Precision.FP32) -> Parity:
            model = ReferenceModel(coreml_package(name, variant), precision)
            return compare_outputs(golden[name], model.predict(example_inputs(name)))

        return of

    @pytest.mark.parametrize("variant", ["good", "slower", "bigger", "cpu_op"])
    def test_are_as_good_as_the_good_one(self, name: Name, parity, variant: Variant) -> None:
        low, high = GOOD_DB[name]
        for precision in Precision:
            found = parity(variant, precision)
            assert low < found.psnr_db < high, precision
            assert found.finite

    def test_drift(self, name: Name, parity) -> None:
        assert 25 < parity("drift").psnr_db < 34

    def test_overflow_shows_in_halves_only(self, name: Name, parity) -> None:
        assert parity("overflow").psnr_db == pytest.approx(parity("good").psnr_db, abs=0.5)
        found = parity("overflow", Precision.FP16_ROUNDED)
        assert not found.finite
        assert found.psnr_db == 0.0

    def test_uncompressed(self, name: Name, parity) -> None:
        assert parity("uncompressed").psnr_db > 70

    def test_sizes(self, name: Name, coreml_package: Build) -> None:  # noqa: F811
        sizes = {one: inspect_package(coreml_package(name, one)).size_bytes for one in VARIANTS}
        ratios = {one: size / sizes["good"] for one, size in sizes.items()}
        assert 1.1 < ratios["bigger"] < 1.14
        assert ratios["uncompressed"] > 1.7
        assert all(ratios[one] < 1.05 for one in ("slower", "drift", "overflow", "cpu_op"))
        assert max(sizes.values()) < 4 * 2**20

    def test_the_same_bytes_each_time(self, name: Name, coreml_package: Build, tmp_path: Path) -> None:  # noqa: F811
        again = build_model(tmp_path, name, "slower", "slower")
        assert digest(again) == digest(coreml_package(name, "slower"))

    def test_a_version_of_the_same_name_is_replaced(self, name: Name, tmp_path: Path) -> None:
        one = build_model(tmp_path, name, 1, "uncompressed")
        other = build_model(tmp_path, name, 1)
        assert one == other == tmp_path / f"{name}-v1.mlpackage"
        assert inspect_package(other).compression

    def test_good_versions_differ_only_in_their_description(self, name: Name, tmp_path: Path) -> None:
        one, other = (build_model(tmp_path, name, version) for version in (1, 2))
        weights = Path("Data/com.apple.CoreML/weights/weight.bin")
        assert (one / weights).read_bytes() == (other / weights).read_bytes()
        assert digest(one) != digest(other)
        assert inspect_package(one).structure_hash == inspect_package(other).structure_hash
        assert [inspect_package(package).version_string for package in (one, other)] == ["1", "2"]

    def test_another_seed_has_other_weights(self, name: Name, tmp_path: Path) -> None:
        one, other = (build_model(tmp_path / str(seed), name, 1, seed=seed) for seed in (1, 2))
        weights = Path("Data/com.apple.CoreML/weights/weight.bin")
        assert (one / weights).read_bytes() != (other / weights).read_bytes()
