"""Convolutions."""

from __future__ import annotations

from typing import Any

from fastvlm_ops.core.coreml.reference.call import Call
from fastvlm_ops.core.coreml.reference.registry import translates

_SAME = {"same": "SAME_UPPER", "same_lower": "SAME_LOWER"}


@translates("conv")
def conv(call: Call) -> str:
    """Of one to three dimensions, grouped or not."""
    kernel = [int(size) for size in call.static_shape("weight")[2:]]
    strides = call.ints("strides", [1] * len(kernel))
    dilations = call.ints("dilations", [1] * len(kernel))
    attributes = {
        "kernel_shape": kernel,
        "strides": strides,
        "dilations": dilations,
        "group": int(call.value("groups", 1)),
        **padding(call, _spans(kernel, dilations), strides),
    }
    operands = [call.tensor("x"), call.tensor("weight")]
    if call.has("bias"):
        operands.append(call.tensor("bias"))
    return call.emit("Conv", *operands, **attributes)


def padding(call: Call, spans: list[int], strides: list[int]) -> dict[str, Any]:
    """Padding of a convolution or a pool, as ONNX has it: all befores, then all afters.

    :param spans: that a window reaches over along each axis
    :param strides: between windows
    """
    kind = str(call.value("pad_type", "valid")).lower()
    if kind == "valid":
        return {"pads": [0] * 2 * len(spans)}
    if kind not in _SAME:
        pairs = call.ints("pad", [0] * 2 * len(spans))
        return {"pads": [*pairs[0::2], *pairs[1::2]]}
    sizes = call.shape("x")[2:]
    if None in sizes:  # ONNX Runtime works it out, but not where the windows have gaps
        return {"auto_pad": _SAME[kind]}
    before, after = [], []
    for size, span, stride in zip(call.static_shape("x")[2:], spans, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + span - size, 0)
        before.append(total // 2 if kind == "same" else total - total // 2)
        after.append(total - before[-1])
    return {"pads": [*before, *after]}


@translates("conv_transpose")
def conv_transpose(call: Call) -> str:
    """The output's shape follows from the padding, or is given and then decides what is cut."""
    kernel = [int(size) for size in call.static_shape("weight")[2:]]
    dimensions = len(kernel)
    strides = call.ints("strides", [1] * dimensions)
    dilations = call.ints("dilations", [1] * dimensions)
    pads, extra = _cuts(call, _spans(kernel, dilations), strides)
    attributes = {
        "kernel_shape": kernel,
        "strides": strides,
        "dilations": dilations,
        "group": int(call.value("groups", 1)),
        "pads": pads,
        "output_padding": extra,
    }
    operands = [call.tensor("x"), call.tensor("weight")]
    if call.has("bias"):
        operands.append(call.tensor("bias"))
    return call.emit("ConvTranspose", *operands, **attributes)


def _cuts(call: Call, spans: list[int], strides: list[int]) -> tuple[list[int], list[int]]:
    """What is cut at each side, and added behind, for the output to have its shape.

    ``same`` cuts half at each side, the odd element behind, as TensorFlow does. A given output shape with
    explicit padding keeps the padding before, and cuts or adds behind.
    """
    kind = str(call.value("pad_type", "valid")).lower()
    pairs = call.ints("pad") if kind == "custom" else []
    pairs = pairs or [0] * 2 * len(spans)
    sizes = call.ints("output_shape")[2:]
    before, after, added = [], [], []
    for axis, (span, stride) in enumerate(zip(spans, strides, strict=True)):
        total = pairs[2 * axis] + pairs[2 * axis + 1]
        if sizes:
            total = (call.static_shape("x")[2 + axis] - 1) * stride + span - sizes[axis]
        elif kind.startswith("same"):
            total = span - stride
        first = pairs[2 * axis]
        if kind.startswith("same"):
            first = max(total, 0) // 2 if kind == "same" else (max(total, 0) + 1) // 2
        before.append(first)
        after.append(max(total - first, 0))
        added.append(max(first - total, 0))
    return [*before, *after], added


def _spans(kernel: list[int], dilations: list[int]) -> list[int]:
    return [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
