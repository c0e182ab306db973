"""The demo kit as a whole, Core ML packages included."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fastvlm_ops.core.config import load_components
from fastvlm_ops.local.compare import compare_trees
from fastvlm_ops.local.kit import build_kit, evolve_kit
from fastvlm_ops.local.kit_models import FIRST_MODELS, build_models

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("kit")
    build_kit(folder, seed=3)
    yield folder
    shutil.rmtree(folder)  # pytest keeps the folders of three runs


def weights(package: Path) -> Path:
    return package / "Data/com.apple.CoreML/weights/weight.bin"


def test_packages_are_what_core_ml_reads(kit: Path) -> None:
    from coremltools.proto import Model_pb2

    packages = sorted((kit / "models").iterdir())
    assert [package.name for package in packages] == sorted(model.file_name for model in FIRST_MODELS)
    for package in packages:
        items = json.loads((package / "Manifest.json").read_text())["itemInfoEntries"].values()
        assert all((package / "Data" / item["path"]).exists() for item in items)
        file = package / "Data/com.apple.CoreML/model.mlmodel"
        specification = Model_pb2.Model.FromString(file.read_bytes())
        assert specification.WhichOneof("Type") == "mlProgram"
        assert weights(package).stat().st_size > 20 << 20


def test_versions_share_most_weights(kit: Path) -> None:
    packages = [kit / f"models/FastVLMVision-v{version}.mlpackage" for version in (1, 2)]
    first, second = (np.fromfile(weights(package), np.uint8) for package in packages)
    assert len(first) == len(second)
    assert 0.01 < np.mean(first != second) < 0.1


def test_the_same_seed_gives_the_same_bytes(kit: Path, tmp_path: Path) -> None:
    model = FIRST_MODELS[0]
    build_models(tmp_path, [model], seed=3)
    found = compare_trees(kit / "models" / model.file_name, tmp_path / model.file_name)
    assert {difference.what for difference in found.differences} == {"modification time"}


def test_a_day_goes_by(kit: Path) -> None:
    before = {path.relative_to(kit) for path in kit.rglob("*")}
    evolve_kit(kit, seed=3)
    after = {path.relative_to(kit) for path in kit.rglob("*")}
    assert Path("models/FastVLMVision-v3.mlpackage") in after - before
    assert before - after, "files go, too"


def test_every_component_is_there(kit: Path) -> None:
    components = load_components(ROOT / "include")
    assert all(components.path_of(name, kit).exists() for name in components.names)
