"""How much arithmetic a program does: two for each multiplication with its addition.

Counted are the operations that do nearly all of it: convolutions, products of matrices, attention and
recurrent layers. All others count as nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastvlm_ops.core.coreml.specification import Tensor, tensor_of


@dataclass
class Scope:
    """What is known of a function's values, by name.

    :param types: of tensors
    :param constants: constant values, as protobufs
    """

    types: dict[str, Tensor | None] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)

    def learn(self, operation: Any) -> None:
        """Take in what an operation makes.

        :param operation: of the function
        """
        for output in operation.outputs:
            self.types[output.name] = tensor_of(output.type)
        if operation.type == "const" and operation.outputs:
            self.constants[operation.outputs[0].name] = operation.attributes["val"]

    def tensors(self, operation: Any, name: str) -> list[Tensor | None]:
        """Return the types of an operation's input, of which there may be several.

        :param operation: of the function
        :param name: of the input
        """
        if name not in operation.inputs:
            return []
        return [
            self.types.get(binding.name)
            if binding.WhichOneof("binding") == "name"
            else tensor_of(binding.value.type)
            for binding in operation.inputs[name].arguments
        ]

    def flag(self, operation: Any, name: str) -> bool:
        """Return an input that is true or false; false where it is not given.

        :param operation: of the function
        :param name: of the input
        """
        tensor = self._constant(operation, name)
        return bool(tensor is not None and tensor.bools.values and tensor.bools.values[0])

    def text(self, operation: Any, name: str) -> str:
        """Return an input that is text; empty where it is not given.

        :param operation: of the function
        :param name: of the input
        """
        tensor = self._constant(operation, name)
        return str(tensor.strings.values[0]) if tensor is not None and tensor.strings.values else ""

    def _constant(self, operation: Any, name: str) -> Any:
        if name not in operation.inputs:
            return None
        for binding in operation.inputs[name].arguments:
            named = binding.WhichOneof("binding") == "name"
            value = self.constants.get(binding.name) if named else binding.value
            return value.immediateValue.tensor if value is not None else None
        return None


def flops_of(operation: Any, scope: Scope) -> float | None:
    """Return how much arithmetic an operation does once.

    :param operation: of a function
    :param scope: that has learnt everything before it, and the operation itself
    :returns: 0 for operations that are not counted; None where only a run tells
    """
    count = COUNTED.get(operation.type)
    if count is None:
        return 0.0
    try:
        return 2.0 * count(operation, scope)
    except (_UnknownError, OverflowError):
        return None


class _UnknownError(Exception):
    """Not known before a run."""


def _sizes(operation: Any, scope: Scope, name: str, at: int = 0) -> list[int]:
    tensors = scope.tensors(operation, name)
    tensor = tensors[at] if at < len(tensors) else None
    if tensor is None or tensor.sizes is None:
        raise _UnknownError
    known = [size for size in tensor.sizes if size is not None]
    if len(known) != len(tensor.sizes) or not known:
        raise _UnknownError
    return known


def _outputs(operation: Any, scope: Scope) -> int:
    tensor = scope.types.get(operation.outputs[0].name) if operation.outputs else None
    if tensor is None or tensor.elements is None:
        raise _UnknownError
    return tensor.elements


def _convolution(operation: Any, scope: Scope) -> int:
    # Of the weight: outputs, inputs of a group, sizes of the kernel.
    return _outputs(operation, scope) * math.prod(_sizes(operation, scope, "weight")[1:])


def _transposed_convolution(operation: Any, scope: Scope) -> int:
    # Each input is spread over the kernel; of the weight: inputs, outputs of a group, sizes of the kernel.
    inputs = math.prod(_sizes(operation, scope, "x"))
    return inputs * math.prod(_sizes(operation, scope, "weight")[1:])


def _linear(operation: Any, scope: Scope) -> int:
    return _outputs(operation, scope) * _sizes(operation, scope, "weight")[-1]


def _product(operation: Any, scope: Scope) -> int:
    sizes = _sizes(operation, scope, "x")
    transposed = scope.flag(operation, "transpose_x") and len(sizes) > 1
    return _outputs(operation, scope) * sizes[-2 if transposed else -1]


def _einsum(operation: Any, scope: Scope) -> int:
    equation = scope.text(operation, "equation").replace(" ", "")
    operands = equation.partition("->")[0].split(",")
    if not equation or "." in equation:
        raise _UnknownError
    sizes: dict[str, int] = {}
    for position, letters in enumerate(operands):
        # One of them may be 1 and is spread over the other.
        for letter, size in zip(letters, _sizes(operation, scope, "values", position), strict=False):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return math.prod(sizes.values())


def _attention(operation: Any, scope: Scope) -> int:
    query, key, value = (_sizes(operation, scope, name) for name in ("query", "key", "value"))
    if min(len(query), len(key), len(value)) < 2:
        raise _UnknownError
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _recurrent(operation: Any, scope: Scope) -> int:
    steps = math.prod(_sizes(operation, scope, "x")[:-1])
    weights = [name for name in operation.inputs if name.startswith(("weight_ih", "weight_hh"))]
    return steps * sum(math.prod(_sizes(operation, scope, name)) for name in weights)


COUNTED: dict[str, Callable[[Any, Scope], int]] = {
    "conv": _convolution,
    "conv_transpose": _transposed_convolution,
    "linear": _linear,
    "matmul": _product,
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "gru": _recurrent,
    "lstm": _recurrent,
    "rnn": _recurrent,
}
