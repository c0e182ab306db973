"""Inspection of the forms a package can have: states, images, several functions, compression of iOS 18."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import coremltools
import numpy as np
import pytest
from coremltools.converters.mil import Builder
from coremltools.converters.mil.mil import types
from coremltools.optimize import coreml

from fastvlm_ops.core.coreml.inspecting import Feature, Inspection, inspect_package
from tests.coreml_kit import build_program

NUMBERS = np.random.default_rng(7).standard_normal((64, 64)).astype(np.float32)


def twice(x: Any) -> Any:
    return Builder.linear(x=Builder.linear(x=x, weight=NUMBERS), weight=NUMBERS[::-1].copy())


def compressed(folder: Path, *steps: Any) -> Inspection:
    """Inspect two layers of 64 x 64 numbers, once compressed in these steps."""
    model = coremltools.models.MLModel(str(build_program(folder, [(1, 64)], twice)), skip_model_load=True)
    for step in steps:
        model = step(model)
    model.save(str(folder / "compressed.mlpackage"))
    return inspect_package(folder / "compressed.mlpackage")


def quantised(model: Any) -> Any:
    config = coreml.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=32
    )
    return coreml.linear_quantize_weights(model, coreml.OptimizationConfig(global_config=config))


def pruned(model: Any) -> Any:
    config = coreml.OpMagnitudePrunerConfig(target_sparsity=0.5)
    return coreml.prune_weights(model, coreml.OptimizationConfig(global_config=config))


def palettised(model: Any) -> Any:
    config = coreml.OptimizationConfig(global_config=coreml.OpPalettizerConfig(mode="uniform", nbits=4))
    return coreml.palettize_weights(model, config, joint_compression=True)


def test_blocks_of_four_bits(tmp_path: Path) -> None:
    found = compressed(tmp_path, quantised)
    assert found.compression == {"constexpr_blockwise_shift_scale": 2}
    assert found.weight_bytes["int4"] == 2 * 64 * 64 // 2
    assert found.weight_bytes["float32"] == 4 * (
        2 * 64 * 2 + 2 * 64
    )  # scales of two blocks a row, and biases
    assert found.parameters == 2 * 64 * 64 + 2 * 64
    assert found.compressed_share == 2 * 64 * 64 / found.parameters


def test_pruned_then_palettised_counts_a_parameter_once(tmp_path: Path) -> None:
    found = compressed(tmp_path, pruned, palettised)
    assert found.compression == {"constexpr_lut_to_sparse": 2, "constexpr_sparse_to_dense": 2}
    assert found.weight_bytes["uint1"] == 2 * 64 * 64 // 8
    assert found.weight_bytes["uint4"] == pytest.approx(2 * 64 * 64 / 2 / 2, abs=4)
    assert found.parameters == 2 * 64 * 64 + 2 * 64
    assert found.compressed_share == 2 * 64 * 64 / found.parameters


def test_compression_does_not_change_the_structure(tmp_path: Path) -> None:
    plain = inspect_package(build_program(tmp_path, [(1, 64)], twice))
    for steps in ((quantised,), (pruned,), (pruned, palettised)):
        assert compressed(tmp_path, *steps).structure_hash == plain.structure_hash


def test_what_changes_the_structure(tmp_path: Path) -> None:
    def structure(body: Any) -> str:
        return inspect_package(build_program(tmp_path, [(1, 8, 6, 6)], body)).structure_hash

    weight = np.ones((8, 8, 3, 3), np.float32)
    one = structure(lambda x: Builder.conv(x=x, weight=weight))
    assert structure(lambda x: Builder.conv(x=x, weight=weight + 1, name="another")) == one
    assert structure(lambda x: Builder.conv(x=x, weight=np.ones((4, 8, 1, 1), np.float32))) == one
    others = [
        structure(lambda x: Builder.conv(x=x, weight=weight, strides=[2, 2])),
        structure(lambda x: Builder.conv(x=x, weight=weight, bias=np.ones(8, np.float32))),
        structure(lambda x: Builder.relu(x=Builder.conv(x=x, weight=weight))),
        structure(lambda x: Builder.conv(x=Builder.relu(x=x), weight=weight)),
        structure(lambda x: Builder.sub(x=Builder.relu(x=x), y=x)),
        structure(lambda x: Builder.sub(x=x, y=Builder.relu(x=x))),
    ]
    assert len({one, *others}) == 1 + len(others)


def test_states(tmp_path: Path) -> None:
    def body(x: Any, cache: Any) -> Any:
        total = Builder.add(x=x, y=Builder.cast(x=Builder.read_state(input=cache), dtype="fp32"))
        Builder.coreml_update_state(state=cache, value=Builder.cast(x=total, dtype="fp16"))
        return total

    cache = Builder.StateTensorSpec((1, 64), dtype=types.fp16)
    found = inspect_package(build_program(tmp_path, [(1, 64), cache], body))
    assert found.stateful
    assert found.states == (Feature("cache", "state", "FLOAT16", (1, 64)),)
    assert [one.name for one in found.inputs] == ["x"]
    assert (found.operations["read_state"], found.operations["write_state"]) == (1, 1)


def test_images(tmp_path: Path) -> None:
    spec = Builder.TensorSpec(shape=(1, 3, 20, 30))
    program = Builder.program(input_specs=[spec], opset_version=coremltools.target.iOS17)
    model = coremltools.convert(
        program(lambda image: Builder.relu(x=image)),
        inputs=[coremltools.ImageType(name="image", shape=(1, 3, 20, 30), color_layout="BGR")],
        convert_to="mlprogram",
        minimum_deployment_target=coremltools.target.iOS17,
        skip_model_load=True,
    )
    model.save(str(tmp_path / "image.mlpackage"))
    found = inspect_package(tmp_path / "image.mlpackage")
    assert found.inputs == (Feature("image", "image", "BGR", (20, 30)),)


def test_functions_that_share_weights(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    descriptor = coremltools.utils.MultiFunctionDescriptor()
    for folder, body in ((one, twice), (other, lambda x: Builder.linear(x=x, weight=NUMBERS, name="y"))):
        descriptor.add_function(str(build_program(folder, [(1, 64)], body)), "main", folder.name)
    descriptor.default_function_name = "other"
    package = tmp_path / "both.mlpackage"
    coremltools.utils.save_multifunction(descriptor, str(package))
    found = inspect_package(package)
    assert found.functions == ("one", "other")
    assert [feature.name for feature in found.outputs] == ["y"]
    assert found.operations == {"linear": 1}
    assert found.parameters == 64 * 64 + 64
    assert found.flops == 2 * 64 * 64
    # Stored are two weights and a bias, whatever number of functions uses them.
    assert found.weight_bytes == {"float32": 4 * (2 * 64 * 64 + 64)}
