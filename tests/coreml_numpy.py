"""The demo models once more, in NumPy alone: what a translation of them is held against."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import special

from fastvlm_ops.local.kit_models import draw_normal

_WIDTH, _HEADS, _PLACES = 128, 4, 64
_EPSILON = 1e-4


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e⁻ˣ)."""
    return 1 / (1 + np.exp(-x))


def convolved(
    x: np.ndarray,
    weight: np.ndarray,
    *,
    pads: list[tuple[int, int]],
    strides: list[int],
    dilations: list[int] | None = None,
    groups: int = 1,
) -> np.ndarray:
    """A convolution, place by place of the kernel."""
    dimensions = weight.ndim - 2
    dilations = dilations or [1] * dimensions
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    reach = [(size - 1) * gap + 1 for size, gap in zip(weight.shape[2:], dilations, strict=True)]
    sizes = [
        (size - span) // stride + 1
        for size, span, stride in zip(padded.shape[2:], reach, strides, strict=True)
    ]
    result = np.zeros((x.shape[0], weight.shape[0], *sizes))
    per_group = weight.shape[0] // groups
    for place in product(*(range(size) for size in weight.shape[2:])):
        cut = tuple(
            slice(at * gap, at * gap + stride * (size - 1) + 1, stride)
            for at, gap, stride, size in zip(place, dilations, strides, sizes, strict=True)
        )
        part = padded[(slice(None), slice(None), *cut)]
        for group in range(groups):
            rows = slice(group * per_group, (group + 1) * per_group)
            columns = slice(group * weight.shape[1], (group + 1) * weight.shape[1])
            kernel = weight[(rows, slice(None), *place)]
            result[:, rows] += np.einsum("oc,nc...->no...", kernel, part[:, columns])
    return result


@dataclass(frozen=True)
class Weights:
    """Weights of a model by name.

    :param model: its name
    :param seed: of the weights
    """

    model: str
    seed: int = 1

    def __call__(self, name: str, *shape: int, inputs: int, gain: float = 1.0) -> np.ndarray:
        """Normally distributed, the smaller the more of them are summed."""
        return draw_normal(f"{self.seed} {self.model} {name}", *shape) * (gain / inputs**0.5)

    def linear(self, x: np.ndarray, name: str, outputs: int) -> np.ndarray:
        """A layer without a bias."""
        inputs = x.shape[-1]
        return x @ self(f"{name}.weight", outputs, inputs, inputs=inputs, gain=1.3).T

    def conv(
        self, x: np.ndarray, name: str, outputs: int, size: int, *, stride: int = 1, groups: int = 1
    ) -> np.ndarray:
        """A convolution whose output is as large as its input, but for the stride."""
        inside = x.shape[1] // groups
        summed = inside * size * size
        weight = self(f"{name}.weight", outputs, inside, size, size, inputs=summed, gain=1.3)
        bias = self(f"{name}.bias", outputs, inputs=1, gain=0.05)
        pads = [(size // 2, size // 2)] * 2
        found = convolved(x, weight, pads=pads, strides=[stride, stride], groups=groups)
        return found + bias[:, None, None]


def encode(images: np.ndarray, *, seed: int = 1) -> np.ndarray:
    """VisionEncoder: 1 x 3 x 64 x 64 to 1 x 64 x 256."""
    weights = Weights("VisionEncoder", seed)
    x = gelu(weights.conv(images.astype(np.float64), "stem", 32, 3, stride=2))
    for stage, (width, hidden) in enumerate(((32, 96), (64, 192)), 1):
        for block in range(2):
            name = f"stage_{stage}.{block}"
            x = x + 0.5 * weights.conv(x, f"{name}.mix", width, 3, groups=width)
            x = _spread_and_contract(weights, x, name, hidden)
        x = gelu(weights.conv(x, f"down_{stage}.spread", 2 * width, 7, stride=2, groups=width))
        x = gelu(weights.conv(x, f"down_{stage}.mix", 2 * width, 1))
    for block in range(3):
        name = f"stage_3.{block}"
        deviation = np.sqrt(x.var(axis=1, keepdims=True) + _EPSILON)
        beta = weights(f"{name}.norm.beta", 1, _WIDTH, 1, 1, inputs=1, gain=0.05)
        normal = (x - x.mean(axis=1, keepdims=True)) / deviation + beta
        rows = _attended(weights, normal.reshape(1, _WIDTH, _PLACES).transpose(0, 2, 1), name)
        x = x + 0.5 * rows.transpose(0, 2, 1).reshape(x.shape)
        x = _spread_and_contract(weights, x, name, 4 * _WIDTH)
    x = weights.conv(x, "expand", 256, 3, groups=_WIDTH)
    squeezed = np.maximum(weights.conv(x.mean(axis=(2, 3), keepdims=True), "squeeze", 16, 1), 0)
    x = gelu(x * sigmoid(weights.conv(squeezed, "excite", 256, 1)))
    return x.reshape(1, 256, _PLACES).transpose(0, 2, 1)


def decode(tokens: np.ndarray, *, seed: int = 1) -> np.ndarray:
    """TextDecoder: 1 x 64 tokens to 1 x 64 x 512."""
    weights = Weights("TextDecoder", seed)
    x = weights("embedding", 2048, _WIDTH, inputs=1)[tokens].astype(np.float64)
    for block in range(3):
        name = f"block.{block}"
        x = x + 0.5 * _attended(weights, _of_length_one(x), name, causal=True)
        normal = _of_length_one(x)
        gate = weights.linear(normal, f"{name}.gate", 2 * _WIDTH)
        hidden = gate * sigmoid(gate) * weights.linear(normal, f"{name}.up", 2 * _WIDTH)
        x = x + 0.5 * weights.linear(hidden, f"{name}.down", _WIDTH)
    return weights.linear(_of_length_one(x), "head", 512)


def gelu(x: np.ndarray) -> np.ndarray:
    """x times the share of a normal distribution that is below it."""
    return x * special.ndtr(x)


def _spread_and_contract(weights: Weights, x: np.ndarray, name: str, hidden: int) -> np.ndarray:
    width = x.shape[1]
    wide = weights.conv(x, f"{name}.spread", width, 7, groups=width)
    wide = gelu(weights.conv(wide, f"{name}.expand", hidden, 1))
    return x + 0.5 * weights.conv(wide, f"{name}.contract", width, 1)


def _of_length_one(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + _EPSILON)


def _attended(weights: Weights, x: np.ndarray, name: str, *, causal: bool = False) -> np.ndarray:
    together = weights.linear(x, f"{name}.attend", 3 * _WIDTH)
    parts = together.reshape(1, _PLACES, 3, _HEADS, _WIDTH // _HEADS).transpose(2, 0, 3, 1, 4)
    query, key, value = (_turned(part) if causal and place < 2 else part for place, part in enumerate(parts))
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(_WIDTH // _HEADS)
    if causal:
        scores = np.where(np.tri(_PLACES, dtype=bool), scores, -np.inf)
    mixed = special.softmax(scores, axis=-1) @ value
    return weights.linear(mixed.transpose(0, 2, 1, 3).reshape(1, _PLACES, _WIDTH), f"{name}.project", _WIDTH)


def _turned(x: np.ndarray) -> np.ndarray:
    """Pairs of numbers as complex ones, turned by an angle that grows with the place."""
    half = x.shape[-1] // 2
    angles = np.outer(np.arange(_PLACES), 10_000.0 ** (-np.arange(half) / half))
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=-1)
