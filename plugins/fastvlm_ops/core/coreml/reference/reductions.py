"""Reductions along axes."""

from __future__ import annotations

from fastvlm_ops.core.coreml.reference.call import Call, Kind
from fastvlm_ops.core.coreml.reference.registry import translates

_OF_ANY_NUMBER = {
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
    "reduce_sum": "ReduceSum",
}
_OF_FLOATS = {
    "reduce_l1_norm": "ReduceL1",
    "reduce_l2_norm": "ReduceL2",
    "reduce_log_sum": "ReduceLogSum",
    "reduce_log_sum_exp": "ReduceLogSumExp",
    "reduce_mean": "ReduceMean",
    "reduce_sum_square": "ReduceSumSquare",
}
_PLACES = {"reduce_argmax": "ArgMax", "reduce_argmin": "ArgMin"}


@translates(*_OF_ANY_NUMBER)
def of_any_number(call: Call) -> str:
    """Those that ONNX Runtime has for whole numbers too."""
    return _reduced(call, _OF_ANY_NUMBER[call.kind_name], call.tensor("x"))


@translates(*_OF_FLOATS)
def of_floats(call: Call) -> str:
    """Whole numbers are reduced as real ones, and cut off."""
    result = _reduced(call, _OF_FLOATS[call.kind_name], call.as_kind("x", Kind.FLOAT))
    return result if call.kind("x") is Kind.FLOAT else call.cast(result, Kind.INT)


@translates(*_PLACES)
def places(call: Call) -> str:
    """Where the largest or smallest is; the first of several."""
    return call.emit(
        _PLACES[call.kind_name],
        call.tensor("x"),
        axis=call.axis("axis", default=-1),
        keepdims=int(bool(call.value("keep_dims", False))),
    )


def _reduced(call: Call, kind: str, tensor: str) -> str:
    keep = int(bool(call.value("keep_dims", False)))
    axes = call.ints("axes")
    operands = [tensor, call.ints_tensor(*axes)] if axes else [tensor]
    return call.emit(kind, *operands, keepdims=keep)
