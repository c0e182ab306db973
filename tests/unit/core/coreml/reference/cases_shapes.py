"""Shapes, slices, gathering, scattering and sorting."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.unit.core.coreml.reference.programs import Case, normal, whole

X = normal(2, 3, 4)
IMAGE = normal(1, 8, 4, 6)
PAIR = {"x": normal(2, 3), "y": normal(2, 3)}


def _of_x(
    name: str, expect: Any, x: np.ndarray = X, form: str = "", target: str = "iOS17", **how: Any
) -> Case:
    return Case(name, lambda mb, x: getattr(mb, name)(x=x, **how), expect, {"x": x}, form, target)


def _blocks(x: np.ndarray, size: int, order: tuple[int, ...]) -> np.ndarray:
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, channels, height // size, size, width // size, size)
    return parts.transpose(order).reshape(batch, -1, height // size, width // size)


def _from_channels(x: np.ndarray, size: int, *, slow: bool) -> np.ndarray:
    batch, channels, height, width = x.shape
    inner = channels // size**2
    shape = (batch, inner, size, size) if slow else (batch, size, size, inner)
    parts = x.reshape(*shape, height, width)
    order = (0, 1, 4, 2, 5, 3) if slow else (0, 3, 4, 1, 5, 2)
    return parts.transpose(order).reshape(batch, inner, height * size, width * size)


def _band(x: np.ndarray, lower: int, upper: int) -> np.ndarray:
    rows, columns = np.indices(x.shape[-2:])
    kept = np.ones(rows.shape, bool)
    kept &= (lower < 0) | (rows - columns <= lower)
    kept &= (upper < 0) | (columns - rows <= upper)
    return np.where(kept, x, 0)


def _reversed(x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    found = x.copy()
    for row, length in enumerate(lengths):
        found[row, :length] = x[row, :length][::-1]
    return found


SHAPES = [
    _of_x("reshape", lambda x: x.reshape(4, 6), shape=[4, 6]),
    _of_x("reshape", lambda x: x.reshape(2, 12), form="0 and -1", shape=[0, -1, 1][:2]),
    Case(
        "reshape",
        lambda mb, x, s: mb.reshape(x=x, shape=s),
        lambda x, s: x.reshape(s),
        {"x": X, "s": np.array([6, 4], np.int32)},
        "computed",
    ),
    Case(
        "reshape_like",
        lambda mb, x, a, b: mb.reshape_like(
            x=x, ref_tensors=[a, b], begins=[0, 1], ends=[2, 0], end_masks=[False, True]
        ),
        lambda x, a, b: x.reshape(2, 3, 5, 6),
        {"x": normal(10, 18), "a": normal(2, 3, 4), "b": normal(1, 5, 6)},
    ),
    _of_x("flatten2d", lambda x: x.reshape(6, 4), axis=2),
    _of_x("expand_dims", lambda x: x[:, None, ..., None], axes=[1, -1]),
    _of_x("squeeze", lambda x: x[:, 0], normal(2, 1, 3, 1), axes=[1]),
    _of_x("squeeze", np.squeeze, normal(2, 1, 3, 1), "all"),
    _of_x("squeeze", lambda x: x[:, 0], normal(2, 1, 3), "one that cannot be", axes=[0, 1]),
    _of_x("transpose", lambda x: x.transpose(2, 0, 1), perm=[-1, 0, 1]),
    Case(
        "concat",
        lambda mb, x, y: mb.concat(values=(x, y), axis=-1),
        lambda x, y: np.concatenate([x, y], axis=-1),
        PAIR,
    ),
    Case(
        "concat",
        lambda mb, x, y: mb.concat(values=(x, y), axis=0, interleave=True),
        lambda x, y: np.stack([x, y], axis=1).reshape(4, 3),
        PAIR,
        "interleaved",
    ),
    Case("stack", lambda mb, x, y: mb.stack(values=(x, y), axis=1), lambda x, y: np.stack([x, y], 1), PAIR),
    _of_x("split", lambda x: np.split(x, 2, axis=-1), form="equal", num_splits=2, axis=-1),
    _of_x("split", lambda x: [x[:, :1], x[:, 1:]], form="sizes", split_sizes=[1, 2], axis=1),
    _of_x("tile", lambda x: np.tile(x, (1, 2, 3)), reps=[1, 2, 3]),
    _of_x(
        "pad",
        lambda x: np.pad(x, [(0, 0), (1, 0), (2, 1)], constant_values=0.5),
        pad=[1, 0, 2, 1],
        mode="constant",
        constant_val=np.float32(0.5),
    ),
    _of_x(
        "pad",
        lambda x: np.pad(x, [(0, 0), (1, 2), (3, 1)], mode="reflect"),
        form="mirrored",
        pad=[1, 2, 3, 1],
        mode="reflect",
    ),
    _of_x(
        "pad",
        lambda x: np.pad(x, [(0, 0), (0, 0), (3, 1)], mode="edge"),
        form="edge",
        pad=[3, 1],
        mode="replicate",
    ),
    Case(
        "pad",
        lambda mb, x, p: mb.pad(x=x, pad=p, mode="constant", constant_val=np.float32(0)),
        lambda x, p: np.pad(x, p.reshape(-1, 2)),
        {"x": X, "p": np.array([0, 0, 1, 2, 0, 1], np.int32)},
        "computed",
    ),
    _of_x("depth_to_space", lambda x: _from_channels(x, 2, slow=False), IMAGE, block_size=2),
    _of_x("pixel_shuffle", lambda x: _from_channels(x, 2, slow=True), IMAGE, upscale_factor=2),
    _of_x("space_to_depth", lambda x: _blocks(x, 2, (0, 3, 5, 1, 2, 4)), IMAGE, block_size=2),
    _of_x(
        "pixel_unshuffle", lambda x: _blocks(x, 2, (0, 1, 3, 5, 2, 4)), IMAGE, downscale_factor=np.uint32(2)
    ),
    _of_x(
        "space_to_batch",
        lambda x: (
            np.pad(x, [(0, 0), (0, 0), (0, 2), (1, 1)])
            .reshape(1, 8, 3, 2, 4, 2)
            .transpose(3, 5, 0, 1, 2, 4)
            .reshape(4, 8, 3, 4)
        ),
        IMAGE,
        block_shape=[2, 2],
        paddings=[[0, 2], [1, 1]],
    ),
    _of_x(
        "batch_to_space",
        lambda x: x.reshape(2, 2, 1, 3, 2, 3).transpose(2, 3, 4, 0, 5, 1).reshape(1, 3, 4, 6)[:, :, 1:, :-2],
        normal(4, 3, 2, 3),
        block_shape=[2, 2],
        crops=[[1, 0], [0, 2]],
    ),
]
BEGIN = np.array([0, 1, -3], np.int32)
SLICES = [
    _of_x("slice_by_index", lambda x: x[0:2, 1:3, 1:4:2], begin=[0, 1, 1], end=[2, 3, 4], stride=[1, 1, 2]),
    _of_x(
        "slice_by_index",
        lambda x: x[:, -2:, 2],
        form="masks",
        begin=[1, -2, 2],
        end=[0, 0, 0],
        begin_mask=[True, False, False],
        end_mask=[True, True, False],
        squeeze_mask=[False, False, True],
    ),
    _of_x(
        "slice_by_index",
        lambda x: x[:, ::-1, -1],
        form="backwards",
        begin=[0, 0, -1],
        end=[0, 0, 0],
        stride=[1, -1, 1],
        begin_mask=[True, True, False],
        end_mask=[True, True, False],
        squeeze_mask=[False, False, True],
    ),
    Case(
        "slice_by_index",
        lambda mb, x, b, e: mb.slice_by_index(x=x, begin=b, end=e),
        lambda x, b, e: x[0:1, 1:3, 0:2],
        {"x": X, "b": np.array([0, 1, 0], np.int32), "e": np.array([1, 3, 2], np.int32)},
        "computed",
    ),
    Case(
        "slice_by_size",
        lambda mb, x, b: mb.slice_by_size(x=x, begin=b, size=[2, -1, 2]),
        lambda x, b: x[0:2, 1:, 1:3],
        {"x": X, "b": BEGIN},
    ),
    Case(
        "slice_update",
        lambda mb, x, u: mb.slice_update(
            x=x, update=u, begin=[0, 0, 1], end=[2, 1, 4], stride=[1, 1, 2], squeeze_mask=[False, True, False]
        ),
        lambda x, u: _updated(x, u, (slice(0, 2), 0, slice(1, 4, 2))),
        {"x": X, "u": normal(2, 2)},
        target="iOS18",
    ),
    Case(
        "slice_update",
        lambda mb, x, u, b, e: mb.slice_update(x=x, update=u, begin=b, end=e),
        lambda x, u, b, e: _updated(x, u, (slice(0, 2), slice(1, 2), slice(0, 4))),
        {
            "x": X,
            "u": normal(2, 1, 4),
            "b": np.array([0, 1, 0], np.int32),
            "e": np.array([2, 2, 4], np.int32),
        },
        "computed",
        "iOS18",
    ),
    _of_x("crop", lambda x: x[..., 1:-1, 2:], IMAGE, crop_height=[1, 1], crop_width=[2, 0]),
    _of_x("reverse", lambda x: x[::-1, :, ::-1], axes=[0, 2]),
    _of_x("reverse", lambda x: x[::-1, ::-1, ::-1], form="all"),
    _of_x(
        "reverse_sequence",
        lambda x: _reversed(x, np.array([1, 3])),
        lengths=np.array([1, 3], np.int32),
        seq_axis=1,
        batch_axis=0,
    ),
    _of_x(
        "sliding_windows",
        lambda x: np.stack([x[:, 0:3], x[:, 2:5]], axis=1),
        normal(2, 6),
        axis=1,
        size=3,
        stride=2,
    ),
    _of_x("band_part", lambda x: _band(x, 1, 0), lower=1, upper=0),
    _of_x("band_part", lambda x: _band(x, -1, 0), normal(4, 5), "lower triangle", lower=-1, upper=0),
    _of_x("band_part", lambda x: _band(x, 0, -1), whole(1, 9, 4, 3), "upper triangle", lower=0, upper=-1),
    _of_x("shape", lambda x: np.array(x.shape)),
]


def _updated(x: np.ndarray, update: np.ndarray, place: Any) -> np.ndarray:
    found = x.copy()
    found[place] = update
    return found


def _scattered(x: np.ndarray, places: Any, updates: np.ndarray, mode: str) -> np.ndarray:
    found = x.astype(np.float64)
    functions = {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "div": np.divide,
        "max": np.maximum,
        "min": np.minimum,
    }
    if mode == "update":
        found[places] = updates
    else:
        functions[mode].at(found, places, updates)
    return found


PLACES = np.array([[2, 0], [1, 1]], np.int32)
ALONG = whole(0, 3, 2, 2, 4)
ROWS, COLUMNS, DEEP = np.indices(ALONG.shape)
UPDATES = np.abs(normal(2, 2, 4)) + 0.5


def _scatter(mode: str) -> Case:
    def make(mb: Any, x: Any, u: Any) -> Any:
        return mb.scatter(data=x, indices=np.array([2, 0], np.int32), updates=u, axis=1, mode=mode)

    places = (slice(None), np.array([2, 0]))
    return Case("scatter", make, lambda x, u: _scattered(x, places, u, mode), {"x": X, "u": UPDATES}, mode)


INDEXES = [
    Case(
        "gather",
        lambda mb, x, i: mb.gather(x=x, indices=i, axis=1),
        lambda x, i: x[:, i],
        {"x": X, "i": PLACES},
    ),
    Case(
        "gather",
        lambda mb, x: mb.gather(x=x, indices=np.int32(-1), axis=0),
        lambda x: x[-1],
        {"x": X},
        "scalar",
    ),
    Case(
        "gather",
        lambda mb, x, i: mb.gather(x=x, indices=i, axis=2, batch_dims=1),
        lambda x, i: np.stack([x[row][:, i[row]] for row in range(2)]),
        {"x": X, "i": PLACES},
        "batches",
    ),
    Case(
        "gather_along_axis",
        lambda mb, x, i: mb.gather_along_axis(x=x, indices=i, axis=1),
        lambda x, i: np.take_along_axis(x, i, axis=1),
        {"x": X, "i": ALONG},
    ),
    Case(
        "gather_nd",
        lambda mb, x, i: mb.gather_nd(x=x, indices=i),
        lambda x, i: x[i[:, 0], i[:, 1]],
        {"x": X, "i": np.array([[0, 2], [1, 0], [1, 1]], np.int32)},
    ),
    Case(
        "gather_nd",
        lambda mb, x, i: mb.gather_nd(x=x, indices=i, batch_dims=1),
        lambda x, i: np.stack([x[row, i[row, 0]] for row in range(2)]),
        {"x": X, "i": np.array([[2], [0]], np.int32)},
        "batches",
    ),
    *(_scatter(mode) for mode in ("update", "add", "sub", "mul", "div", "max", "min")),
    Case(
        "scatter_along_axis",
        lambda mb, x, i, u: mb.scatter_along_axis(data=x, indices=i, updates=u, axis=1, mode="add"),
        lambda x, i, u: _scattered(x, (ROWS, i, DEEP), u, "add"),
        {"x": X, "i": ALONG, "u": UPDATES},
    ),
    Case(
        "scatter_nd",
        lambda mb, x, u: mb.scatter_nd(
            data=x, indices=np.array([[0, 2], [1, 0]], np.int32), updates=u, mode="update"
        ),
        lambda x, u: _scattered(x, (np.array([0, 1]), np.array([2, 0])), u, "update"),
        {"x": X, "u": normal(2, 4)},
    ),
    _of_x(
        "topk",
        lambda x: [-np.sort(-x, axis=1)[:, :2], np.argsort(-x, axis=1)[:, :2]],
        k=2,
        axis=1,
    ),
    _of_x(
        "topk",
        lambda x: np.sort(x, axis=-1)[..., :2],
        form="ascending",
        k=2,
        ascending=True,
        return_indices=False,
    ),
    _of_x("argsort", lambda x: np.argsort(-x, axis=-1)),
    _of_x("argsort", lambda x: np.argsort(x, axis=0), form="ascending", axis=0, ascending=True),
    _of_x("non_zero", lambda x: np.argwhere(x), whole(0, 2, 3, 4)),
    Case(
        "one_hot",
        lambda mb, x: mb.one_hot(indices=x, one_hot_vector_size=4, axis=1, on_value=2.0, off_value=-1.0),
        lambda x: np.where(np.arange(4)[None, :, None] == x[:, None], 2.0, -1.0),
        {"x": np.array([[0, 3, -1], [1, 2, 7]], np.int32)},
    ),
    _of_x("cumsum", lambda x: np.cumsum(x, axis=1), axis=1),
    _of_x(
        "cumsum",
        lambda x: np.flip(np.cumsum(np.flip(x, 0), axis=0), 0) - x,
        form="from behind, exclusive",
        axis=0,
        exclusive=True,
        reverse=True,
    ),
    Case(
        "range_1d",
        lambda mb, x: mb.range_1d(start=np.int32(1), end=mb.squeeze(x=x), step=np.int32(2)),
        lambda x: np.arange(1, x[0], 2),
        {"x": np.array([8], np.int32)},
    ),
    Case(
        "fill",
        lambda mb, x: mb.fill(shape=x, value=np.float32(1.5)),
        lambda x: np.full(x, 1.5),
        {"x": np.array([2, 3], np.int32)},
    ),
    Case(
        "fill_like",
        lambda mb, x: mb.fill_like(ref_tensor=x, value=np.float32(1.5)),
        lambda x: np.full(x.shape, 1.5),
        {"x": X},
    ),
]
CASES = [*SHAPES, *SLICES, *INDEXES]
