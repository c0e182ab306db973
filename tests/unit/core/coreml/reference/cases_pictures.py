"""Pictures in another size, quantised values, branches and loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.unit.core.coreml.reference.programs import Case, normal, uniform

IMAGE = normal(2, 3, 5, 4)


def placed(mode: str, before: int, after: int) -> np.ndarray:
    """Where MIL's documents say that each new pixel lies among the old ones."""
    i = np.arange(after)
    if mode == "ALIGN_CORNERS" and after == 1:
        return np.array([(before - 1) / 2])
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        found = i * (before - 1) / max(after - 1, 1)
    elif mode == "DEFAULT":
        found = i * before / after
    elif mode == "OFFSET_CORNERS":
        found = (i + 0.5) * max(1, before - 1) / after
    else:
        found = (i + 0.5) * before / after - 0.5
    return np.clip(found, 0, before - 1)


def between(x: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """Linear between neighbours along an axis."""
    left = np.floor(places).astype(int)
    right = np.minimum(left + 1, x.shape[axis] - 1)
    share = (places - left).reshape([-1 if place == axis % x.ndim else 1 for place in range(x.ndim)])
    return np.take(x, left, axis) * (1 - share) + np.take(x, right, axis) * share


def resized(x: np.ndarray, mode: str, rows: int, columns: int) -> np.ndarray:
    """Linear along the last two axes."""
    down = between(x, placed(mode, x.shape[-2], rows), -2)
    return between(down, placed(mode, x.shape[-1], columns), -1)


def nearest(x: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The pixel at or before each place."""
    down = np.arange(rows) * x.shape[-2] // rows
    across = np.arange(columns) * x.shape[-1] // columns
    return x[..., down, :][..., across]


def sampled(x: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Linear at places, in pixels; 0 outside."""
    found = np.zeros((x.shape[0], x.shape[1], *rows.shape[1:]))
    for picture in range(x.shape[0]):
        row, column = rows[picture], columns[picture]
        top, left = np.floor(row).astype(int), np.floor(column).astype(int)
        for down in (0, 1):
            for right in (0, 1):
                at, across = top + down, left + right
                share = (1 - np.abs(row - at)) * (1 - np.abs(column - across))
                inside = (at >= 0) & (at < x.shape[2]) & (across >= 0) & (across < x.shape[3])
                values = x[picture][:, np.clip(at, 0, x.shape[2] - 1), np.clip(across, 0, x.shape[3] - 1)]
                found[picture] += np.where(inside, share, 0) * values
    return found


def _bilinear(mode: str, rows: int = 8, columns: int = 3) -> Case:
    def make(mb: Any, x: Any) -> Any:
        return mb.resize_bilinear(x=x, target_size_height=rows, target_size_width=columns, sampling_mode=mode)

    return Case(
        "resize_bilinear", make, lambda x: resized(x, mode, rows, columns), {"x": IMAGE}, f"{mode} {rows}"
    )


def _resample(coordinates: str, places: np.ndarray, to_pixels: Any) -> Case:
    def make(mb: Any, x: Any, p: Any) -> Any:
        return mb.resample(
            x=x,
            coordinates=p,
            sampling_mode="bilinear",
            padding_mode="constant",
            padding_value=np.float32(0),
            coordinates_mode=coordinates,
            align_corners=True,
        )

    return Case(
        "resample",
        make,
        lambda x, p: sampled(x, to_pixels(p[..., 0], 4), to_pixels(p[..., 1], 5)),
        {"x": IMAGE, "p": places},
        coordinates,
    )


MATRIX = np.array([[0.8, 0.1, 0.2, -0.3, 1.1, -0.1]], np.float32)


def turned(x: np.ndarray) -> np.ndarray:
    """The picture through MATRIX, in 6 x 3 pixels."""
    rows, columns = np.meshgrid(np.linspace(-1, 1, 6), np.linspace(-1, 1, 3), indexing="ij")
    a0, a1, a2, b0, b1, b2 = MATRIX[0]
    across, down = a0 * columns + a1 * rows + a2, b0 * columns + b1 * rows + b2
    both = np.broadcast_to((across + 1) / 2 * 3, (2, 6, 3)), np.broadcast_to((down + 1) / 2 * 4, (2, 6, 3))
    return sampled(x, *both)


PICTURES = [
    *(
        _bilinear(mode)
        for mode in ("DEFAULT", "STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "UNALIGN_CORNERS", "OFFSET_CORNERS")
    ),
    _bilinear("ALIGN_CORNERS", 1, 6),
    Case(
        "resize_nearest_neighbor",
        lambda mb, x: mb.resize_nearest_neighbor(x=x, target_size_height=7, target_size_width=3),
        lambda x: nearest(x, 7, 3),
        {"x": IMAGE},
    ),
    Case(
        "upsample_nearest_neighbor",
        lambda mb, x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=3),
        lambda x: nearest(x, 10, 12),
        {"x": IMAGE},
    ),
    Case(
        "upsample_nearest_neighbor",
        lambda mb, x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=2),
        lambda x: nearest(x, 6, 8),
        {"x": normal(2, 3, 4)},
        "three axes",
    ),
    Case(
        "upsample_bilinear",
        lambda mb, x: mb.upsample_bilinear(
            x=x, scale_factor_height=2, scale_factor_width=2, align_corners=True
        ),
        lambda x: resized(x, "STRICT_ALIGN_CORNERS", 10, 8),
        {"x": IMAGE},
        "corners",
    ),
    Case(
        "upsample_bilinear",
        lambda mb, x: mb.upsample_bilinear(
            x=x, scale_factor_height=2, scale_factor_width=2, align_corners=False
        ),
        lambda x: resized(x, "UNALIGN_CORNERS", 10, 8),
        {"x": IMAGE},
        "centres",
    ),
    Case(
        "resize",
        lambda mb, x: mb.resize(
            x=x,
            shape=[0, 9],
            resized_dims=np.uint32(2),
            interpolation_mode="LINEAR",
            sampling_mode="UNALIGN_CORNERS",
        ),
        lambda x: resized(x, "UNALIGN_CORNERS", 5, 9),
        {"x": IMAGE},
    ),
    Case(
        "resize",
        lambda mb, x, s: mb.resize(
            x=x, shape=s, resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR"
        ),
        lambda x, s: nearest(x, 7, 4),
        {"x": IMAGE, "s": np.array([7, 0], np.int32)},
        "computed",
    ),
    Case(
        "resize",
        lambda mb, x, s: mb.resize(
            x=x, shape=s, resized_dims=np.uint32(2), sampling_mode="STRICT_ALIGN_CORNERS"
        ),
        lambda x, s: resized(x, "STRICT_ALIGN_CORNERS", 7, 6),
        {"x": IMAGE, "s": np.array([7, 6], np.int32)},
        "computed, linear",
    ),
    _resample(
        "normalized_minus_one_to_one",
        uniform(-1.3, 1.3, 2, 4, 3, 2),
        lambda at, size: (at + 1) / 2 * (size - 1),
    ),
    _resample("normalized_zero_to_one", uniform(-0.2, 1.2, 2, 4, 3, 2), lambda at, size: at * (size - 1)),
    _resample("unnormalized", uniform(-1, 5, 2, 4, 3, 2), lambda at, size: at),
    Case(
        "affine",
        lambda mb, x: mb.affine(
            x=x,
            transform_matrix=MATRIX,
            output_height=6,
            output_width=3,
            sampling_mode="bilinear",
            padding_mode="constant",
            padding_value=np.float32(0),
            coordinates_mode="normalized_minus_one_to_one",
            align_corners=True,
        ),
        turned,
        {"x": IMAGE},
    ),
]
SCALES, SHIFTS = np.array([0.1, 0.2, 0.05], np.float32), np.array([3, -4, 0], np.int8)
BY_CHANNEL = (slice(None), None, None)


def _rounded(x: np.ndarray, scale: Any, shift: Any) -> np.ndarray:
    return np.clip(np.rint(x / scale) + shift, -128, 127)


QUANTISED = [
    Case(
        "quantize",
        lambda mb, x: mb.cast(
            x=mb.quantize(input=x, scale=SCALES, zero_point=SHIFTS, axis=1, output_dtype="int8"),
            dtype="int32",
        ),
        lambda x: _rounded(x, SCALES[BY_CHANNEL], SHIFTS[BY_CHANNEL]),
        {"x": 10 * IMAGE},
    ),
    Case(
        "dequantize",
        lambda mb, x: mb.dequantize(
            input=mb.quantize(input=x, scale=np.float32(0.1), output_dtype="int8"), scale=np.float32(0.1)
        ),
        lambda x: _rounded(x, 0.1, 0) * 0.1,
        {"x": IMAGE},
    ),
    Case(
        "dequantize",
        lambda mb, x: mb.dequantize(
            input=mb.quantize(input=x, scale=SCALES, zero_point=SHIFTS, axis=1, output_dtype="int8"),
            scale=SCALES,
            zero_point=SHIFTS,
            axis=1,
        ),
        lambda x: (
            (_rounded(x, SCALES[BY_CHANNEL], SHIFTS[BY_CHANNEL]) - SHIFTS[BY_CHANNEL]) * SCALES[BY_CHANNEL]
        ),
        {"x": IMAGE},
        "channels",
    ),
]


def _branches(mb: Any, x: Any, n: Any) -> Any:
    return mb.cond(
        pred=mb.greater(x=mb.squeeze(x=n), y=0),
        _true_fn=lambda: mb.add(x=x, y=np.float32(1)),
        _false_fn=lambda: mb.mul(x=mb.exp(x=x), y=np.float32(2)),
    )


def _looped(mb: Any, x: Any, n: Any) -> Any:
    def go_on(count: Any, value: Any) -> Any:
        return mb.less(x=count, y=mb.squeeze(x=n))

    def body(count: Any, value: Any) -> Any:
        return mb.add(x=count, y=np.int32(1)), mb.add(x=mb.mul(x=value, y=np.float32(0.5)), y=x)

    return mb.while_loop(_cond=go_on, _body=body, loop_vars=(np.int32(0), mb.identity(x=x)))[1]


def _loop_in_numpy(x: np.ndarray, n: np.ndarray) -> np.ndarray:
    value = x
    for _ in range(n[0]):
        value = 0.5 * value + x
    return value


CONTROL = [
    Case("cond", _branches, lambda x, n: x + 1, {"x": IMAGE, "n": np.array([1], np.int32)}, "true"),
    Case("cond", _branches, lambda x, n: 2 * np.exp(x), {"x": IMAGE, "n": np.array([0], np.int32)}, "false"),
    Case("while_loop", _looped, _loop_in_numpy, {"x": IMAGE, "n": np.array([3], np.int32)}),
    Case("while_loop", _looped, _loop_in_numpy, {"x": IMAGE, "n": np.array([0], np.int32)}, "no round"),
]
CASES = [*PICTURES, *QUANTISED, *CONTROL]
