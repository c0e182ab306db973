"""Gathering, scattering, sorting and counting."""

from __future__ import annotations

import numpy as np

from fastvlm_ops.core.coreml.reference.call import Call, Kind, UnsupportedFormError, kind_of
from fastvlm_ops.core.coreml.reference.registry import translates

# Those of MIL that ONNX has under another name; a difference is a sum, a quotient a product.
_SCATTERS = {
    "update": "none",
    "add": "add",
    "sub": "add",
    "mul": "mul",
    "div": "mul",
    "max": "max",
    "min": "min",
}


@translates("gather")
def gather(call: Call) -> str:
    """Slices along an axis; with batches, of each its own."""
    batches = int(call.value("batch_dims", 0))
    if batches == 0:
        return call.emit("Gather", call.tensor("x"), call.tensor("indices"), axis=call.axis("axis"))
    rank, axis = call.rank("x"), call.axis("axis")
    before, behind = list(range(batches, axis)), list(range(axis + 1, rank))
    turned = call.emit("Transpose", call.tensor("x"), perm=[*range(batches), axis, *before, *behind])
    places = call.emit("Unsqueeze", call.tensor("indices"), call.ints_tensor(-1))
    found = call.emit("GatherND", turned, places, batch_dims=batches)
    count = call.rank("indices") - batches
    middle = [batches + count + place for place in range(len(before))]
    last = [batches + count + len(before) + place for place in range(len(behind))]
    indices = list(range(batches, batches + count))
    return call.emit("Transpose", found, perm=[*range(batches), *middle, *indices, *last])


@translates("gather_along_axis")
def gather_along_axis(call: Call) -> str:
    """One element for each index."""
    return call.emit("GatherElements", call.tensor("x"), call.tensor("indices"), axis=call.axis("axis"))


@translates("gather_nd")
def gather_nd(call: Call) -> str:
    """Slices by several axes at once."""
    batches = int(call.value("batch_dims", 0))
    return call.emit("GatherND", call.tensor("x"), call.tensor("indices"), batch_dims=batches)


@translates("scatter")
def scatter(call: Call) -> str:
    """Whole slices, at places along an axis."""
    axis = call.axis("axis", of="data")
    sizes = [1] * call.rank("data")
    sizes[axis] = -1
    updates = call.tensor("updates")
    places = call.emit("Expand", call.reshaped(call.tensor("indices"), *sizes), call.shape_tensor(updates))
    reduction, updates = _reduction(call, updates)
    return call.emit("ScatterElements", call.tensor("data"), places, updates, axis=axis, reduction=reduction)


@translates("scatter_along_axis")
def scatter_along_axis(call: Call) -> str:
    """One element for each index."""
    reduction, updates = _reduction(call, call.tensor("updates"))
    return call.emit(
        "ScatterElements",
        call.tensor("data"),
        call.tensor("indices"),
        updates,
        axis=call.axis("axis", of="data"),
        reduction=reduction,
    )


@translates("scatter_nd")
def scatter_nd(call: Call) -> str:
    """Slices by several axes at once."""
    reduction, updates = _reduction(call, call.tensor("updates"))
    return call.emit("ScatterND", call.tensor("data"), call.tensor("indices"), updates, reduction=reduction)


def _reduction(call: Call, updates: str) -> tuple[str, str]:
    mode = str(call.value("mode", "add"))
    if mode == "sub":
        updates = call.emit("Neg", updates)
    if mode == "div":
        if call.kind("data") is not Kind.FLOAT:
            raise UnsupportedFormError("division of whole numbers")
        updates = call.emit("Reciprocal", updates)
    return _SCATTERS[mode], updates


@translates("topk")
def topk(call: Call) -> list[str]:
    """The largest or smallest, and where they are."""
    count = int(call.value("k", 1))
    axis = call.axis("axis", default=-1)
    return _sorted(call, axis, None if count == -1 else count)[: len(call.operation.outputs)]


@translates("argsort")
def argsort(call: Call) -> str:
    """Where each element of the sorted tensor is."""
    return _sorted(call, call.axis("axis", default=-1), None)[1]


def _sorted(call: Call, axis: int, count: int | None) -> list[str]:
    """Values and places; of all where no count is given."""
    x = call.tensor("x")
    number = call.shape_tensor(x, axis, axis + 1) if count is None else call.ints_tensor(count)
    largest = int(not bool(call.value("ascending", False)))
    return call.emit_many("TopK", 2, x, number, axis=axis, largest=largest, sorted=1)


@translates("non_zero")
def non_zero(call: Call) -> str:
    """Where a tensor is not 0, one row each."""
    return call.emit("Transpose", call.emit("NonZero", call.tensor("x")), perm=[1, 0])


@translates("one_hot")
def one_hot(call: Call) -> str:
    """A vector for each index; of one that is out of range, without any place set."""
    rank = call.rank("indices") + 1
    axis = int(call.value("axis", -1)) % rank
    depth = call.reshaped(call.tensor("one_hot_vector_size"))
    sizes = [1] * rank
    sizes[axis] = -1
    numbers = call.reshaped(call.emit("Range", call.constant(0), depth, call.constant(1)), *sizes)
    indices = call.emit("Unsqueeze", call.tensor("indices"), call.ints_tensor(axis))
    hit = call.emit("Equal", indices, numbers)
    kind = kind_of(call.operation.outputs[0])
    stored = Kind.INT if kind is Kind.BOOL else kind
    dtype = np.float32 if stored is Kind.FLOAT else np.int64
    on, off = (
        call.constant(dtype(call.value(name, value))) for name, value in (("on_value", 1), ("off_value", 0))
    )
    chosen = call.emit("Where", hit, on, off)
    return call.cast(chosen, Kind.BOOL) if kind is Kind.BOOL else chosen


@translates("cumsum")
def cumsum(call: Call) -> str:
    """Sums so far."""
    return call.emit(
        "CumSum",
        call.tensor("x"),
        call.constant(call.axis("axis")),
        exclusive=int(bool(call.value("exclusive", False))),
        reverse=int(bool(call.value("reverse", False))),
    )


@translates("range_1d")
def range_1d(call: Call) -> str:
    """From, to and by."""
    return call.emit("Range", *(call.reshaped(call.tensor(name)) for name in ("start", "end", "step")))


@translates("fill")
def fill(call: Call) -> str:
    """One value everywhere."""
    return call.emit("Expand", call.constant(call.value("value", 0.0)), call.tensor("shape"))


@translates("fill_like")
def fill_like(call: Call) -> str:
    """One value everywhere, in the shape of another tensor."""
    shape = call.shape_tensor(call.tensor("ref_tensor"))
    return call.emit("Expand", call.constant(call.value("value", 0.0)), shape)
