"""What changes a tensor's shape, joins tensors and parts them."""

from __future__ import annotations

import numpy as np

from fastvlm_ops.core.coreml.reference.call import Call, UnsupportedFormError
from fastvlm_ops.core.coreml.reference.registry import translates


@translates("reshape")
def reshape(call: Call) -> str:
    """To a shape that is constant or computed; 0 keeps a size, -1 takes what is left."""
    return call.emit("Reshape", call.tensor("x"), call.tensor("shape"))


@translates("reshape_like")
def reshape_like(call: Call) -> str:
    """To a shape put together from parts of other tensors' shapes."""
    parts = []
    names = ("ref_tensors", "begins", "ends", "end_masks")
    for reference, begin, end, to_end in zip(*(call.operation.inputs[name] for name in names), strict=True):
        last = None if bool(to_end.val) else int(end.val)
        parts.append(call.shape_tensor(call.tensor_of(reference), int(begin.val), last))
    return call.emit("Reshape", call.tensor("x"), call.emit("Concat", *parts, axis=0))


@translates("flatten2d")
def flatten2d(call: Call) -> str:
    """To a matrix, parted at an axis."""
    return call.emit("Flatten", call.tensor("x"), axis=call.axis("axis", default=1))


@translates("expand_dims")
def expand_dims(call: Call) -> str:
    """New axes of size 1."""
    return call.emit("Unsqueeze", call.tensor("x"), call.ints_tensor(*call.ints("axes")))


@translates("squeeze")
def squeeze(call: Call) -> str:
    """Without axes of size 1; others that are named stay."""
    shape = call.shape("x")
    axes = [axis % len(shape) for axis in call.ints("axes", list(range(len(shape))))]
    single = [axis for axis in axes if shape[axis] == 1]
    return call.emit("Squeeze", call.tensor("x"), call.ints_tensor(*single)) if single else call.tensor("x")


@translates("transpose")
def transpose(call: Call) -> str:
    """Axes in another order."""
    rank = call.rank("x")
    return call.emit("Transpose", call.tensor("x"), perm=[axis % rank for axis in call.ints("perm")])


@translates("concat")
def concat(call: Call) -> str:
    """One behind the other, or interleaved; scalars become a list."""
    tensors = call.tensors("values")
    rank = len(call.operation.inputs["values"][0].shape)
    axis = int(call.value("axis"))
    if rank == 0:
        return call.emit("Concat", *(call.reshaped(tensor, 1) for tensor in tensors), axis=0)
    axis %= rank
    if not bool(call.value("interleave", False)):
        return call.emit("Concat", *tensors, axis=axis)
    behind = call.ints_tensor(axis + 1)
    stacked = call.emit("Concat", *(call.emit("Unsqueeze", one, behind) for one in tensors), axis=axis + 1)
    sizes = [0 if place < axis else size for place, size in enumerate(call.output_shape())]
    if any(size is None for size in sizes[axis + 1 :]):
        raise UnsupportedFormError("interleave of sizes that are not fixed")
    sizes[axis] = -1
    return call.reshaped(stacked, *(size or 0 for size in sizes))


@translates("stack")
def stack(call: Call) -> str:
    """Along a new axis."""
    rank = len(call.operation.inputs["values"][0].shape) + 1
    axis = int(call.value("axis")) % rank
    place = call.ints_tensor(axis)
    expanded = [call.emit("Unsqueeze", tensor, place) for tensor in call.tensors("values")]
    return call.emit("Concat", *expanded, axis=axis)


@translates("split")
def split(call: Call) -> list[str]:
    """Into parts of equal or given sizes."""
    outputs = len(call.operation.outputs)
    axis = call.axis("axis")
    if not call.has("split_sizes"):
        return call.emit_many("Split", outputs, call.tensor("x"), axis=axis, num_outputs=outputs)
    return call.emit_many("Split", outputs, call.tensor("x"), call.tensor("split_sizes"), axis=axis)


@translates("tile")
def tile(call: Call) -> str:
    """Again and again along each axis."""
    return call.emit("Tile", call.tensor("x"), call.tensor("reps"))


@translates("pad")
def pad(call: Call) -> str:
    """Of the last axes: with a constant, mirrored, or with what stands at the edge."""
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}[
        str(call.value("mode", "constant"))
    ]
    fill = [call.constant(call.value("constant_val", 0.0))] if mode == "constant" else []
    return call.emit("Pad", call.tensor("x"), _pads(call), *fill, mode=mode)


def _pads(call: Call) -> str:
    """All befores, then all afters; MIL has pairs."""
    rank = call.rank("x")
    if call.is_constant("pad"):
        pairs = np.zeros((rank, 2), np.int64)
        given = np.asarray(call.ints("pad")).reshape(-1, 2)
        pairs[rank - len(given) :] = given
        return call.constant(pairs.T.reshape(-1))
    pairs_tensor = call.reshaped(call.tensor("pad"), rank, 2)
    return call.reshaped(call.emit("Transpose", pairs_tensor, perm=[1, 0]), -1)


@translates("shape")
def shape(call: Call) -> str:
    """The shape, as a list."""
    return call.shape_tensor(call.tensor("x"))


@translates("depth_to_space")
def depth_to_space(call: Call) -> str:
    """Blocks of channels become blocks of pixels, the channel counting fastest."""
    return call.emit("DepthToSpace", call.tensor("x"), blocksize=int(call.value("block_size")), mode="DCR")


@translates("pixel_shuffle")
def pixel_shuffle(call: Call) -> str:
    """As PyTorch's: the channel counts slowest."""
    factor = int(call.value("upscale_factor"))
    return call.emit("DepthToSpace", call.tensor("x"), blocksize=factor, mode="CRD")


@translates("space_to_depth")
def space_to_depth(call: Call) -> str:
    """Blocks of pixels become blocks of channels, the channel counting fastest."""
    return call.emit("SpaceToDepth", call.tensor("x"), blocksize=int(call.value("block_size")))


@translates("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> str:
    """As PyTorch's: the channel counts slowest."""
    factor = int(call.value("downscale_factor"))
    _, channels, height, width = call.static_shape("x")
    tiles = call.reshaped(call.tensor("x"), -1, channels, height // factor, factor, width // factor, factor)
    ordered = call.emit("Transpose", tiles, perm=[0, 1, 3, 5, 2, 4])
    return call.reshaped(ordered, -1, channels * factor * factor, height // factor, width // factor)


@translates("space_to_batch")
def space_to_batch(call: Call) -> str:
    """Padded, then each place within a block becomes a picture of its own."""
    rows, columns = call.ints("block_shape")
    (top, bottom), (left, right) = np.asarray(call.value("paddings")).tolist()
    _, channels, height, width = call.static_shape("x")
    pads = call.ints_tensor(0, 0, top, left, 0, 0, bottom, right)
    padded = call.emit("Pad", call.tensor("x"), pads)
    height, width = height + top + bottom, width + left + right
    tiles = call.reshaped(padded, -1, channels, height // rows, rows, width // columns, columns)
    ordered = call.emit("Transpose", tiles, perm=[3, 5, 0, 1, 2, 4])
    return call.reshaped(ordered, -1, channels, height // rows, width // columns)


@translates("batch_to_space")
def batch_to_space(call: Call) -> str:
    """The reverse: pictures become places within blocks, then the edges are cut."""
    rows, columns = call.ints("block_shape")
    (top, bottom), (left, right) = np.asarray(call.value("crops")).tolist()
    _, channels, height, width = call.static_shape("x")
    tiles = call.reshaped(call.tensor("x"), rows, columns, -1, channels, height, width)
    ordered = call.emit("Transpose", tiles, perm=[2, 3, 4, 0, 5, 1])
    whole = call.reshaped(ordered, -1, channels, height * rows, width * columns)
    return call.emit(
        "Slice",
        whole,
        call.ints_tensor(top, left),
        call.ints_tensor(height * rows - bottom, width * columns - right),
        call.ints_tensor(2, 3),
    )
