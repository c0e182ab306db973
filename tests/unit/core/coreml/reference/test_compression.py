"""Compressed weights, as coremltools makes them: the reference sees what they stand for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvlm_ops.core.coreml.reference import ReferenceModel
from tests.unit.core.coreml.reference.programs import build, normal

X = normal(3, 64)
WEIGHT, SHIFT = normal(48, 64), normal(48)


def _network(mb: Any, x: Any) -> Any:
    return mb.linear(x=x, weight=WEIGHT, bias=SHIFT)


def _original(tmp_path: Path, target: str) -> Any:
    import coremltools

    logging.getLogger("coremltools").setLevel(logging.ERROR)
    package = build(tmp_path, {"x": X}, _network, target=target, name="original")
    return coremltools.models.MLModel(str(package), skip_model_load=True)


def _compressed(name: str) -> tuple[str, Any]:
    from coremltools.optimize import coreml as compress

    everything = {"weight_threshold": 0}
    linear = compress.OpLinearQuantizerConfig
    palette = compress.OpPalettizerConfig
    pruned = compress.OpMagnitudePrunerConfig(target_sparsity=0.6, weight_threshold=0)
    made = {
        "int8": ("iOS16", linear(mode="linear_symmetric", **everything)),
        "uint8 with zero points": ("iOS16", linear(mode="linear", dtype="uint8", **everything)),
        "int4 in blocks": (
            "iOS18",
            linear(
                mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=16, **everything
            ),
        ),
        "6 bits, uniform": ("iOS16", palette(mode="uniform", nbits=6, **everything)),
        "4 bits by groups of channels": (
            "iOS18",
            palette(mode="uniform", nbits=4, granularity="per_grouped_channel", group_size=16, **everything),
        ),
        "pruned": ("iOS16", pruned),
    }
    return made[name]


def _apply(model: Any, configuration: Any) -> Any:
    from coremltools.optimize import coreml as compress

    act = {
        "OpLinearQuantizerConfig": compress.linear_quantize_weights,
        "OpPalettizerConfig": compress.palettize_weights,
        "OpMagnitudePrunerConfig": compress.prune_weights,
    }[type(configuration).__name__]
    return act(model, compress.OptimizationConfig(global_config=configuration))


NAMES = [
    "int8",
    "uint8 with zero points",
    "int4 in blocks",
    "6 bits, uniform",
    "4 bits by groups of channels",
    "pruned",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_compressed_weight_gives_what_coremltools_decompresses_it_to(tmp_path: Path, name: str) -> None:
    import coremltools

    target, configuration = _compressed(name)
    small = _apply(_original(tmp_path, target), configuration)
    small.save(str(tmp_path / "small.mlpackage"))
    whole = coremltools.optimize.coreml.decompress_weights(small)
    whole.save(str(tmp_path / "whole.mlpackage"))

    found = ReferenceModel(tmp_path / "small.mlpackage").predict({"x": X})
    expected = ReferenceModel(tmp_path / "whole.mlpackage").predict({"x": X})

    kinds = {one.kind.partition(".")[2] for one in ReferenceModel(tmp_path / "small.mlpackage").operations}
    assert kinds == {"linear"}
    exact = X @ WEIGHT.T + SHIFT
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], atol=1e-5)
        assert 1e-3 < np.abs(value - exact).max() < 30  # it is compressed, and still the same layer


def _by_hand(mb: Any, x: Any, kind: str) -> Any:
    indices = (np.arange(48 * 64) % 16).reshape(48, 64).astype(np.uint8)
    from coremltools.converters.mil.mil import types

    if kind == "sparse palette":
        mask = (np.arange(48 * 64) % 3 == 0).reshape(48, 64)
        sparse_mask, sparse = mb.constexpr_lut_to_sparse(
            indices_mask=mask.astype(types.np_uint1_dtype),
            indices_nonzero_data=indices[mask].astype(types.np_uint4_dtype),
            lut=PALETTE.reshape(1, 1, 16, 1),
        )
        weight = mb.constexpr_sparse_to_dense(nonzero_data=sparse, mask=sparse_mask)
    elif kind == "vectors":
        weight = mb.constexpr_lut_to_dense(
            indices=(indices[:24] % 4).astype(types.np_uint2_dtype),
            lut=VECTORS.reshape(1, 1, 4, 2),
            vector_axis=np.int32(0),
        )
    else:
        levels = mb.constexpr_lut_to_dense(
            indices=indices.astype(types.np_uint4_dtype),
            lut=(10 * PALETTE).astype(np.int8).reshape(1, 1, 16, 1),
        )
        weight = mb.constexpr_blockwise_shift_scale(data=levels, scale=SCALES)
    return mb.linear(x=x, weight=weight)


PALETTE, VECTORS, SCALES = normal(16), normal(4, 2), np.abs(normal(48, 1)) + 0.1
INDICES = (np.arange(48 * 64) % 16).reshape(48, 64)


def _by_numpy(kind: str) -> np.ndarray:
    if kind == "sparse palette":
        return np.where((np.arange(48 * 64) % 3 == 0).reshape(48, 64), PALETTE[INDICES], 0)
    if kind == "vectors":
        return VECTORS[INDICES[:24] % 4].transpose(0, 2, 1).reshape(48, 64)
    return (10 * PALETTE).astype(np.int8)[INDICES] * SCALES


@pytest.mark.parametrize("kind", ["sparse palette", "vectors", "palette of whole numbers, scaled"])
def test_weights_compressed_twice_or_in_vectors(tmp_path: Path, kind: str) -> None:
    package = build(tmp_path, {"x": X}, lambda mb, x: _by_hand(mb, x, kind), target="iOS18")

    (found,) = ReferenceModel(package).predict({"x": X}).values()

    np.testing.assert_allclose(found, X @ _by_numpy(kind).T, rtol=1e-4, atol=1e-4)
