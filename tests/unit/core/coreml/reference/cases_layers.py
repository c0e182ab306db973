"""Convolutions, pools, normalisations and products."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from scipy import special

from tests.coreml_numpy import convolved
from tests.unit.core.coreml.reference.programs import Case, normal, uniform

IMAGE = normal(2, 4, 7, 6)


def spread(x: np.ndarray, weight: np.ndarray, strides: list[int]) -> np.ndarray:
    """A transposed convolution in one group, whole: each place adds its kernel."""
    sizes = [
        (size - 1) * stride + kernel
        for size, stride, kernel in zip(x.shape[2:], strides, weight.shape[2:], strict=True)
    ]
    result = np.zeros((x.shape[0], weight.shape[1], *sizes))
    for place in product(*(range(size) for size in x.shape[2:])):
        cut = tuple(
            slice(at * stride, at * stride + kernel)
            for at, stride, kernel in zip(place, strides, weight.shape[2:], strict=True)
        )
        result[(slice(None), slice(None), *cut)] += np.einsum(
            "nc,co...->no...", x[(slice(None), slice(None), *place)], weight
        )
    return result


def pooled(
    x: np.ndarray, reduce: Callable[..., Any], kernel: int, stride: int, pads: tuple[int, int], fill: float
) -> np.ndarray:
    """A pool over squares; padding is filled."""
    padded = np.pad(x, [(0, 0), (0, 0), pads, pads], constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
    return reduce(windows[:, :, ::stride, ::stride], axis=(-2, -1))


W33, W22, DEPTHWISE = normal(5, 4, 3, 3), normal(6, 2, 2, 2), normal(4, 1, 3, 3)
W1D, W3D = normal(3, 4, 3), normal(2, 2, 2, 2, 2)
BIAS = normal(5)
UP = normal(4, 3, 3, 3)

CONVOLUTIONS = [
    Case(
        "conv",
        lambda mb, x: mb.conv(
            x=x, weight=W33, bias=BIAS, strides=[2, 1], pad_type="custom", pad=[1, 0, 2, 1]
        ),
        lambda x: convolved(x, W33, pads=[(1, 0), (2, 1)], strides=[2, 1]) + BIAS[:, None, None],
        {"x": IMAGE},
        "custom padding",
    ),
    Case(
        "conv",
        lambda mb, x: mb.conv(x=x, weight=W22, groups=2, pad_type="valid"),
        lambda x: convolved(x, W22, pads=[(0, 0), (0, 0)], strides=[1, 1], groups=2),
        {"x": IMAGE},
        "groups",
    ),
    Case(
        "conv",
        lambda mb, x: mb.conv(x=x, weight=DEPTHWISE, groups=4, pad_type="same", dilations=[2, 1]),
        lambda x: convolved(x, DEPTHWISE, pads=[(2, 2), (1, 1)], strides=[1, 1], dilations=[2, 1], groups=4),
        {"x": IMAGE},
        "depthwise, dilated",
    ),
    Case(
        "conv",
        lambda mb, x: mb.conv(x=x, weight=W33, pad_type="same", strides=[2, 2]),
        lambda x: convolved(x, W33, pads=[(1, 1), (0, 1)], strides=[2, 2]),
        {"x": IMAGE},
        "same",
    ),
    Case(
        "conv",
        lambda mb, x: mb.conv(x=x, weight=W33, pad_type="same_lower", strides=[2, 2]),
        lambda x: convolved(x, W33, pads=[(1, 1), (1, 0)], strides=[2, 2]),
        {"x": IMAGE},
        "same lower",
    ),
    Case(
        "conv",
        lambda mb, x: mb.conv(x=x, weight=W1D, pad_type="custom", pad=[1, 1]),
        lambda x: convolved(x, W1D, pads=[(1, 1)], strides=[1]),
        {"x": normal(1, 4, 9)},
        "one dimension",
    ),
    Case(
        "conv",
        lambda mb, x: mb.conv(x=x, weight=W3D, pad_type="valid"),
        lambda x: convolved(x, W3D, pads=[(0, 0)] * 3, strides=[1] * 3),
        {"x": normal(1, 2, 4, 4, 3)},
        "three dimensions",
    ),
    Case(
        "conv",
        lambda mb, x, w: mb.conv(x=x, weight=w, pad_type="valid"),
        lambda x, w: convolved(x, w, pads=[(0, 0)] * 2, strides=[1] * 2),
        {"x": IMAGE, "w": normal(3, 4, 2, 2)},
        "computed weight",
    ),
    Case(
        "conv_transpose",
        lambda mb, x: mb.conv_transpose(x=x, weight=UP, bias=BIAS[:3], strides=[2, 2]),
        lambda x: spread(x, UP, [2, 2]) + BIAS[:3, None, None],
        {"x": IMAGE},
        "valid",
    ),
    Case(
        "conv_transpose",
        lambda mb, x: mb.conv_transpose(x=x, weight=UP, strides=[2, 2], pad_type="custom", pad=[1, 0, 1, 1]),
        lambda x: spread(x, UP, [2, 2])[:, :, 1:, 1:-1],
        {"x": IMAGE},
        "custom padding",
    ),
    Case(
        "conv_transpose",
        lambda mb, x: mb.conv_transpose(x=x, weight=UP, strides=[2, 2], pad_type="same"),
        lambda x: spread(x, UP, [2, 2])[:, :, :-1, :-1],
        {"x": IMAGE},
        "same",
    ),
    Case(
        "conv_transpose",
        lambda mb, x: mb.conv_transpose(
            x=x,
            weight=UP,
            strides=[2, 2],
            pad_type="custom",
            pad=[1, 1, 1, 1],
            output_shape=[2, 3, 14, 11],
        ),
        lambda x: spread(x, UP, [2, 2])[:, :, 1:, 1:-1],
        {"x": IMAGE},
        "output shape",
    ),
    Case(
        "conv_transpose",
        lambda mb, x: mb.conv_transpose(
            x=x,
            weight=UP,
            strides=[2, 2],
            pad_type="custom",
            pad=[1, 1, 1, 1],
            output_shape=[2, 3, 15, 13],
        ),
        lambda x: np.pad(spread(x, UP, [2, 2]), [(0, 0), (0, 0), (0, 1), (0, 1)])[:, :, 1:, 1:],
        {"x": IMAGE},
        "output shape beyond what is computed",
    ),
]
POOLS = [
    Case(
        "max_pool",
        lambda mb, x: mb.max_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1] * 4),
        lambda x: pooled(x, np.max, 3, 2, (1, 1), -np.inf),
        {"x": IMAGE},
    ),
    Case(
        "max_pool",
        lambda mb, x: mb.max_pool(x=x, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid", ceil_mode=True),
        lambda x: pooled(
            np.pad(x, [(0, 0), (0, 0), (0, 1), (0, 0)], constant_values=-np.inf), np.max, 2, 2, (0, 0), 0
        ),
        {"x": IMAGE},
        "ceiling",
    ),
    Case(
        "avg_pool",
        lambda mb, x: mb.avg_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1] * 4),
        lambda x: pooled(x, np.mean, 3, 2, (1, 1), 0),
        {"x": IMAGE},
    ),
    Case(
        "avg_pool",
        lambda mb, x: mb.avg_pool(
            x=x,
            kernel_sizes=[3, 3],
            strides=[2, 2],
            pad_type="custom",
            pad=[1] * 4,
            exclude_padding_from_average=True,
        ),
        lambda x: pooled(x, np.nanmean, 3, 2, (1, 1), np.nan),
        {"x": IMAGE},
        "without padding",
    ),
    Case(
        "avg_pool",
        lambda mb, x: mb.avg_pool(x=x, kernel_sizes=[7, 6], strides=[7, 6], pad_type="valid"),
        lambda x: x.mean(axis=(2, 3), keepdims=True),
        {"x": IMAGE},
        "whole picture",
    ),
    Case(
        "l2_pool",
        lambda mb, x: mb.l2_pool(x=x, kernel_sizes=[2, 2], strides=[1, 1], pad_type="valid"),
        lambda x: np.sqrt(pooled(x * x, np.sum, 2, 1, (0, 0), 0)),
        {"x": IMAGE},
    ),
]
MEAN, VARIANCE, GAMMA, BETA = normal(4), uniform(0.5, 2, 4), normal(4), normal(4)
ROWS = normal(2, 5, 6)
G6, B6, G56 = normal(6), normal(6), normal(5, 6)


def standardised(x: np.ndarray, axes: tuple[int, ...], epsilon: float = 1e-5) -> np.ndarray:
    """Mean 0 and variance 1 along axes."""
    x = x.astype(np.float64)
    return (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + epsilon)


def _response(x: np.ndarray, size: int, alpha: float, beta: float, k: float) -> np.ndarray:
    squares = np.pad(x * x, [(0, 0), (size // 2, size // 2), (0, 0), (0, 0)])
    sums = np.lib.stride_tricks.sliding_window_view(squares, size, axis=1).sum(axis=-1)
    return x / (k + alpha / size * sums) ** beta


NORMALISATIONS = [
    Case(
        "batch_norm",
        lambda mb, x: mb.batch_norm(x=x, mean=MEAN, variance=VARIANCE, gamma=GAMMA, beta=BETA, epsilon=1e-3),
        lambda x: (
            (x - MEAN[:, None, None]) / np.sqrt(VARIANCE + 1e-3)[:, None, None] * GAMMA[:, None, None]
            + BETA[:, None, None]
        ),
        {"x": IMAGE},
    ),
    Case(
        "batch_norm",
        lambda mb, x: mb.batch_norm(x=x, mean=MEAN, variance=VARIANCE),
        lambda x: (x - MEAN[:, None, None]) / np.sqrt(VARIANCE + 1e-5)[:, None, None],
        {"x": IMAGE},
        "without scale",
    ),
    Case(
        "instance_norm",
        lambda mb, x: mb.instance_norm(x=x, gamma=GAMMA, beta=BETA),
        lambda x: standardised(x, (2, 3)) * GAMMA[:, None, None] + BETA[:, None, None],
        {"x": IMAGE},
    ),
    Case(
        "layer_norm",
        lambda mb, x: mb.layer_norm(x=x, axes=[-1], gamma=G6, beta=B6, epsilon=1e-3),
        lambda x: standardised(x, (-1,), 1e-3) * G6 + B6,
        {"x": ROWS},
    ),
    Case(
        "layer_norm",
        lambda mb, x: mb.layer_norm(x=x, axes=[1, 2], gamma=G56),
        lambda x: standardised(x, (1, 2)) * G56,
        {"x": ROWS},
        "two axes, no shift",
    ),
    Case(
        "layer_norm",
        lambda mb, x: mb.layer_norm(x=x, axes=[1], gamma=GAMMA, beta=BETA),
        lambda x: standardised(x, (1,)) * GAMMA[:, None, None] + BETA[:, None, None],
        {"x": IMAGE},
        "channels",
    ),
    Case(
        "layer_norm",
        lambda mb, x: mb.layer_norm(x=x, axes=[-1]),
        lambda x: standardised(x, (-1,)),
        {"x": ROWS},
        "bare",
    ),
    Case(
        "l2_norm",
        lambda mb, x: mb.l2_norm(x=x, epsilon=1e-3),
        lambda x: x / np.sqrt((x * x).sum(axis=(1, 2, 3), keepdims=True) + 1e-3),
        {"x": IMAGE},
    ),
    Case(
        "local_response_norm",
        lambda mb, x: mb.local_response_norm(x=x, size=3, alpha=0.5, beta=0.6, k=1.5),
        lambda x: _response(x, 3, 0.5, 0.6, 1.5),
        {"x": IMAGE},
    ),
]
WEIGHT, SHIFT = normal(5, 6), normal(5)


def attended(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: Any = 0.0) -> np.ndarray:
    """Attention, with something added to its scores."""
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]) + mask
    return special.softmax(scores, axis=-1) @ v


HEADS = {"q": normal(1, 2, 3, 8), "k": normal(1, 2, 5, 8), "v": normal(1, 2, 5, 4)}
PRODUCTS = [
    Case(
        "linear",
        lambda mb, x: mb.linear(x=x, weight=WEIGHT, bias=SHIFT),
        lambda x: x @ WEIGHT.T + SHIFT,
        {"x": ROWS},
    ),
    Case(
        "linear",
        lambda mb, x: mb.linear(x=x, weight=WEIGHT),
        lambda x: x @ WEIGHT.T,
        {"x": normal(6)},
        "vector, no bias",
    ),
    Case(
        "matmul", lambda mb, x, y: mb.matmul(x=x, y=y), np.matmul, {"x": normal(2, 3, 4), "y": normal(4, 5)}
    ),
    Case(
        "matmul",
        lambda mb, x, y: mb.matmul(x=x, y=y, transpose_x=True, transpose_y=True),
        lambda x, y: np.swapaxes(x, -1, -2) @ np.swapaxes(y, -1, -2),
        {"x": normal(2, 4, 3), "y": normal(2, 5, 4)},
        "transposed",
    ),
    Case(
        "einsum",
        lambda mb, x, y: mb.einsum(values=(x, y), equation="nchw,nwhu->nchu"),
        lambda x, y: np.einsum("nchw,nwhu->nchu", x, y),
        {"x": normal(1, 3, 2, 4), "y": normal(2, 4, 2, 5)},
    ),
    Case(
        "scaled_dot_product_attention",
        lambda mb, q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v),
        attended,
        HEADS,
        target="iOS18",
    ),
    Case(
        "scaled_dot_product_attention",
        lambda mb, q, k, v, m: mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=m),
        attended,
        {**HEADS, "m": normal(3, 5)},
        "added mask",
        "iOS18",
    ),
    Case(
        "scaled_dot_product_attention",
        lambda mb, q, k, v, m: mb.scaled_dot_product_attention(
            query=q, key=k, value=v, attn_mask=mb.cast(x=m, dtype="bool")
        ),
        lambda q, k, v, m: attended(q, k, v, np.where(m, 0, -np.inf)),
        {**HEADS, "m": np.tril(np.ones((3, 5), np.int32))},
        "mask of truths",
        "iOS18",
    ),
]


CASES = [*CONVOLUTIONS, *POOLS, *NORMALISATIONS, *PRODUCTS]
