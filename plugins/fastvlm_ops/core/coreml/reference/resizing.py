"""Pictures in another size, or sampled at other places."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.coreml.reference.call import Call, Kind, UnsupportedFormError
from fastvlm_ops.core.coreml.reference.registry import translates

# MIL's ways to place a grid that ONNX has too; the others are linear maps, made here.
_GRIDS = {
    "DEFAULT": "asymmetric",
    "STRICT_ALIGN_CORNERS": "align_corners",
    "ALIGN_CORNERS": "align_corners",
    "UNALIGN_CORNERS": "half_pixel",
}
_OUTSIDE = {"constant": "zeros", "border": "border", "reflection": "reflection", "symmetric": "reflection"}


@translates("resize_nearest_neighbor", "upsample_nearest_neighbor")
def nearest(call: Call) -> str:
    """The pixel at or before each place."""
    return _resized(call, call.tensor("x"), _sizes(call), "nearest", "asymmetric")


@translates("resize_bilinear")
def resize_bilinear(call: Call) -> str:
    """Between pixels, on one of five grids."""
    return _linear(call, str(call.value("sampling_mode", "DEFAULT")), _sizes(call))


@translates("upsample_bilinear")
def upsample_bilinear(call: Call) -> str:
    """Between pixels, by a factor that is worked out again from the sizes."""
    mode = "STRICT_ALIGN_CORNERS"
    if not bool(call.value("align_corners", True)):
        mode = "UNALIGN_CORNERS" if bool(call.value("half_pixel_centers", True)) else "DEFAULT"
    return _linear(call, mode, _sizes(call))


@translates("resize")
def resize(call: Call) -> str:
    """The last axes to sizes that may be computed; 0 keeps one."""
    rank, count = call.rank("x"), int(call.value("resized_dims"))
    mode = str(call.value("sampling_mode", "DEFAULT"))
    is_nearest = str(call.value("interpolation_mode", "LINEAR")) == "NEAREST_NEIGHBOR"
    if is_nearest and mode != "DEFAULT":
        raise UnsupportedFormError(f"nearest neighbour on the grid {mode}")
    if call.is_constant("shape") and not is_nearest and count == 2 and None not in call.shape("x")[-2:]:
        asked = call.ints("shape")[-2:]
        own = [size or 0 for size in call.shape("x")[-2:]]
        return _linear(call, mode, [size or kept for size, kept in zip(asked, own, strict=True)])
    x = call.as_kind("x", Kind.FLOAT)
    sizes = _computed_sizes(call, x, rank, count)
    if not is_nearest and (rank != 4 or mode not in _GRIDS):
        raise UnsupportedFormError(f"linear, of rank {rank}, on the grid {mode}, to sizes that are not fixed")
    kind = "nearest" if is_nearest else "linear"
    resized = _resize_node(call, x, sizes, kind, "asymmetric" if is_nearest else _GRIDS[mode])
    return resized if call.kind("x") is Kind.FLOAT else call.cast(resized, call.kind("x"))


def _computed_sizes(call: Call, x: str, rank: int, count: int) -> str:
    kept = call.shape_tensor(x, rank - count)
    length = call.static_shape("shape")[0]
    asked = call.emit(
        "Slice", call.tensor("shape"), call.ints_tensor(length - count), call.ints_tensor(length)
    )
    zero = call.emit("Equal", asked, call.constant(0))
    last = call.emit("Where", zero, kept, asked)
    return call.emit("Concat", call.shape_tensor(x, 0, rank - count), last, axis=0) if rank > count else last


def _sizes(call: Call) -> list[int]:
    """Rows and columns of the result."""
    return call.static_output_shape()[-2:]


def _linear(call: Call, mode: str, sizes: list[int]) -> str:
    x = call.as_kind("x", Kind.FLOAT)
    plain = mode in _GRIDS and not (mode == "ALIGN_CORNERS" and 1 in sizes)
    if plain:
        found = _resized(call, x, sizes, "linear", _GRIDS[mode])
    else:
        rows, columns = (
            _interpolation(mode, before, after)
            for before, after in zip(call.static_shape("x")[-2:], sizes, strict=True)
        )
        across = call.emit("MatMul", x, call.constant(columns.T))
        found = call.emit("MatMul", call.constant(rows), across)
    return found if call.kind("x") is Kind.FLOAT else call.cast(found, call.kind("x"))


def _interpolation(mode: str, before: int, after: int) -> NDArray[np.float32]:
    """What each of the old places gives to each new one."""
    step = max(1, before - 1) / after
    places = 0.5 * step + step * np.arange(after)  # OFFSET_CORNERS
    if mode == "ALIGN_CORNERS":
        places = np.full(1, (before - 1) / 2) if after == 1 else np.linspace(0, before - 1, after)
    places = np.clip(places, 0, before - 1)
    left = np.floor(places).astype(int)
    right = np.minimum(left + 1, before - 1)
    matrix = np.zeros((after, before), np.float32)
    np.add.at(matrix, (np.arange(after), left), 1 - (places - left))
    np.add.at(matrix, (np.arange(after), right), places - left)
    return matrix


def _resized(call: Call, x: str, sizes: list[int], kind: str, grid: str) -> str:
    """ONNX Runtime wants four axes: those before the last three are joined."""
    rank = call.rank("x")
    if rank == 4:
        start = call.shape_tensor(x, 0, 2)
        whole = call.emit("Concat", start, call.ints_tensor(*sizes), axis=0)
        return _resize_node(call, x, whole, kind, grid)
    rows, columns = call.static_shape("x")[-2:]
    joined = call.reshaped(x, 1, -1, rows, columns)
    whole = call.emit("Concat", call.shape_tensor(joined, 0, 2), call.ints_tensor(*sizes), axis=0)
    resized = _resize_node(call, joined, whole, kind, grid)
    shape = call.emit("Concat", call.shape_tensor(x, 0, rank - 2), call.ints_tensor(*sizes), axis=0)
    return call.emit("Reshape", resized, shape)


def _resize_node(call: Call, x: str, sizes: str, kind: str, grid: str) -> str:
    return call.emit(
        "Resize",
        x,
        "",
        "",
        sizes,
        mode=kind,
        coordinate_transformation_mode=grid,
        nearest_mode="floor",
    )


@translates("resample")
def resample(call: Call) -> str:
    """At given places, column before row."""
    padding = str(call.value("padding_mode")).lower()
    corners = bool(call.value("align_corners"))
    coordinates = str(call.value("coordinates_mode")).lower()
    places = call.as_kind("coordinates", Kind.FLOAT)
    if coordinates == "unnormalized":
        rows, columns = call.static_shape("x")[-2:]
        scale = 2 / np.maximum(np.asarray([columns, rows], np.float32) - 1, 1)
        places = call.emit("Sub", call.emit("Mul", places, call.constant(scale)), call.constant(1.0))
        corners = True
    elif coordinates == "normalized_zero_to_one":
        places = call.emit("Sub", call.emit("Mul", places, call.constant(2.0)), call.constant(1.0))
    if padding == "constant" and float(call.value("padding_value", 0.0)) != 0:
        raise UnsupportedFormError("padding with another value than 0")
    if (padding == "reflection" and not corners) or (padding == "symmetric" and corners):
        raise UnsupportedFormError(f"{padding} with align_corners={corners}")
    mode = "linear" if str(call.value("sampling_mode")).lower() == "bilinear" else "nearest"
    return call.emit(
        "GridSample",
        call.tensor("x"),
        places,
        mode=mode,
        padding_mode=_OUTSIDE[padding],
        align_corners=int(corners),
    )


@translates("affine")
def affine(call: Call) -> str:
    """Turned, scaled and moved; 0 outside the picture."""
    batch, channels = call.static_shape("x")[:2]
    sizes = [batch, channels, int(call.value("output_height")), int(call.value("output_width"))]
    matrix = call.reshaped(call.tensor("transform_matrix"), -1, 2, 3)
    matrix = call.emit("Expand", matrix, call.ints_tensor(batch, 2, 3))
    grid = call.emit("AffineGrid", matrix, call.ints_tensor(*sizes), align_corners=1)
    return call.emit(
        "GridSample", call.tensor("x"), grid, mode="linear", padding_mode="zeros", align_corners=1
    )
