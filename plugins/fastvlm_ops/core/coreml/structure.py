"""A hash of what a program does and how it is wired, whatever its weights are and however they are stored."""

from __future__ import annotations

import hashlib
import json
from collections import ChainMap
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from fastvlm_ops.core.coreml.specification import UnusableSpecificationError, block_of

_WEIGHT = "weight"
_LONGEST = 64  # whole numbers that are a setting; a table of more is a weight


def hash_structure(function: Any) -> str:
    """Return the hash of a function: of its operations in their order, what each one takes, and its settings.

    Names, weights, numbers' types and shapes are left out, so that a model that was trained on, compressed or
    made wider has the same structure.

    :param function: of a program
    :raises UnusableSpecificationError: something takes a value that nothing before it gives
    """
    hasher = hashlib.sha256()
    inputs: dict[str, Any] = {value.name: f"input {place}" for place, value in enumerate(function.inputs)}
    _hash_block(hasher, block_of(function), ChainMap(inputs), count())
    return hasher.hexdigest()


def _hash_block(hasher: Any, block: Any, outside: ChainMap[str, Any], numbers: Iterator[int]) -> None:
    values = outside.new_child()  # seen by this block alone
    values.update((value.name, next(numbers)) for value in block.inputs)
    for operation in block.operations:
        if operation.type == "const" or operation.type.startswith("constexpr_"):
            _check_taken(operation, values)
            constant = _setting(operation.attributes["val"]) if operation.type == "const" else _WEIGHT
            values.update((output.name, constant) for output in operation.outputs)
            continue
        taken = {
            name: [_taken(binding, values) for binding in argument.arguments]
            for name, argument in operation.inputs.items()
        }
        line = [operation.type, sorted(taken.items()), len(operation.outputs), len(operation.blocks)]
        hasher.update(json.dumps(line).encode() + b"\n")
        for inner in operation.blocks:
            _hash_block(hasher, inner, values, numbers)
        values.update((output.name, next(numbers)) for output in operation.outputs)
    if not block.outputs:
        raise UnusableSpecificationError("a function or block gives nothing: it is cut off")
    hasher.update(json.dumps([_known(name, values) for name in block.outputs]).encode() + b"\n")


def _check_taken(operation: Any, values: Mapping[str, Any]) -> None:
    for argument in operation.inputs.values():
        for binding in argument.arguments:
            _taken(binding, values)


def _taken(binding: Any, values: Mapping[str, Any]) -> Any:
    if binding.WhichOneof("binding") == "name":
        return _known(binding.name, values)
    return _setting(binding.value)


def _known(name: str, values: Mapping[str, Any]) -> Any:
    if name not in values:
        raise UnusableSpecificationError(f"something takes {name[:100]!r}, which nothing before it gives")
    return values[name]


def _setting(value: Any) -> Any:
    """Return a constant that is a setting: text, truth or whole numbers; all others are weights."""
    if value.WhichOneof("value") != "immediateValue" or value.immediateValue.WhichOneof("value") != "tensor":
        return _WEIGHT
    tensor = value.immediateValue.tensor
    kind = tensor.WhichOneof("value")
    if kind not in ("ints", "bools", "strings", "longInts"):
        return _WEIGHT
    values = getattr(tensor, kind).values
    return [kind, list(values)] if len(values) <= _LONGEST else _WEIGHT
