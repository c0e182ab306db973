"""Core ML models for tests, each version built once a test session by the code that the demo uses."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.local.coreml_models import Name, Variant, build_model

Build = Callable[[Name, Variant], Path]


@pytest.fixture(scope="session")
def coreml_package(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return a model's version by what is wrong with it. It is shared: copy it before changing it."""
    folder = tmp_path_factory.mktemp("coreml_models")
    built: dict[tuple[Name, Variant], Path] = {}

    def build(name: Name, variant: Variant = "good") -> Path:
        if (name, variant) not in built:
            built[name, variant] = build_model(folder, name, variant, variant)
        return built[name, variant]

    return build


@pytest.fixture(scope="session")
def vision_package(coreml_package: Build) -> Path:
    """A good version of the image encoder. It is shared: copy it before changing it."""
    return coreml_package("VisionEncoder", "good")


@pytest.fixture(scope="session")
def text_package(coreml_package: Build) -> Path:
    """A good version of the text decoder. It is shared: copy it before changing it."""
    return coreml_package("TextDecoder", "good")


@pytest.fixture
def own_package(text_package: Path, tmp_path: Path) -> Path:
    """A copy of a good version that a test may damage."""
    return Path(shutil.copytree(text_package, tmp_path / "TextDecoder-v1.mlpackage"))


def build_program(folder: Path, inputs: Sequence[Any], body: Callable[..., Any]) -> Path:
    """Write a package of a few operations as they are, in fp32 for iOS 18.

    :param folder: where to
    :param inputs: shapes, or specifications of coremltools' builder
    :param body: makes the operations; its arguments' names are those of the inputs
    """
    import coremltools
    from coremltools.converters.mil import Builder

    specs = [Builder.TensorSpec(shape=one) if isinstance(one, tuple) else one for one in inputs]
    model = coremltools.convert(
        Builder.program(input_specs=specs, opset_version=coremltools.target.iOS18)(body),
        convert_to="mlprogram",
        compute_precision=coremltools.precision.FLOAT32,
        minimum_deployment_target=coremltools.target.iOS18,
        pass_pipeline=coremltools.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    package = folder / "built.mlpackage"
    model.save(str(package))
    return package
