"""Parts of tensors, by place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastvlm_ops.core.coreml.reference.call import Call, Kind, UnsupportedFormError
from fastvlm_ops.core.coreml.reference.registry import translates

_END = np.iinfo(np.int64).max
_START_BACKWARDS = np.iinfo(np.int64).min


@dataclass(frozen=True)
class _Slice:
    """A slice along all axes, as tensors that ONNX takes.

    :param begins: first place along each axis
    :param ends: place behind the last one
    :param steps: between places
    :param squeezed: axes that are dropped
    """

    begins: str
    ends: str
    steps: list[int]
    squeezed: list[int]


@translates("slice_by_index")
def slice_by_index(call: Call) -> str:
    """As NumPy's, with places that may be computed."""
    part = _slice(call)
    rank = call.rank("x")
    sliced = call.emit(
        "Slice",
        call.tensor("x"),
        part.begins,
        part.ends,
        call.ints_tensor(*range(rank)),
        call.ints_tensor(*part.steps),
    )
    return call.emit("Squeeze", sliced, call.ints_tensor(*part.squeezed)) if part.squeezed else sliced


@translates("slice_update")
def slice_update(call: Call) -> str:
    """The tensor with a slice replaced: scattered by the places that the same slice of all places has."""
    part = _slice(call)
    shape = call.static_shape("x")
    numbers = call.constant(np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape))
    axes, steps = call.ints_tensor(*range(len(shape))), call.ints_tensor(*part.steps)
    places = call.reshaped(call.emit("Slice", numbers, part.begins, part.ends, axes, steps), -1)
    kind = call.kind("x")
    stored = Kind.INT if kind is Kind.BOOL else kind
    flat = call.reshaped(call.as_kind("x", stored), -1)
    update = call.reshaped(call.as_kind("update", stored), -1)
    updated = call.reshaped(call.emit("ScatterElements", flat, places, update, axis=0), *shape)
    return call.cast(updated, Kind.BOOL) if kind is Kind.BOOL else updated


def _slice(call: Call) -> _Slice:
    rank = call.rank("x")
    steps = call.ints("stride", [1] * rank)
    masks = {
        name: [bool(one) for one in np.atleast_1d(call.value(f"{name}_mask", np.zeros(rank, bool)))]
        for name in ("begin", "end", "squeeze")
    }
    squeezed = [axis for axis, dropped in enumerate(masks["squeeze"]) if dropped]
    for axis in squeezed:
        steps[axis] = 1
    from_start = [_END if step < 0 else 0 for step in steps]
    to_end = [_START_BACKWARDS if step < 0 else _END for step in steps]
    begins = _masked(call, call.tensor("begin"), masks["begin"], from_start)
    ends = _masked(call, call.tensor("end"), masks["end"], to_end)
    if squeezed:
        ends = _masked_by_tensor(call, ends, masks["squeeze"], _after(call, begins))
    return _Slice(begins, ends, steps, squeezed)


def _after(call: Call, begins: str) -> str:
    """The place behind each begin; -1 is the last one, and behind it is the end."""
    last = call.emit("Equal", begins, call.constant(-1))
    return call.emit("Where", last, call.constant(_END), call.emit("Add", begins, call.constant(1)))


def _masked(call: Call, tensor: str, mask: list[bool], values: list[int]) -> str:
    return _masked_by_tensor(call, tensor, mask, call.ints_tensor(*values)) if any(mask) else tensor


def _masked_by_tensor(call: Call, tensor: str, mask: list[bool], values: str) -> str:
    return call.emit("Where", call.constant(np.asarray(mask)), values, tensor)


@translates("slice_by_size")
def slice_by_size(call: Call) -> str:
    """From a place on, so many; -1 is all that are left."""
    rank = call.rank("x")
    begins, sizes = call.tensor("begin"), call.tensor("size")
    shape = call.shape_tensor(call.tensor("x"))
    negative = call.emit("Less", begins, call.constant(0))
    begins = call.emit("Where", negative, call.emit("Add", begins, shape), begins)
    rest = call.emit("Less", sizes, call.constant(0))
    ends = call.emit("Where", rest, call.constant(_END), call.emit("Add", begins, sizes))
    return call.emit("Slice", call.tensor("x"), begins, ends, call.ints_tensor(*range(rank)))


@translates("crop")
def crop(call: Call) -> str:
    """Rows and columns are cut at both sides."""
    (top, bottom), (left, right) = call.ints("crop_height"), call.ints("crop_width")
    ends = [-size if size else _END for size in (bottom, right)]
    return call.emit(
        "Slice",
        call.tensor("x"),
        call.ints_tensor(top, left),
        call.ints_tensor(*ends),
        call.ints_tensor(-2, -1),
    )


@translates("reverse")
def reverse(call: Call) -> str:
    """Backwards along axes; all of them where none is named."""
    axes = call.ints("axes", list(range(call.rank("x"))))
    return call.emit(
        "Slice",
        call.tensor("x"),
        call.ints_tensor(*[-1] * len(axes)),
        call.ints_tensor(*[_START_BACKWARDS] * len(axes)),
        call.ints_tensor(*axes),
        call.ints_tensor(*[-1] * len(axes)),
    )


@translates("reverse_sequence")
def reverse_sequence(call: Call) -> str:
    """The first ones along an axis backwards, of each batch its own number."""
    along, batch = call.axis("seq_axis"), call.axis("batch_axis")
    if {along, batch} != {0, 1}:
        raise UnsupportedFormError(f"axes {along} and {batch}, not 0 and 1")
    return call.emit(
        "ReverseSequence", call.tensor("x"), call.tensor("lengths"), time_axis=along, batch_axis=batch
    )


@translates("sliding_windows")
def sliding_windows(call: Call) -> str:
    """All windows along an axis."""
    axis, size, stride = call.axis("axis"), int(call.value("size")), int(call.value("stride", 1))
    length = call.static_shape("x")[axis]
    starts = np.arange((length - size) // stride + 1) * stride
    return call.emit("Gather", call.tensor("x"), call.constant(starts[:, None] + np.arange(size)), axis=axis)


@translates("band_part")
def band_part(call: Call) -> str:
    """A band around the diagonal of each matrix; 0 outside it. Works on sizes that are not fixed, too."""
    x, kind = call.tensor("x"), call.kind("x")
    lower, upper = int(call.value("lower", -1)), int(call.value("upper", -1))
    size = call.shape_tensor(x, -2)
    ranges = []
    for place in (0, 1):
        count = call.reshaped(call.emit("Gather", size, call.ints_tensor(place)))
        ranges.append(call.emit("Range", call.constant(0), count, call.constant(1)))
    rows = call.emit("Unsqueeze", ranges[0], call.ints_tensor(1))
    below = call.emit("Sub", rows, ranges[1])
    kept = call.constant(np.asarray(True))
    if lower >= 0:
        kept = call.emit("And", kept, call.emit("LessOrEqual", below, call.constant(lower)))
    if upper >= 0:
        kept = call.emit("And", kept, call.emit("GreaterOrEqual", below, call.constant(-upper)))
    if kind is Kind.BOOL:
        return call.emit("And", kept, x)
    return call.emit("Where", kept, x, call.constant(0.0 if kind is Kind.FLOAT else 0))
