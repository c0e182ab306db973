"""Activations and softmax."""

from __future__ import annotations

import numpy as np

from fastvlm_ops.core.coreml.reference.call import Call
from fastvlm_ops.core.coreml.reference.registry import translates

_PLAIN = {"relu": "Relu", "sigmoid": "Sigmoid", "softplus": "Softplus", "softsign": "Softsign"}
_QUICK_GELU_SLOPE = 1.702


@translates(*_PLAIN)
def plain(call: Call) -> str:
    """Without parameters."""
    return call.emit(_PLAIN[call.kind_name], call.tensor("x"))


@translates("gelu")
def gelu(call: Call) -> str:
    """Exact, or one of its two approximations."""
    x = call.tensor("x")
    mode = str(call.value("mode", "EXACT"))
    if mode == "SIGMOID_APPROXIMATION":
        gate = call.emit("Sigmoid", call.emit("Mul", x, call.constant(_QUICK_GELU_SLOPE)))
        return call.emit("Mul", x, gate)
    return call.emit("Gelu", x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


@translates("silu")
def silu(call: Call) -> str:
    """x · sigmoid(x)."""
    x = call.tensor("x")
    return call.emit("Mul", x, call.emit("Sigmoid", x))


@translates("relu6")
def relu6(call: Call) -> str:
    """Between 0 and 6."""
    return call.emit("Clip", call.tensor("x"), call.constant(0.0), call.constant(6.0))


@translates("leaky_relu")
def leaky_relu(call: Call) -> str:
    """alpha · x below 0."""
    return call.emit("LeakyRelu", call.tensor("x"), alpha=float(call.value("alpha")))


@translates("elu")
def elu(call: Call) -> str:
    """alpha · (eˣ - 1) below 0."""
    return call.emit("Elu", call.tensor("x"), alpha=float(call.value("alpha")))


@translates("prelu")
def prelu(call: Call) -> str:
    """alpha of the channel · x below 0."""
    return call.emit("PRelu", call.tensor("x"), _by_channel(call, "alpha"))


@translates("clamped_relu")
def clamped_relu(call: Call) -> str:
    """Leaky, and at most beta."""
    leaky = call.emit("LeakyRelu", call.tensor("x"), alpha=float(call.value("alpha")))
    return call.emit("Min", leaky, call.constant(float(call.value("beta"))))


@translates("linear_activation")
def linear_activation(call: Call) -> str:
    """alpha · x + beta."""
    scaled = call.emit("Mul", call.tensor("x"), call.constant(float(call.value("alpha"))))
    return call.emit("Add", scaled, call.constant(float(call.value("beta"))))


@translates("scaled_tanh")
def scaled_tanh(call: Call) -> str:
    """alpha · tanh(beta · x)."""
    inner = call.emit("Mul", call.tensor("x"), call.constant(float(call.value("beta"))))
    return call.emit("Mul", call.emit("Tanh", inner), call.constant(float(call.value("alpha"))))


@translates("sigmoid_hard")
def sigmoid_hard(call: Call) -> str:
    """alpha · x + beta, between 0 and 1."""
    return call.emit(
        "HardSigmoid", call.tensor("x"), alpha=float(call.value("alpha")), beta=float(call.value("beta"))
    )


@translates("softplus_parametric")
def softplus_parametric(call: Call) -> str:
    """alpha · log(1 + e^(beta · x)), both of the channel."""
    inner = call.emit("Mul", call.tensor("x"), _by_channel(call, "beta"))
    return call.emit("Mul", call.emit("Softplus", inner), _by_channel(call, "alpha"))


@translates("thresholded_relu")
def thresholded_relu(call: Call) -> str:
    """0 below alpha, and x from it on; ONNX's own gives 0 at alpha."""
    x = call.tensor("x")
    reached = call.emit("GreaterOrEqual", x, call.constant(float(call.value("alpha"))))
    return call.emit("Where", reached, x, call.constant(0.0))


@translates("softmax")
def softmax(call: Call) -> str:
    """Along an axis."""
    return call.emit("Softmax", call.tensor("x"), axis=call.axis("axis", default=-1))


def _by_channel(call: Call, name: str) -> str:
    """A value of each channel, in a shape that broadcasts over what follows the channels."""
    values = np.asarray(call.value(name))
    return call.constant(values.reshape(-1, *[1] * (call.rank("x") - 2)))
