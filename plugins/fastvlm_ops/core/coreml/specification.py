"""The specification of a Core ML model: one protobuf, in which everything is but the weights' bytes.

Whoever wrote it may have been wrong or hostile, so sizes are bounded before anything is computed from them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvlm_ops.core.coreml.errors import PackageRefusedError
from fastvlm_ops.core.coreml.packages import PackageFiles, open_package, read_regular

# 6 is iOS 15, the first that has ML programs; 10 is iOS 26, the newest that coremltools 9 knows.
OLDEST_VERSION, NEWEST_VERSION = 6, 10
_DIMENSION = 1 << 40
_BYTES = 1 << 60
_BITS = {"BOOL": 8, "BFLOAT16": 16}
_FLOATS = ("FLOAT", "BFLOAT")


class UnusableSpecificationError(Exception):
    """Something in a specification is impossible. Turned into a refusal of the package."""


@dataclass(frozen=True)
class Specification:
    """A specification that has been read.

    :param files: what the package consists of
    :param model: the protobuf, a ``Model``
    """

    files: PackageFiles
    model: Any

    @property
    def program(self) -> Any:
        """The ML program."""
        return self.model.mlProgram

    @property
    def default_function(self) -> str:
        """Name of the function that runs where none is asked for."""
        return self.model.description.defaultFunctionName or "main"

    @property
    def description(self) -> Any:
        """Inputs, outputs and states of the default function."""
        return self.description_of(self.default_function)

    def description_of(self, function: str) -> Any:
        """Return the inputs, outputs and states of a function.

        :param function: its name
        """
        # A package of one function describes that one, not its functions.
        named = (one for one in self.model.description.functions if one.name == function)
        return next(named, self.model.description)


@dataclass(frozen=True)
class Tensor:
    """The type of a tensor.

    :param kind: of its elements, as in ``FLOAT16``
    :param sizes: of its dimensions, each None where only a run tells; None where not even the rank is known
    """

    kind: str
    sizes: tuple[int | None, ...] | None

    @property
    def elements(self) -> int | None:
        """How many; None where only a run tells."""
        if self.sizes is None:
            return None
        known = [size for size in self.sizes if size is not None]
        return math.prod(known) if len(known) == len(self.sizes) else None

    @property
    def size_bytes(self) -> int | None:
        """How much they take, in whole bytes; None where only a run tells."""
        elements = self.elements
        return None if elements is None else -(-elements * bits_of(self.kind) // 8)

    @property
    def is_float(self) -> bool:
        """Whether its elements are floating-point numbers."""
        return self.kind.startswith(_FLOATS)


def quiet_coremltools() -> None:
    """Keep coremltools from warning, as it is imported, that no model can be run on this machine."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)


def read_specification(path: Path) -> Specification:
    """Read the specification of a package that holds an ML program.

    :param path: of the package
    :raises PackageRefusedError: it is broken, hostile, too new, or holds something else
    """
    quiet_coremltools()
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError

    files = open_package(path)
    try:
        model = Model_pb2.Model.FromString(b"".join(read_regular(path, files.model_file)))
    except DecodeError as error:
        raise PackageRefusedError(path, f"{files.model_file.name} is cut off or damaged: {error}") from error
    version = model.specificationVersion
    if version == 0:
        raise PackageRefusedError(
            path, f"{files.model_file.name} has no specification version: it is damaged"
        )
    if version > NEWEST_VERSION:
        message = f"has the specification version {version}; versions to {NEWEST_VERSION} are known"
        raise PackageRefusedError(
            path, f"{message}. Install a newer coremltools, or convert it for an older iOS"
        )
    kind = model.WhichOneof("Type")
    if kind != "mlProgram" or version < OLDEST_VERSION:
        message = f"holds {kind or 'nothing'} (specification version {version}), not an ML program"
        raise PackageRefusedError(path, f'{message}; convert it with convert_to="mlprogram"')
    specification = Specification(files, model)
    if specification.default_function not in model.mlProgram.functions:
        message = f"has no function {specification.default_function!r}: it is damaged"
        raise PackageRefusedError(path, message)
    return specification


def block_of(function: Any) -> Any:
    """Return the operations that a function runs: its block for the operation set that it names.

    :param function: of the program
    :raises UnusableSpecificationError: it has none
    """
    if function.opset not in function.block_specializations:
        raise UnusableSpecificationError(
            f"a function has no operations for its operation set {function.opset!r}"
        )
    return function.block_specializations[function.opset]


def operations_in(block: Any) -> Iterator[Any]:
    """Yield the operations of a block, and of the blocks in it.

    :param block: of a function or an operation
    """
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from operations_in(inner)


def values_in(operation: Any) -> Iterator[Any]:
    """Yield the constant values that stand in an operation itself.

    :param operation: of a block
    """
    yield from operation.attributes.values()
    for argument in operation.inputs.values():
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "value":
                yield binding.value


def tensor_of(value_type: Any) -> Tensor | None:
    """Return the type of a tensor, or of the tensor in a state; None where it is no tensor.

    :param value_type: a ``ValueType``
    :raises UnusableSpecificationError: it is larger than anything there can be
    """
    kind = value_type.WhichOneof("type")
    if kind == "stateType":
        return tensor_of(value_type.stateType.wrappedType)
    if kind != "tensorType":
        return None
    tensor_type = value_type.tensorType
    name = _data_type(tensor_type.dataType)
    if any(dimension.unknown.variadic for dimension in tensor_type.dimensions) or (
        tensor_type.rank > 0 and not tensor_type.dimensions
    ):
        return Tensor(name, None)
    tensor = Tensor(name, tuple(_size(dimension) for dimension in tensor_type.dimensions))
    # One after the other, so that no product becomes a number of millions of digits.
    total = bits_of(name)
    for size in tensor.sizes or ():
        total *= size if size is not None else 1
        if total > 8 * _BYTES:
            raise UnusableSpecificationError(f"a tensor of the sizes {_shown(tensor.sizes)} cannot be")
    return tensor


def bits_of(kind: str) -> int:
    """Return how many bits an element has.

    :param kind: of the element, as in ``FLOAT16`` or ``UINT4``
    """
    if kind in _BITS:
        return _BITS[kind]
    digits = "".join(
        letter for letter in kind.removesuffix("E4M3FN").removesuffix("E5M2") if letter.isdigit()
    )
    return int(digits) if digits else 0


def _data_type(number: int) -> str:
    from coremltools.proto import MIL_pb2

    try:
        return str(MIL_pb2.DataType.Name(number))
    except ValueError:
        raise UnusableSpecificationError(f"a tensor has elements of an unknown type, {number}") from None


def _size(dimension: Any) -> int | None:
    if dimension.WhichOneof("dimension") != "constant":
        return None
    size = int(dimension.constant.size)
    if size >= _DIMENSION:
        raise UnusableSpecificationError(f"a dimension of {size} cannot be")
    return size


def _shown(sizes: tuple[int | None, ...] | None) -> str:
    shown = ", ".join("?" if size is None else str(size) for size in (sizes or ())[:8])
    return f"({shown}, …)" if len(sizes or ()) > 8 else f"({shown})"
