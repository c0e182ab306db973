"""Reductions along axes, and recurrent layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from tests.coreml_numpy import sigmoid
from tests.unit.core.coreml.reference.programs import Case, normal, uniform, whole

ROWS = normal(2, 5, 6)


def _reduction(name: str, expect: Callable[..., Any], x: np.ndarray = ROWS, form: str = "") -> list[Case]:
    def along(mb: Any, x: Any) -> Any:
        return getattr(mb, name)(x=x, axes=[0, -1], keep_dims=True)

    def all_of(mb: Any, x: Any) -> Any:
        return getattr(mb, name)(x=x)

    return [
        Case(name, along, lambda x: expect(x, axis=(0, -1), keepdims=True), {"x": x}, f"axes {form}".strip()),
        Case(name, all_of, lambda x: expect(x, axis=None, keepdims=False), {"x": x}, f"all {form}".strip()),
    ]


REDUCTIONS = [
    *_reduction("reduce_max", np.max),
    *_reduction("reduce_min", np.min, whole(-9, 9, 3, 4), "whole"),
    *_reduction("reduce_sum", np.sum),
    *_reduction("reduce_sum", np.sum, whole(-9, 9, 3, 4), "whole"),
    *_reduction("reduce_prod", np.prod, uniform(0.5, 1.5, 2, 3)),
    *_reduction("reduce_mean", np.mean),
    *_reduction("reduce_l1_norm", lambda x, **how: np.abs(x).sum(**how)),
    *_reduction("reduce_l2_norm", lambda x, **how: np.sqrt((x * x).sum(**how))),
    *_reduction("reduce_log_sum", lambda x, **how: np.log(x.sum(**how)), uniform(0.5, 2, 2, 3)),
    *_reduction("reduce_log_sum_exp", special.logsumexp),
    *_reduction("reduce_sum_square", lambda x, **how: (x * x).sum(**how)),
    Case(
        "reduce_argmax", lambda mb, x: mb.reduce_argmax(x=x, axis=1), lambda x: x.argmax(axis=1), {"x": ROWS}
    ),
    Case(
        "reduce_argmin",
        lambda mb, x: mb.reduce_argmin(x=x, axis=-1, keep_dims=True),
        lambda x: x.argmin(axis=-1)[..., None],
        {"x": ROWS},
    ),
]
STEPS, BATCH, INPUT, SIZE = 4, 2, 3, 5
SEQUENCE = {"x": normal(STEPS, BATCH, INPUT), "h": normal(BATCH, SIZE)}
_IH, _HH, _B = normal(4 * SIZE, INPUT), normal(4 * SIZE, SIZE), normal(4 * SIZE)
_IH2, _HH2, _B2 = normal(4 * SIZE, INPUT), normal(4 * SIZE, SIZE), normal(4 * SIZE)


def lstm(
    x: np.ndarray, h: np.ndarray, c: np.ndarray, ih: np.ndarray, hh: np.ndarray, bias: np.ndarray
) -> list[np.ndarray]:
    """Gates stand as input, forget, output, cell."""
    every = []
    for step in x:
        gate_in, forget, out, cell = np.split(step @ ih.T + h @ hh.T + bias, 4, axis=-1)
        c = sigmoid(forget) * c + sigmoid(gate_in) * np.tanh(cell)
        h = sigmoid(out) * np.tanh(c)
        every.append(h)
    return [np.stack(every), h, c]


def both_ways(x: np.ndarray, h: np.ndarray, c: np.ndarray) -> list[np.ndarray]:
    """Forwards and backwards, side by side."""
    ahead = lstm(x, h[:, :SIZE], c[:, :SIZE], _IH, _HH, _B)
    back = lstm(x[::-1], h[:, SIZE:], c[:, SIZE:], _IH2, _HH2, _B2)
    back[0] = back[0][::-1]
    return [np.concatenate(pair, axis=-1) for pair in zip(ahead, back, strict=True)]


def gru(x: np.ndarray, h: np.ndarray, *, after: bool) -> list[np.ndarray]:
    """Gates stand as reset, output, update."""
    ih, hh, bias = (part[: 3 * SIZE] for part in (_IH, _HH, _B))
    every = []
    for step in x:
        (xr, xo, xz), (hr, ho, hz) = np.split(step @ ih.T, 3, axis=-1), np.split(h @ hh.T, 3, axis=-1)
        br, bo, bz = np.split(bias, 3)
        reset, update = sigmoid(xr + hr + br), sigmoid(xz + hz + bz)
        inner = reset * (ho + bo) if after else (reset * h) @ hh[SIZE : 2 * SIZE].T + bo
        h = (1 - update) * np.tanh(xo + inner) + update * h
        every.append(h)
    return [np.stack(every), h]


def rnn(x: np.ndarray, h: np.ndarray) -> list[np.ndarray]:
    """The plain one."""
    for step in x:
        h = np.tanh(step @ _IH[:SIZE].T + h @ _HH[:SIZE].T + _B[:SIZE])
    return [h[None], h]


RECURRENT = [
    Case(
        "lstm",
        lambda mb, x, h, c: mb.lstm(
            x=x,
            initial_h=h,
            initial_c=c,
            weight_ih=_IH,
            weight_hh=_HH,
            bias=_B,
            output_sequence=True,
        ),
        lambda x, h, c: lstm(x, h, c, _IH, _HH, _B),
        {**SEQUENCE, "c": normal(BATCH, SIZE)},
    ),
    Case(
        "lstm",
        lambda mb, x, h, c: mb.lstm(
            x=x,
            initial_h=h,
            initial_c=c,
            weight_ih=_IH,
            weight_hh=_HH,
            bias=_B,
            weight_ih_back=_IH2,
            weight_hh_back=_HH2,
            bias_back=_B2,
            direction="bidirectional",
            output_sequence=True,
        ),
        both_ways,
        {"x": SEQUENCE["x"], "h": normal(BATCH, 2 * SIZE), "c": normal(BATCH, 2 * SIZE)},
        "both ways",
    ),
    Case(
        "gru",
        lambda mb, x, h: mb.gru(
            x=x,
            initial_h=h,
            weight_ih=_IH[: 3 * SIZE],
            weight_hh=_HH[: 3 * SIZE],
            bias=_B[: 3 * SIZE],
            output_sequence=True,
        ),
        lambda x, h: gru(x, h, after=False),
        SEQUENCE,
    ),
    Case(
        "gru",
        lambda mb, x, h: mb.gru(
            x=x,
            initial_h=h,
            weight_ih=_IH[: 3 * SIZE],
            weight_hh=_HH[: 3 * SIZE],
            bias=_B[: 3 * SIZE],
            output_sequence=True,
            reset_after=True,
        ),
        lambda x, h: gru(x, h, after=True),
        SEQUENCE,
        "reset after",
        "iOS18",
    ),
    Case(
        "rnn",
        lambda mb, x, h: mb.rnn(x=x, initial_h=h, weight_ih=_IH[:SIZE], weight_hh=_HH[:SIZE], bias=_B[:SIZE]),
        rnn,
        SEQUENCE,
        "last step",
    ),
]
CASES = [*REDUCTIONS, *RECURRENT]
