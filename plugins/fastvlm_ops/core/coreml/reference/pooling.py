"""Pools."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastvlm_ops.core.coreml.reference.call import Call
from fastvlm_ops.core.coreml.reference.convolution import padding
from fastvlm_ops.core.coreml.reference.registry import translates


@translates("max_pool")
def max_pool(call: Call) -> str:
    """The largest of each window."""
    return call.emit("MaxPool", call.tensor("x"), **_window(call))


@translates("avg_pool")
def avg_pool(call: Call) -> str:
    """The mean of each window, with or without what is padded."""
    excluded = bool(call.value("exclude_padding_from_average", False))
    return _average(call, call.tensor("x"), counts_padding=not excluded)


@translates("l2_pool")
def l2_pool(call: Call) -> str:
    """The root of the sum of squares of each window."""
    x = call.tensor("x")
    mean = _average(call, call.emit("Mul", x, x), counts_padding=True)
    size = float(np.prod(call.ints("kernel_sizes")))
    return call.emit("Sqrt", call.emit("Mul", mean, call.constant(size)))


def _average(call: Call, tensor: str, *, counts_padding: bool) -> str:
    window = _window(call)
    spans = call.shape("x")[2:]
    whole = [*window["kernel_shape"]] == spans and not any(window.get("pads", [1]))
    if whole:  # a reduction is faster than a pool as large as the picture
        axes = call.ints_tensor(*range(2, 2 + len(spans)))
        return call.emit("ReduceMean", tensor, axes, keepdims=1)
    return call.emit("AveragePool", tensor, **window, count_include_pad=int(counts_padding))


def _window(call: Call) -> dict[str, Any]:
    kernel = call.ints("kernel_sizes")
    strides = call.ints("strides", [1] * len(kernel))
    window = {"kernel_shape": kernel, "strides": strides, **padding(call, kernel, strides)}
    if bool(call.value("ceil_mode", False)):
        window["ceil_mode"] = 1
    return window
