"""One operation of MIL, as those who translate it see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.coreml.reference.graph import Graph


class Kind(StrEnum):
    """Type of a tensor in the graph."""

    FLOAT = "FLOAT"
    INT = "INT64"
    BOOL = "BOOL"


class UnsupportedFormError(Exception):
    """An operation is translated, but not in the form that a model has it in.

    :param form: as in ``shape is not constant``
    """


class Call:
    """An operation, its inputs and the graph that it goes to.

    :param operation: of coremltools
    :param graph: that nodes are added to
    :param name_of: gives the tensor of a variable
    :param states: of the program: name → tensor that holds its newest value
    :param translate_block: adds a block's operations, its inputs bound to tensors; gives its outputs' tensors
    """

    def __init__(
        self,
        operation: Any,
        graph: Graph,
        name_of: Callable[[Any], str],
        states: dict[str, str],
        translate_block: Callable[[Any, Mapping[Any, str]], list[str]],
    ) -> None:
        self.operation = operation
        self.graph = graph
        self.states = states
        self.translate_block = translate_block
        self._name_of = name_of

    @property
    def kind_name(self) -> str:
        """As MIL names it."""
        return str(self.operation.op_type)

    @property
    def opset(self) -> str:
        """As in ``iOS17``."""
        return opset_of(self.operation)

    # What it is given

    def variable(self, name: str) -> Any:
        """An input as coremltools has it, or None where it is left out."""
        found = self.operation.inputs.get(name)
        return getattr(self.operation, name, None) if found is None else found  # what stands by default

    def has(self, name: str) -> bool:
        """Whether an input is given."""
        return self.variable(name) is not None

    def tensor(self, name: str) -> str:
        """The tensor of an input."""
        return self._name_of(self.variable(name))

    def tensor_of(self, variable: Any) -> str:
        """The tensor of a variable that is part of an input."""
        return self._name_of(variable)

    def tensors(self, name: str) -> list[str]:
        """The tensors of an input that is several."""
        return [self._name_of(variable) for variable in self.operation.inputs[name]]

    def value(self, name: str, default: Any = None) -> Any:
        """The value of an input that is constant.

        :param default: where it is left out
        :raises UnsupportedFormError: it is not constant
        """
        variable = self.variable(name)
        if variable is None:
            return default
        if variable.val is None:
            raise UnsupportedFormError(f"{name} is not constant")
        return variable.val

    def array(self, name: str) -> NDArray[Any]:
        """The value of a weight, also of a compressed one.

        :raises UnsupportedFormError: it is not constant
        """
        found = constant_value(self.variable(name))
        if found is None:
            raise UnsupportedFormError(f"{name} is not constant")
        return found

    def ints(self, name: str, default: list[int] | None = None) -> list[int]:
        """The value of an input that is a constant list of whole numbers."""
        value = self.value(name)
        if value is None:
            return list(default or [])
        return [int(item) for item in np.atleast_1d(value)]

    def is_constant(self, name: str) -> bool:
        """Whether an input is given, and constant."""
        return self.has(name) and self.variable(name).val is not None

    def shape(self, name: str) -> list[int | None]:
        """Shape of an input; None where a dimension is not known before it runs."""
        return shape_of(self.variable(name))

    def static_shape(self, name: str) -> list[int]:
        """Shape of an input all of whose dimensions are known.

        :raises UnsupportedFormError: one is not
        """
        return _known(self.shape(name), name)

    def rank(self, name: str) -> int:
        """How many dimensions an input has."""
        return len(self.shape(name))

    def axis(self, name: str, of: str = "x", default: int = 0) -> int:
        """A constant axis, counted from the front.

        :param of: input that it is an axis of
        """
        value = int(self.value(name, default))
        return value + self.rank(of) if value < 0 else value

    def kind(self, name: str) -> Kind:
        """Type of an input's tensor."""
        return kind_of(self.variable(name))

    def output_shape(self, index: int = 0) -> list[int | None]:
        """Shape of an output, as MIL infers it."""
        return shape_of(self.operation.outputs[index])

    def static_output_shape(self, index: int = 0) -> list[int]:
        """Shape of an output all of whose dimensions are known."""
        return _known(self.output_shape(index), "output")

    # What it becomes

    def emit(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return its name."""
        return self.graph.add(kind, inputs, 1, attributes)[0]

    def emit_many(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with several outputs and return their names."""
        return self.graph.add(kind, inputs, outputs, attributes)

    def constant(self, value: Any) -> str:
        """The tensor of a constant."""
        return self.graph.constant(value)

    def ints_tensor(self, *values: int) -> str:
        """The tensor of a list of whole numbers."""
        return self.graph.constant(np.asarray(values, np.int64))

    def cast(self, tensor: str, kind: Kind) -> str:
        """A tensor in another type."""
        from onnx import TensorProto

        return self.emit("Cast", tensor, to=getattr(TensorProto, kind))

    def as_kind(self, name: str, kind: Kind) -> str:
        """The tensor of an input, cast where it is of another type."""
        tensor = self.tensor(name)
        return tensor if self.kind(name) is kind else self.cast(tensor, kind)

    def reshaped(self, tensor: str, *shape: int) -> str:
        """A tensor in another shape, as ``Reshape`` takes it."""
        return self.emit("Reshape", tensor, self.ints_tensor(*shape))

    def shape_tensor(self, tensor: str, start: int = 0, end: int | None = None) -> str:
        """The tensor of a tensor's shape, or of a part of it."""
        limits = {"start": start} if end is None else {"start": start, "end": end}
        return self.emit("Shape", tensor, **limits)


def opset_of(operation: Any) -> str:
    """The opset that an operation's form is of, as in ``iOS17``."""
    if operation.op_type == "coreml_update_state":  # of coremltools alone: packages have write_state
        return "iOS18"
    return named_opset(operation.opset_version)


def named_opset(opset: Any) -> str:
    """An opset of coremltools by its name. It counts from before ML programs, which are of iOS 15."""
    name = str(opset.name)
    return "iOS15" if name in ("iOS13", "iOS14") else name


def constant_value(variable: Any) -> NDArray[Any] | None:
    """The value of a variable where it is constant, decompressed by coremltools where it is compressed."""
    if variable.val is not None:
        return np.asarray(variable.val)
    operation = variable.op
    if operation is not None and operation.op_type.startswith("constexpr_"):
        return np.asarray(operation.materialized_val_inference())
    return None


def shape_of(variable: Any) -> list[int | None]:
    """Shape of a variable; None where a dimension is not known before it runs."""
    return [int(size) if isinstance(size, int | np.integer) else None for size in variable.shape]


def kind_of(variable: Any) -> Kind:
    """Type that a variable's tensor has in the graph."""
    from coremltools.converters.mil.mil import types

    if types.is_float(variable.dtype):
        return Kind.FLOAT
    return Kind.BOOL if types.is_bool(variable.dtype) else Kind.INT


def _known(shape: list[int | None], what: str) -> list[int]:
    known = [size for size in shape if size is not None]
    if len(known) != len(shape):
        raise UnsupportedFormError(f"{what} has a dimension that is not fixed")
    return known
