"""Two networks in coremltools' MIL: an image encoder built as FastViTHD is, and a text decoder with rotary
attention.

Both are a few hundred thousand parameters. Their weights come by name, so that a change of one thing leaves
all else as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

IMAGE_SHAPE = (1, 3, 64, 64)
TOKENS = 64
VOCABULARY = 2048
_LOGITS = 512
_WIDTH = 128
_HEADS = 4
_HEAD_WIDTH = _WIDTH // _HEADS
_EPSILON = 1e-4  # as small as fp16 takes beside a variance of 1
# A block whose contribution is scaled by this takes its time and leaves the output as it was.
_IDLE = 1e-4
_OVERFLOW = 2.0**14  # scores of 4 and more times this are infinite in fp16, and 2**-14 is still normal


@dataclass(frozen=True)
class Shape:
    """What makes one version of a network differ from another in more than its weights.

    :param idle_blocks: blocks more that change nothing but the time; they share the weights of others
    :param idle_hidden: numbers more in the encoder's last feed-forward layers, which nothing is made of
    :param positions: that the decoder's rotary tables are made for
    :param scores_overflow: scale attention scores so that fp16 cannot hold them, and back
    :param gathered_values: take the values of the first attention by gather_along_axis, not by split
    """

    idle_blocks: int = 0
    idle_hidden: int = 0
    positions: int = 256
    scores_overflow: bool = False
    gathered_values: bool = False


class Weights:
    """Constants of a program, each made once, however many operations use it.

    :param draw: gives normally distributed numbers by name and shape
    :param kind: their NumPy type, float16 or float32
    """

    def __init__(self, draw: Callable[..., np.ndarray], kind: Any) -> None:
        self._draw = draw
        self._made: dict[str, Any] = {}
        self.kind = kind

    def __call__(
        self, name: str, *shape: int, inputs: int, gain: float = 1.0, idle: tuple[int, int] = (0, 0)
    ) -> Any:
        """Return a weight that keeps the variance of what goes through it.

        :param name: of the weight
        :param shape: of it
        :param inputs: numbers that are summed to give one
        :param gain: of the standard deviation
        :param idle: outputs more, which repeat the first, and inputs more, which are ignored
        """
        import numpy as np

        if name not in self._made:
            value = self._draw(name, *shape) * (gain / inputs**0.5)
            beyond = [(0, 0)] * (value.ndim - 1)
            value = np.pad(value, [(0, idle[0]), *beyond], mode="wrap")
            if idle[1]:
                value = np.pad(value, [(0, 0), (0, idle[1]), *beyond[1:]])
            self.constant(name, value)
        return self._made[name]

    def constant(self, name: str, value: Any) -> Any:
        """Return a constant that is given.

        :param name: of the constant
        :param value: of it
        """
        import numpy as np
        from coremltools.converters.mil import Builder

        if name not in self._made:
            self._made[name] = Builder.const(val=np.asarray(value, self.kind), name=name)
        return self._made[name]

    def scalar(self, value: float) -> Any:
        """Return a number in the weights' type.

        :param value: the number
        """
        return self.kind(value)


def encode(weights: Weights, shape: Shape, images: Any) -> Any:
    """Encode images: a convolutional stem and two convolutional stages, attention, squeeze and excitation.

    :param weights: of the network
    :param shape: of this version
    :param images: of the shape (1, 3, 64, 64)
    :returns: features of the shape (1, 64, 256)
    """
    from coremltools.converters.mil import Builder

    x = Builder.gelu(x=_convolve(weights, images, "stem", 3, 32, 3, stride=2))
    for name, scale in _blocks("stage_1", 2, 4 * shape.idle_blocks):
        x = _mixer(weights, x, name, 32, 96, scale)
    x = _downsample(weights, x, "down_1", 32, 64)
    for name, scale in _blocks("stage_2", 2, shape.idle_blocks):
        x = _mixer(weights, x, name, 64, 192, scale)
    x = _downsample(weights, x, "down_2", 64, _WIDTH)
    for position, (name, scale) in enumerate(_blocks("stage_3", 3, shape.idle_blocks)):
        normal = _channel_norm(weights, x, f"{name}.norm")
        rows = Builder.transpose(x=Builder.reshape(x=normal, shape=[1, _WIDTH, TOKENS]), perm=[0, 2, 1])
        attended = _attention(weights, rows, name, shape, gathered=shape.gathered_values and position == 0)
        image = Builder.reshape(x=Builder.transpose(x=attended, perm=[0, 2, 1]), shape=[1, _WIDTH, 8, 8])
        x = Builder.add(x=x, y=_scaled(weights, image, f"{name}.attention_scale", _WIDTH, scale))
        x = _feed_forward(weights, x, name, _WIDTH, 4 * _WIDTH, scale, idle=shape.idle_hidden)
    x = _squeeze_and_excite(weights, _convolve(weights, x, "expand", _WIDTH, 256, 3, groups=_WIDTH))
    return Builder.transpose(x=Builder.reshape(x=x, shape=[1, 256, TOKENS]), perm=[0, 2, 1])


def _blocks(stage: str, count: int, idle: int) -> list[tuple[str, float]]:
    """Return the blocks of a stage by the name of their weights, each with the scale of what it adds."""
    working = [(f"{stage}.{block}", 0.5) for block in range(count)]
    return working + [(f"{stage}.{count - 1}", _IDLE)] * idle


def _convolve(
    weights: Weights,
    x: Any,
    name: str,
    inputs: int,
    outputs: int,
    size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    idle: tuple[int, int] = (0, 0),
) -> Any:
    """Convolve; the norm that training had after it is in the weight and bias."""
    from coremltools.converters.mil import Builder

    inside = inputs // groups
    summed = inside * size * size
    return Builder.conv(
        x=x,
        weight=weights(f"{name}.weight", outputs, inside, size, size, inputs=summed, gain=1.3, idle=idle),
        bias=weights(f"{name}.bias", outputs, inputs=1, gain=0.05, idle=(idle[0], 0)),
        strides=[stride, stride],
        pad_type="custom",
        pad=[size // 2] * 4,
        groups=groups,
    )


def _mixer(weights: Weights, x: Any, name: str, width: int, hidden: int, scale: float) -> Any:
    """Mix places by a depthwise convolution, then channels."""
    from coremltools.converters.mil import Builder

    mixed = _convolve(weights, x, f"{name}.mix", width, width, 3, groups=width)
    x = Builder.add(x=x, y=_scaled(weights, mixed, f"{name}.mix_scale", width, scale))
    return _feed_forward(weights, x, name, width, hidden, scale)


def _feed_forward(
    weights: Weights, x: Any, name: str, width: int, hidden: int, scale: float, *, idle: int = 0
) -> Any:
    from coremltools.converters.mil import Builder

    wide = _convolve(weights, x, f"{name}.spread", width, width, 7, groups=width)
    wide = Builder.gelu(x=_convolve(weights, wide, f"{name}.expand", width, hidden, 1, idle=(idle, 0)))
    narrow = _convolve(weights, wide, f"{name}.contract", hidden, width, 1, idle=(0, idle))
    return Builder.add(x=x, y=_scaled(weights, narrow, f"{name}.scale", width, scale))


def _scaled(weights: Weights, x: Any, name: str, width: int, scale: float) -> Any:
    """Scale what a block adds, a number a channel."""
    import numpy as np
    from coremltools.converters.mil import Builder

    factors = np.full((1, width, 1, 1), scale)
    return Builder.mul(x=x, y=weights.constant(f"{name}.{scale:g}", factors))


def _downsample(weights: Weights, x: Any, name: str, inputs: int, outputs: int) -> Any:
    from coremltools.converters.mil import Builder

    x = Builder.gelu(x=_convolve(weights, x, f"{name}.spread", inputs, outputs, 7, stride=2, groups=inputs))
    return Builder.gelu(x=_convolve(weights, x, f"{name}.mix", outputs, outputs, 1))


def _channel_norm(weights: Weights, x: Any, name: str) -> Any:
    """Normalise over channels, operation by operation, as FastViTHD's does."""
    import numpy as np
    from coremltools.converters.mil import Builder

    centred = Builder.sub(x=x, y=Builder.reduce_mean(x=x, axes=[1], keep_dims=True))
    squares = Builder.pow(x=centred, y=weights.scalar(2))
    variance = Builder.add(
        x=Builder.reduce_mean(x=squares, axes=[1], keep_dims=True), y=weights.scalar(_EPSILON)
    )
    normal = Builder.real_div(x=centred, y=Builder.sqrt(x=variance))
    gamma = weights.constant(f"{name}.gamma", np.ones((1, _WIDTH, 1, 1)))
    return Builder.add(
        x=Builder.mul(x=normal, y=gamma), y=weights(f"{name}.beta", 1, _WIDTH, 1, 1, inputs=1, gain=0.05)
    )


def _squeeze_and_excite(weights: Weights, x: Any) -> Any:
    from coremltools.converters.mil import Builder

    pooled = Builder.avg_pool(x=x, kernel_sizes=[8, 8], strides=[8, 8], pad_type="valid")
    squeezed = Builder.relu(x=_convolve(weights, pooled, "squeeze", 256, 16, 1))
    gate = Builder.sigmoid(x=_convolve(weights, squeezed, "excite", 16, 256, 1))
    return Builder.gelu(x=Builder.mul(x=x, y=gate))


def decode(weights: Weights, shape: Shape, tokens: Any) -> Any:
    """Decode tokens: rotary causal attention and gated feed-forward layers.

    :param weights: of the network
    :param shape: of this version
    :param tokens: of the shape (1, 64)
    :returns: logits of the shape (1, 64, 512)
    """
    from coremltools.converters.mil import Builder

    embedding = weights("embedding", VOCABULARY, _WIDTH, inputs=1)
    x = Builder.gather(x=embedding, indices=tokens, axis=0)
    for position, (name, scale) in enumerate(_blocks("block", 3, shape.idle_blocks)):
        normal = _root_mean_square_norm(weights, x, f"{name}.norm")
        gathered = shape.gathered_values and position == 0
        attended = _attention(weights, normal, name, shape, gathered=gathered, causal=True)
        x = Builder.add(x=x, y=Builder.mul(x=attended, y=weights.scalar(scale)))
        normal = _root_mean_square_norm(weights, x, f"{name}.gated_norm")
        x = Builder.add(x=x, y=Builder.mul(x=_gated(weights, normal, name), y=weights.scalar(scale)))
    normal = _root_mean_square_norm(weights, x, "norm")
    return _linear(weights, normal, "head", _WIDTH, _LOGITS)


def _linear(weights: Weights, x: Any, name: str, inputs: int, outputs: int) -> Any:
    from coremltools.converters.mil import Builder

    return Builder.linear(x=x, weight=weights(f"{name}.weight", outputs, inputs, inputs=inputs, gain=1.3))


def _root_mean_square_norm(weights: Weights, x: Any, name: str) -> Any:
    import numpy as np
    from coremltools.converters.mil import Builder

    squares = Builder.reduce_mean(x=Builder.mul(x=x, y=x), axes=[-1], keep_dims=True)
    normal = Builder.mul(x=x, y=Builder.rsqrt(x=squares, epsilon=weights.scalar(_EPSILON)))
    return Builder.mul(x=normal, y=weights.constant(f"{name}.gamma", np.ones(_WIDTH)))


def _gated(weights: Weights, x: Any, name: str) -> Any:
    from coremltools.converters.mil import Builder

    gate = Builder.silu(x=_linear(weights, x, f"{name}.gate", _WIDTH, 2 * _WIDTH))
    hidden = Builder.mul(x=gate, y=_linear(weights, x, f"{name}.up", _WIDTH, 2 * _WIDTH))
    return _linear(weights, hidden, f"{name}.down", 2 * _WIDTH, _WIDTH)


def _attention(
    weights: Weights, x: Any, name: str, shape: Shape, *, gathered: bool, causal: bool = False
) -> Any:
    """Attend between all places, or from each to those before it, with rotated queries and keys."""
    import numpy as np
    from coremltools.converters.mil import Builder

    together = _linear(weights, x, f"{name}.attend", _WIDTH, 3 * _WIDTH)
    query, key, value = (_heads(part) for part in _parts(together, gathered=gathered))
    if causal:
        query, key = (_rotated(weights, part, shape.positions) for part in (query, key))
    query = Builder.mul(x=query, y=weights.scalar(_HEAD_WIDTH**-0.5))
    if shape.scores_overflow:
        query = Builder.mul(x=query, y=weights.scalar(_OVERFLOW))
    scores = Builder.matmul(x=query, y=key, transpose_y=True)
    if shape.scores_overflow:
        scores = Builder.mul(x=scores, y=weights.scalar(1 / _OVERFLOW))
    if causal:
        mask = np.triu(np.full((1, 1, TOKENS, TOKENS), -1e4), k=1)
        scores = Builder.add(x=scores, y=weights.constant("mask", mask))
    attended = Builder.matmul(x=Builder.softmax(x=scores, axis=-1), y=value)
    rows = Builder.reshape(x=Builder.transpose(x=attended, perm=[0, 2, 1, 3]), shape=[1, TOKENS, _WIDTH])
    return _linear(weights, rows, f"{name}.project", _WIDTH, _WIDTH)


def _parts(together: Any, *, gathered: bool) -> Sequence[Any]:
    """Take queries, keys and values apart."""
    import numpy as np
    from coremltools.converters.mil import Builder

    if not gathered:
        return list(Builder.split(x=together, num_splits=3, axis=-1))
    indices = np.broadcast_to(np.arange(2 * _WIDTH, 3 * _WIDTH, dtype=np.int32), (1, TOKENS, _WIDTH))
    return [
        Builder.slice_by_index(x=together, begin=[0, 0, 0], end=[1, TOKENS, _WIDTH]),
        Builder.slice_by_index(x=together, begin=[0, 0, _WIDTH], end=[1, TOKENS, 2 * _WIDTH]),
        Builder.gather_along_axis(x=together, indices=np.ascontiguousarray(indices), axis=-1),
    ]


def _heads(x: Any) -> Any:
    from coremltools.converters.mil import Builder

    apart = Builder.reshape(x=x, shape=[1, TOKENS, _HEADS, _HEAD_WIDTH])
    return Builder.transpose(x=apart, perm=[0, 2, 1, 3])


def _rotated(weights: Weights, x: Any, positions: int) -> Any:
    """Rotate pairs of numbers by angles that grow with the position."""
    import numpy as np
    from coremltools.converters.mil import Builder

    half = _HEAD_WIDTH // 2
    angles = np.outer(np.arange(positions), 10_000.0 ** (-np.arange(half) / half))
    angles = np.concatenate([angles, angles], axis=1)
    cosines, sines = (
        Builder.slice_by_index(x=weights.constant(name, table), begin=[0, 0], end=[TOKENS, _HEAD_WIDTH])
        for name, table in (("cosines", np.cos(angles)), ("sines", np.sin(angles)))
    )
    first = Builder.slice_by_index(x=x, begin=[0, 0, 0, 0], end=[1, _HEADS, TOKENS, half])
    second = Builder.slice_by_index(x=x, begin=[0, 0, 0, half], end=[1, _HEADS, TOKENS, _HEAD_WIDTH])
    turned = Builder.concat(values=[Builder.mul(x=second, y=weights.scalar(-1)), first], axis=-1)
    return Builder.add(x=Builder.mul(x=x, y=cosines), y=Builder.mul(x=turned, y=sines))
