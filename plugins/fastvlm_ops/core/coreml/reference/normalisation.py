"""Normalisations."""

from __future__ import annotations

import numpy as np

from fastvlm_ops.core.coreml.reference.call import Call
from fastvlm_ops.core.coreml.reference.registry import translates


@translates("batch_norm")
def batch_norm(call: Call) -> str:
    """By the mean and variance of training."""
    channels = call.static_shape("mean")[0]
    gamma = call.tensor("gamma") if call.has("gamma") else call.constant(np.ones(channels, np.float32))
    beta = call.tensor("beta") if call.has("beta") else call.constant(np.zeros(channels, np.float32))
    return call.emit(
        "BatchNormalization",
        call.tensor("x"),
        gamma,
        beta,
        call.tensor("mean"),
        call.tensor("variance"),
        epsilon=float(call.value("epsilon", 1e-5)),
    )


@translates("instance_norm")
def instance_norm(call: Call) -> str:
    """By the mean and variance of each channel of each picture."""
    x = call.tensor("x")
    axes = list(range(2, call.rank("x")))
    normal = _normalised(call, x, axes, float(call.value("epsilon", 1e-5)))
    return _scaled(call, normal, [1])


@translates("layer_norm")
def layer_norm(call: Call) -> str:
    """By the mean and variance along axes, of which gamma and beta have a value each."""
    rank = call.rank("x")
    axes = sorted(axis % rank for axis in call.ints("axes", list(range(rank))))
    epsilon = float(call.value("epsilon", 1e-5))
    x = call.tensor("x")
    if axes == list(range(axes[0], rank)) and call.has("gamma"):
        operands = [x, call.tensor("gamma")] + ([call.tensor("beta")] if call.has("beta") else [])
        return call.emit("LayerNormalization", *operands, axis=axes[0], epsilon=epsilon)
    return _scaled(call, _normalised(call, x, axes, epsilon), axes)


@translates("l2_norm")
def l2_norm(call: Call) -> str:
    """By the length of the last three axes together."""
    x = call.tensor("x")
    axes = call.ints_tensor(-3, -2, -1)
    squares = call.emit("ReduceSumSquare", x, axes, keepdims=1)
    shifted = call.emit("Add", squares, call.constant(float(call.value("epsilon", 1e-6))))
    return call.emit("Div", x, call.emit("Sqrt", shifted))


@translates("local_response_norm")
def local_response_norm(call: Call) -> str:
    """By the squares of neighbouring channels."""
    return call.emit(
        "LRN",
        call.tensor("x"),
        size=int(call.value("size")),
        alpha=float(call.value("alpha", 1e-4)),
        beta=float(call.value("beta", 0.75)),
        bias=float(call.value("k", 1.0)),
    )


def _normalised(call: Call, x: str, axes: list[int], epsilon: float) -> str:
    over = call.ints_tensor(*axes)
    centred = call.emit("Sub", x, call.emit("ReduceMean", x, over, keepdims=1))
    variance = call.emit("ReduceMean", call.emit("Mul", centred, centred), over, keepdims=1)
    deviation = call.emit("Sqrt", call.emit("Add", variance, call.constant(epsilon)))
    return call.emit("Div", centred, deviation)


def _scaled(call: Call, tensor: str, axes: list[int]) -> str:
    """gamma · x + beta, both of which have the sizes of these axes alone."""
    for name, kind in (("gamma", "Mul"), ("beta", "Add")):
        if call.has(name):
            values = call.array(name)
            sizes = iter(values.shape)
            shape = [next(sizes) if axis in axes else 1 for axis in range(call.rank("x"))]
            tensor = call.emit(kind, tensor, call.constant(values.reshape(shape)))
    return tensor
