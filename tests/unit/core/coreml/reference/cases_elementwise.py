"""Arithmetic, comparisons, logic, casts and activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from tests.coreml_numpy import sigmoid
from tests.unit.core.coreml.reference.programs import Case, normal, uniform, whole

X = normal(2, 3, 4)
SMALL = uniform(-0.9, 0.9, 2, 3)
POSITIVE = uniform(0.2, 4, 2, 3)
NUMBERS, DIVISORS = whole(-20, 20, 3, 4), np.array([[3], [-4], [7]], np.int32)
IMAGE = normal(2, 3, 4, 5)


def _unary(name: str, expect: Callable[..., Any], x: np.ndarray, form: str = "", **parameters: Any) -> Case:
    return Case(name, lambda mb, x: getattr(mb, name)(x=x, **parameters), expect, {"x": x}, form)


def _binary(name: str, expect: Callable[..., Any], x: Any, y: Any, form: str = "") -> Case:
    return Case(name, lambda mb, x, y: getattr(mb, name)(x=x, y=y), expect, {"x": x, "y": y}, form)


def _truths(name: str, expect: Callable[..., Any]) -> Case:
    def make(mb: Any, x: Any, y: Any) -> Any:
        return mb.cast(
            x=getattr(mb, name)(x=mb.cast(x=x, dtype="bool"), y=mb.cast(x=y, dtype="bool")), dtype="int32"
        )

    return Case(name, make, expect, {"x": whole(0, 2, 3, 4), "y": whole(0, 2, 3, 4)})


def _comparison(name: str, expect: Callable[..., Any], x: Any, y: Any, form: str = "") -> Case:
    def make(mb: Any, x: Any, y: Any) -> Any:
        return mb.cast(x=getattr(mb, name)(x=x, y=y), dtype="int32")

    return Case(name, make, expect, {"x": x, "y": y}, form)


UNARY = [
    _unary("abs", np.abs, X),
    _unary("abs", np.abs, NUMBERS, "whole"),
    _unary("acos", np.arccos, SMALL),
    _unary("asin", np.arcsin, SMALL),
    _unary("atan", np.arctan, X),
    _unary("atanh", np.arctanh, SMALL),
    _unary("ceil", np.ceil, X),
    _unary("cos", np.cos, X),
    _unary("cosh", np.cosh, X),
    _unary("erf", special.erf, X),
    _unary("exp", np.exp, X),
    _unary("exp2", np.exp2, X),
    _unary("floor", np.floor, X),
    _unary("identity", lambda x: x, X),
    _unary("inverse", lambda x: 1 / (x + 0.25), POSITIVE, epsilon=np.float32(0.25)),
    _unary("log", lambda x: np.log(x + 0.5), POSITIVE, epsilon=np.float32(0.5)),
    _unary("log", np.log, POSITIVE, "no epsilon"),
    _unary("round", np.rint, np.array([0.5, 1.5, -0.5, 2.4, -2.6], np.float32)),
    _unary("rsqrt", lambda x: 1 / np.sqrt(x + 0.5), POSITIVE, epsilon=np.float32(0.5)),
    _unary("sign", np.sign, np.array([-2.0, 0.0, 3.0], np.float32)),
    _unary("sin", np.sin, X),
    _unary("sinh", np.sinh, X),
    _unary("sqrt", np.sqrt, POSITIVE),
    _unary("square", lambda x: x * x, X),
    _unary("tan", np.tan, SMALL),
    _unary("tanh", np.tanh, X),
    _unary("threshold", lambda x: np.maximum(x, 0.3), X, alpha=np.float32(0.3)),
    _unary("clip", lambda x: np.clip(x, -0.5, 0.7), X, alpha=np.float32(-0.5), beta=np.float32(0.7)),
    _unary("cast", np.trunc, 5 * X, dtype="int32"),
    _unary("cast", lambda x: x.astype(np.float32), NUMBERS, "whole to float", dtype="fp32"),
    _unary("cast", lambda x: x.astype(np.int8), np.array([100, 200, -300], np.int32), "wraps", dtype="int8"),
    Case(
        "cast",
        lambda mb, x: mb.cast(x=mb.cast(x=x, dtype="bool"), dtype="fp32"),
        lambda x: (x != 0).astype(np.float32),
        {"x": np.array([0.0, 2.0, -0.5], np.float32)},
        "to truth",
    ),
]
BINARY = [
    _binary("add", np.add, X, normal(3, 1)),
    _binary("add", np.add, NUMBERS, DIVISORS, "whole"),
    _binary("sub", np.subtract, X, normal(4)),
    _binary("mul", np.multiply, X, normal(2, 1, 4)),
    _binary("mul", np.multiply, NUMBERS, DIVISORS, "whole"),
    _binary("maximum", np.maximum, X, normal(2, 3, 4)),
    _binary("minimum", np.minimum, NUMBERS, DIVISORS),
    _binary("real_div", np.divide, X, uniform(0.5, 2, 3, 4)),
    _binary("real_div", lambda x, y: np.trunc(x / y), NUMBERS, DIVISORS, "whole"),
    _binary("floor_div", np.floor_divide, X, uniform(0.5, 2, 3, 4)),
    _binary("floor_div", np.floor_divide, NUMBERS, DIVISORS, "whole"),
    _binary("mod", np.mod, X, np.array([0.7, -0.6, 0.5, -0.3], np.float32)),
    _binary("mod", np.mod, NUMBERS, DIVISORS, "whole"),
    _binary("pow", np.power, POSITIVE, normal(2, 3)),
    Case("pow", lambda mb, x: mb.pow(x=x, y=2.0), lambda x: x**2, {"x": X}, "square"),
    Case("pow", lambda mb, x: mb.pow(x=x, y=3.0), lambda x: x**3, {"x": X}, "cube"),
    _comparison("equal", np.equal, whole(0, 3, 4, 4), whole(0, 3, 4, 4)),
    _comparison("not_equal", np.not_equal, whole(0, 3, 4, 4), whole(0, 3, 4, 4)),
    _comparison("greater", np.greater, X, normal(2, 3, 4)),
    _comparison("greater_equal", np.greater_equal, whole(0, 3, 4, 4), whole(0, 3, 4, 4)),
    _comparison("less", np.less, X, normal(2, 3, 4)),
    _comparison("less_equal", np.less_equal, whole(0, 3, 4, 4), whole(0, 3, 4, 4)),
    _truths("logical_and", np.logical_and),
    _truths("logical_or", np.logical_or),
    _truths("logical_xor", np.logical_xor),
    Case(
        "logical_not",
        lambda mb, x: mb.cast(x=mb.logical_not(x=mb.cast(x=x, dtype="bool")), dtype="int32"),
        np.logical_not,
        {"x": whole(0, 2, 3, 4)},
    ),
    Case(
        "select",
        lambda mb, c, a, b: mb.select(cond=mb.cast(x=c, dtype="bool"), a=a, b=b),
        lambda c, a, b: np.where(c, a, b),
        {"c": whole(0, 2, 3, 4), "a": normal(3, 4), "b": normal(3, 4)},
    ),
    Case(
        "select",
        lambda mb, c, a, b: mb.cast(
            x=mb.select(cond=mb.equal(x=c, y=1), a=mb.equal(x=a, y=1), b=mb.equal(x=b, y=0)), dtype="int32"
        ),
        lambda c, a, b: np.where(c, a, 1 - b),
        {"c": whole(0, 2, 3, 4), "a": whole(0, 2, 3, 4), "b": whole(0, 2, 3, 4)},
        "truths",
    ),
]
SLOPES = np.array([0.1, 0.2, 0.3], np.float32)
ACTIVATIONS = [
    _unary("relu", lambda x: np.maximum(x, 0), X),
    _unary("relu6", lambda x: np.clip(x, 0, 6), 6 * X),
    _unary("sigmoid", sigmoid, X),
    _unary("silu", lambda x: x * sigmoid(x), X),
    _unary("softplus", lambda x: np.log1p(np.exp(x)), X),
    _unary("softsign", lambda x: x / (1 + np.abs(x)), X),
    _unary("gelu", lambda x: x * special.ndtr(x), X),
    _unary("gelu", lambda x: x * sigmoid(1.702 * x), X, "sigmoid", mode="SIGMOID_APPROXIMATION"),
    _unary(
        "gelu",
        lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        X,
        "tanh",
        mode="TANH_APPROXIMATION",
    ),
    _unary("leaky_relu", lambda x: np.where(x < 0, 0.1 * x, x), X, alpha=np.float32(0.1)),
    _unary("elu", lambda x: np.where(x < 0, 0.7 * np.expm1(x), x), X, alpha=np.float32(0.7)),
    _unary("prelu", lambda x: np.where(x < 0, SLOPES[:, None, None] * x, x), IMAGE, alpha=SLOPES),
    _unary(
        "clamped_relu",
        lambda x: np.minimum(np.where(x < 0, 0.1 * x, x), 0.8),
        X,
        alpha=np.float32(0.1),
        beta=np.float32(0.8),
    ),
    _unary("linear_activation", lambda x: 0.5 * x + 2, X, alpha=np.float32(0.5), beta=np.float32(2)),
    _unary("scaled_tanh", lambda x: 0.5 * np.tanh(2 * x), X, alpha=np.float32(0.5), beta=np.float32(2)),
    _unary(
        "sigmoid_hard",
        lambda x: np.clip(0.2 * x + 0.5, 0, 1),
        4 * X,
        alpha=np.float32(0.2),
        beta=np.float32(0.5),
    ),
    _unary(
        "softplus_parametric",
        lambda x: SLOPES[:, None, None] * np.log1p(np.exp(2 * SLOPES[:, None, None] * x)),
        IMAGE,
        alpha=SLOPES,
        beta=2 * SLOPES,
    ),
    _unary(
        "thresholded_relu",
        lambda x: np.where(x >= 0.5, x, 0),
        np.array([0.2, 0.5, 0.7, -1], np.float32),
        alpha=np.float32(0.5),
    ),
    _unary("softmax", lambda x: special.softmax(x, axis=1), X, axis=1),
    _unary("softmax", lambda x: special.softmax(x, axis=-1), X, "last axis"),
]
CASES = [*UNARY, *BINARY, *ACTIVATIONS]
