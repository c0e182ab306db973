"""Compressed weights, and values that are quantised while the model runs.

The weights themselves are decompressed by coremltools, before anything is translated: see
:func:`~fastvlm_ops.core.coreml.reference.call.constant_value`.
"""

from __future__ import annotations

import numpy as np

from fastvlm_ops.core.coreml.reference.call import Call, Kind
from fastvlm_ops.core.coreml.reference.registry import translates

DECOMPRESSED = (
    "constexpr_affine_dequantize",
    "constexpr_blockwise_shift_scale",
    "constexpr_cast",
    "constexpr_lut_to_dense",
    "constexpr_lut_to_sparse",
    "constexpr_sparse_blockwise_shift_scale",
    "constexpr_sparse_to_dense",
)
_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


@translates("quantize")
def quantize(call: Call) -> str:
    """Divided by the scale, rounded, shifted and cut off at what the type holds."""
    scaled = call.emit("Round", call.emit("Div", call.tensor("input"), _along_axis(call, "scale")))
    if call.has("zero_point"):
        scaled = call.emit("Add", scaled, _along_axis(call, "zero_point"))
    low, high = _RANGES[str(call.value("output_dtype"))]
    held = call.emit("Clip", scaled, call.constant(float(low)), call.constant(float(high)))
    return call.cast(held, Kind.INT)


@translates("dequantize")
def dequantize(call: Call) -> str:
    """Shifted back and multiplied by the scale."""
    shifted = call.as_kind("input", Kind.FLOAT)
    if call.has("zero_point"):
        shifted = call.emit("Sub", shifted, _along_axis(call, "zero_point"))
    return call.emit("Mul", shifted, _along_axis(call, "scale"))


def _along_axis(call: Call, name: str) -> str:
    """A scale or shift, one for all or one for each place along the axis, as floats."""
    values = np.asarray(call.value(name), np.float32)
    if values.ndim == 0:
        return call.constant(values)
    sizes = [1] * call.rank("input")
    sizes[call.axis("axis", of="input")] = -1
    return call.constant(values.reshape(sizes))
