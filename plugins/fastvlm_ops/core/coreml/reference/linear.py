"""Products of matrices, and attention."""

from __future__ import annotations

import math

import numpy as np

from fastvlm_ops.core.coreml.reference.call import Call, Kind
from fastvlm_ops.core.coreml.reference.registry import translates


@translates("linear")
def linear(call: Call) -> str:
    """x · weightᵀ + bias; the weight is turned here, once."""
    weight = call.constant(np.ascontiguousarray(call.array("weight").T))
    product = call.emit("MatMul", call.tensor("x"), weight)
    if not call.has("bias"):
        return product
    bias = call.array("bias")
    return call.emit("Add", product, call.constant(bias)) if np.any(bias) else product


@translates("matmul")
def matmul(call: Call) -> str:
    """Of the last two axes, each turned where asked for."""
    operands = []
    for name in ("x", "y"):
        tensor, rank = call.tensor(name), call.rank(name)
        if bool(call.value(f"transpose_{name}", False)) and rank > 1:
            order = [*range(rank - 2), rank - 1, rank - 2]
            tensor = call.emit("Transpose", tensor, perm=order)
        operands.append(tensor)
    return call.emit("MatMul", *operands)


@translates("einsum")
def einsum(call: Call) -> str:
    """Two tensors; ONNX Runtime broadcasts sizes of 1 as MIL does."""
    return call.emit("Einsum", *call.tensors("values"), equation=str(call.value("equation")))


@translates("scaled_dot_product_attention")
def attention(call: Call) -> str:
    """softmax(Q · Kᵀ / √E + mask) · V; a mask of truths leaves out where it is false."""
    rank = call.rank("query")
    width = call.static_shape("query")[-1]
    query = call.emit("Mul", call.tensor("query"), call.constant(1 / math.sqrt(width)))
    key = call.emit("Transpose", call.tensor("key"), perm=[*range(rank - 2), rank - 1, rank - 2])
    scores = call.emit("MatMul", query, key)
    if call.has("attn_mask"):
        mask = call.tensor("attn_mask")
        if call.kind("attn_mask") is Kind.BOOL:
            mask = call.emit("Where", mask, call.constant(0.0), call.constant(-np.inf))
        scores = call.emit("Add", scores, mask)
    return call.emit("MatMul", call.emit("Softmax", scores, axis=-1), call.tensor("value"))
