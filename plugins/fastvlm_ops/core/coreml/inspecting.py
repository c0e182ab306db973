"""What a Core ML package is, told without running it: from its specification alone, its weights unread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fastvlm_ops.core.coreml.errors import PackageRefusedError
from fastvlm_ops.core.coreml.flops import COUNTED, Scope, flops_of
from fastvlm_ops.core.coreml.specification import (
    Specification,
    Tensor,
    UnusableSpecificationError,
    block_of,
    operations_in,
    read_specification,
    tensor_of,
    values_in,
)
from fastvlm_ops.core.coreml.structure import hash_structure

_OPERATIONS = 200_000
_NAMES = 1000
_TEXT = 500  # characters of what a package says of itself
_HEADER_BYTES = 64  # that stand before each weight in its file
_WEIGHT_FOLDER = "@model_path/"
_COMPRESSED = "constexpr_"


@dataclass(frozen=True)
class Feature:
    """An input, output or state of a model.

    :param name: of it
    :param kind: ``multiArray``, ``image``, ``state`` and what else Core ML has
    :param type: of its elements, or an image's colours: ``FLOAT32``, ``RGB``
    :param shape: of an array, or height and width of an image; of a flexible one the default
    :param flexible: whether it takes other shapes too
    :param optional: whether it may be left out
    """

    name: str
    kind: str
    type: str = ""
    shape: tuple[int, ...] = ()
    flexible: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Inspection:
    """What a package is. Counts of operations, parameters and arithmetic are of its default function.

    :param spec_version: of its specification: 8 is iOS 17
    :param functions: names of its functions
    :param inputs: of the default function
    :param outputs: likewise
    :param states: likewise, as caches that last between predictions
    :param size_bytes: of all its files
    :param weight_bytes: of the weights as they are stored, by the type of their elements; of all functions
    :param parameters: numbers that the operations compute with, decompressed
    :param operations: how many of each, without constants
    :param compression: how many weights are stored in each compressed form
    :param compressed_share: part of the parameters that is
    :param flops: arithmetic of a prediction, two for a multiplication with its addition; None where only a
        run tells
    :param operation_flops: the same by an operation's first output, of those that do any
    :param structure_hash: of the operations and how they are wired: the same for other weights and widths
    :param stateful: whether it has states
    :param author: as the package says
    :param short_description: likewise
    :param version_string: likewise
    """

    spec_version: int
    functions: tuple[str, ...]
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...]
    size_bytes: int
    weight_bytes: dict[str, int]
    parameters: int
    operations: dict[str, int]
    compression: dict[str, int]
    compressed_share: float
    flops: float | None
    structure_hash: str
    stateful: bool
    author: str = ""
    short_description: str = ""
    version_string: str = ""
    operation_flops: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        features = ("inputs", "outputs", "states")
        values = asdict(self)
        for name in features:
            values[name] = [{**one, "shape": list(one["shape"])} for one in values[name]]
        return {**values, "functions": list(self.functions)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Inspection:
        """From JSON; keys that this version does not know are left out."""
        known = {name: values[name] for name in (one.name for one in fields(cls)) if name in values}
        for name in ("inputs", "outputs", "states"):
            known[name] = tuple(Feature(**{**one, "shape": tuple(one["shape"])}) for one in known[name])
        return cls(**{**known, "functions": tuple(known["functions"])})


def inspect_package(path: Path) -> Inspection:
    """Tell what a package is, from its specification alone: its weights are not opened.

    :param path: of the package
    :raises PackageRefusedError: it is broken, hostile, too new, or holds no ML program
    """
    return inspect_specification(read_specification(path))


def inspect_specification(specification: Specification) -> Inspection:
    """The same for a specification that has been read already.

    :param specification: of a package
    :raises PackageRefusedError: it cannot be right
    """
    try:
        return _inspect(specification)
    except UnusableSpecificationError as error:
        files = specification.files
        raise PackageRefusedError(files.root, f"{files.model_file.name} cannot be right: {error}") from error


def _inspect(specification: Specification) -> Inspection:
    functions = specification.program.functions
    function = functions[specification.default_function]
    count = sum(1 for one in functions.values() for _ in operations_in(block_of(one)))
    if count > _OPERATIONS:
        raise UnusableSpecificationError(f"{count} operations are more than any model has")
    _check_kinds(specification)
    structure = hash_structure(function)  # which refuses what is not wired, before anything relies on it
    parameters, compressed = _parameters(block_of(function))
    operations = Counter(operation.type for operation in operations_in(block_of(function)))
    flops, operation_flops = _flops(function)
    description, metadata = specification.description, specification.model.description.metadata
    return Inspection(
        spec_version=specification.model.specificationVersion,
        functions=tuple(sorted(functions)),
        inputs=tuple(map(_feature, description.input)),
        outputs=tuple(map(_feature, description.output)),
        states=tuple(map(_feature, description.state)),
        size_bytes=specification.files.size_bytes,
        weight_bytes=_weight_bytes(specification),
        parameters=parameters,
        operations={
            kind: number
            for kind, number in sorted(operations.items())
            if kind != "const" and not kind.startswith(_COMPRESSED)
        },
        compression={k: n for k, n in sorted(operations.items()) if k.startswith(_COMPRESSED)},
        compressed_share=compressed / parameters if parameters else 0.0,
        flops=flops,
        structure_hash=structure,
        stateful=bool(description.state),
        author=metadata.author[:_TEXT],
        short_description=metadata.shortDescription[:_TEXT],
        version_string=metadata.versionString[:_TEXT],
        operation_flops=operation_flops,
    )


def _check_kinds(specification: Specification) -> None:
    """Refuse what would fill a database with names: an inspection is stored, and shown."""
    functions, description = specification.program.functions, specification.description
    kinds = {op.type for one in functions.values() for op in operations_in(block_of(one))}
    counts = {
        "functions": len(functions),
        "kinds of operations": len(kinds),
        "inputs, outputs and states": len(description.input)
        + len(description.output)
        + len(description.state),
    }
    for name, number in counts.items():
        if number > _NAMES:
            raise UnusableSpecificationError(f"{number} {name} are more than any model has")
    if any(len(name) > _TEXT for name in (*kinds, *functions)):
        raise UnusableSpecificationError(f"a name has more than {_TEXT} characters")


def _feature(feature: Any) -> Feature:
    from coremltools.proto import FeatureTypes_pb2

    kind = feature.type.WhichOneof("Type") or ""
    name, word = feature.name[:_TEXT], kind.removesuffix("Type")
    optional = feature.type.isOptional
    if kind == "imageType":
        image = feature.type.imageType
        colours = _name(FeatureTypes_pb2.ImageFeatureType.ColorSpace, image.colorSpace)
        flexible = image.WhichOneof("SizeFlexibility") is not None
        return Feature(name, word, colours, (image.height, image.width), flexible, optional)
    if kind in ("multiArrayType", "stateType"):
        array = feature.type.multiArrayType if kind == "multiArrayType" else feature.type.stateType.arrayType
        numbers = _name(FeatureTypes_pb2.ArrayFeatureType.ArrayDataType, array.dataType)
        flexible = array.WhichOneof("ShapeFlexibility") is not None
        return Feature(name, word, numbers, tuple(array.shape), flexible, optional)
    return Feature(name, word, optional=optional)


def _name(enumeration: Any, number: int) -> str:
    try:
        return str(enumeration.Name(number))
    except ValueError:
        raise UnusableSpecificationError(f"an input or output is of an unknown type, {number}") from None


def _weight_bytes(specification: Specification) -> dict[str, int]:
    """Return the bytes of all weights, each stored one once, and refuse what the files cannot hold."""
    sizes: Counter[str] = Counter()
    seen = set()
    for function in specification.program.functions.values():
        for operation in operations_in(block_of(function)):
            for value in values_in(operation):
                tensor = tensor_of(value.type)
                if tensor is None:
                    continue
                kind, size = tensor.kind.lower(), tensor.size_bytes or 0
                if value.WhichOneof("value") == "blobFileValue":
                    place = value.blobFileValue.fileName, value.blobFileValue.offset
                    _check_blob(specification, *place, size)
                    if place not in seen:
                        sizes[kind] += size
                    seen.add(place)
                elif tensor.is_float and tensor.sizes:
                    sizes[kind] += size
    return dict(sorted(sizes.items()))


def _check_blob(specification: Specification, file: str, offset: int, size: int) -> None:
    files = specification.files.weight_files
    name = file.removeprefix(_WEIGHT_FOLDER)
    if not file.startswith(_WEIGHT_FOLDER) or name not in files:
        known = ", ".join(sorted(files)) or "none"
        message = f"weights are in {file[:_TEXT]!r}, which is not in the package; its weight files: {known}"
        raise UnusableSpecificationError(message)
    if offset + _HEADER_BYTES + size > files[name]:
        message = f"weights of {size} bytes at {offset} of {name}, which has {files[name]} bytes"
        raise UnusableSpecificationError(f"{message}: it was not copied completely")


def _parameters(block: Any) -> tuple[int, int]:
    """Return how many numbers the operations compute with, and how many of them are stored compressed."""
    operations = list(operations_in(block))
    # What is decompressed in steps is counted once, after the last.
    steps = {
        binding.name
        for operation in operations
        if operation.type.startswith(_COMPRESSED)
        for argument in operation.inputs.values()
        for binding in argument.arguments
        if binding.WhichOneof("binding") == "name"
    }
    plain = compressed = 0
    for operation in operations:
        if operation.type.startswith(_COMPRESSED):
            compressed += sum(map(_numbers, _tensors(operation, without=steps)))
        elif operation.type == "const":
            plain += sum(map(_numbers, _tensors(operation, without=steps)))
    return plain + compressed, compressed


def _tensors(operation: Any, without: set[str]) -> Iterator[Tensor]:
    for output in operation.outputs:
        tensor = tensor_of(output.type)
        if tensor is not None and output.name not in without:
            yield tensor


def _numbers(tensor: Tensor) -> int:
    return (tensor.elements or 0) if tensor.is_float and tensor.sizes else 0


def _flops(function: Any) -> tuple[float | None, dict[str, float]]:
    scope, block = Scope(), block_of(function)
    for value in function.inputs:
        scope.types[value.name] = tensor_of(value.type)
    known, complete = {}, True
    for operation in block.operations:
        scope.learn(operation)
        flops = flops_of(operation, scope)
        if flops:
            known[operation.outputs[0].name] = flops
        # How often what is in a loop or branch is run, only a run tells.
        complete = complete and flops is not None and not any(map(_computes, operation.blocks))
    return sum(known.values()) if complete else None, known


def _computes(block: Any) -> bool:
    return any(operation.type in COUNTED for operation in operations_in(block))
