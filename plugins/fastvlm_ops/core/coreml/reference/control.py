"""Branches and loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.coreml.reference.call import Call, Kind, UnsupportedFormError, kind_of
from fastvlm_ops.core.coreml.reference.registry import translates

if TYPE_CHECKING:
    from onnx import GraphProto, ValueInfoProto


@translates("cond")
def cond(call: Call) -> list[str]:
    """One of two blocks."""
    branches = []
    kinds = [kind_of(output) for output in call.operation.outputs]
    for block in call.operation.blocks:
        start = len(call.graph.nodes)
        before = dict(call.states)
        outputs = call.translate_block(block, {})
        _refuse_states(call, before)
        branches.append(_graph(call, start, [], outputs, kinds))
    predicate = call.reshaped(call.as_kind("pred", Kind.BOOL))
    then, otherwise = branches
    return call.emit_many("If", len(kinds), predicate, then_branch=then, else_branch=otherwise)


@translates("while_loop")
def while_loop(call: Call) -> list[str]:
    """The condition is asked before the first round, and at the end of each."""
    condition, body = call.operation.blocks
    variables = call.operation.inputs["loop_vars"]
    initial = call.tensors("loop_vars")
    first = call.reshaped(
        call.translate_block(condition, dict(zip(condition.inputs, initial, strict=True)))[0]
    )
    start = len(call.graph.nodes)
    kinds = [kind_of(variable) for variable in variables]
    names = [call.graph.new_name("carried") for _ in variables]
    before = dict(call.states)
    carried = call.translate_block(body, dict(zip(body.inputs, names, strict=True)))
    again = call.translate_block(condition, dict(zip(condition.inputs, carried, strict=True)))[0]
    _refuse_states(call, before)
    inputs = [
        _value("round", Kind.INT, rank=0, call=call),
        _value("again", Kind.BOOL, rank=0, call=call),
        *(_named(name, kind) for name, kind in zip(names, kinds, strict=True)),
    ]
    graph = _graph(call, start, inputs, [call.reshaped(again), *carried], [Kind.BOOL, *kinds])
    return call.emit_many("Loop", len(variables), "", first, *initial, body=graph)


def _refuse_states(call: Call, before: dict[str, str]) -> None:
    if call.states != before:
        raise UnsupportedFormError("a state is written in it")


def _graph(
    call: Call, start: int, inputs: list[ValueInfoProto], outputs: Sequence[str], kinds: Sequence[Kind]
) -> GraphProto:
    """The nodes since a place, as a graph of their own. What it gives has to be made inside it."""
    from onnx import helper

    made = [call.emit("Identity", output) for output in outputs]
    nodes = call.graph.take_nodes(start)
    values = [_named(name, kind) for name, kind in zip(made, kinds, strict=True)]
    return helper.make_graph(nodes, call.graph.new_name("block"), inputs, values)


def _value(what: str, kind: Kind, *, rank: int, call: Call) -> ValueInfoProto:
    return _named(call.graph.new_name(what), kind, [1] * rank)


def _named(name: str, kind: Kind, shape: Any = None) -> ValueInfoProto:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape)
