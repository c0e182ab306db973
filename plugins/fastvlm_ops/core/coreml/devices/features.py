"""What a backend has to know of a model: its inputs, and the operator behind each output's name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastvlm_ops.core.coreml.arrays import Arrays, ArraysError, read_arrays
from fastvlm_ops.core.coreml.devices.interface import FailureCode
from fastvlm_ops.core.coreml.devices.trouble import DeviceTroubleError
from fastvlm_ops.core.coreml.errors import PackageRefusedError
from fastvlm_ops.core.coreml.specification import (
    UnusableSpecificationError,
    block_of,
    operations_in,
    read_specification,
)

_SEED = 1  # of generated inputs: every session predicts from the same ones
_TOKENS = 8  # generated integers are below it: tokens, or indices, that are in every table
# Core ML names an operation by the system that its operator set came with.
_SETS = {"CoreML5": "ios15", "CoreML6": "ios16", "CoreML7": "ios17", "CoreML8": "ios18", "CoreML9": "ios26"}
_KINDS = {"FLOAT16": "float16", "FLOAT32": "float32", "DOUBLE": "float64", "INT32": "int32"}


@dataclass(frozen=True)
class Input:
    """An input of a model.

    :param name: of it
    :param is_image: whether it is one
    :param shape: of an array; of an image: height and width
    :param kind: NumPy's name of the type
    """

    name: str
    is_image: bool
    shape: tuple[int, ...]
    kind: str


@dataclass(frozen=True)
class ModelFeatures:
    """A model, as far as running it goes.

    :param inputs: of it
    :param kinds: operator by the name of an operation's first output
    """

    inputs: tuple[Input, ...]
    kinds: dict[str, str]


def read_features(package: Path) -> ModelFeatures:
    """Read a package.

    :param package: folder of the ``.mlpackage``
    :raises DeviceTroubleError: it is refused, or has inputs that no device can be sent
    """
    try:
        specification = read_specification(package)
        kinds: dict[str, str] = {}
        for function in specification.program.functions.values():
            prefix = _SETS.get(function.opset, function.opset)
            for operation in operations_in(block_of(function)):
                if operation.outputs:
                    kinds[operation.outputs[0].name] = f"{prefix}.{operation.type}"
    except (PackageRefusedError, UnusableSpecificationError) as error:
        raise DeviceTroubleError(FailureCode.LOAD_FAILED, str(error)) from error
    return ModelFeatures(tuple(_input(one) for one in specification.description.input), kinds)


def make_inputs(features: ModelFeatures, file: Path | None) -> dict[str, np.ndarray]:
    """Return what a session predicts from, of the model's own types.

    :param file: an ``.npz`` with an array an input; generated ones, always the same, where None
    :raises DeviceTroubleError: the file lacks an input, or has one that does not fit
    """
    generator = np.random.default_rng(_SEED)
    if file is None:
        return {one.name: _generated(one, generator) for one in features.inputs}
    try:
        given = read_arrays(file)
    except ArraysError as error:
        raise DeviceTroubleError(FailureCode.UNSUPPORTED_MODEL, str(error)) from error
    return {one.name: _given(one, given) for one in features.inputs}


def _given(wanted: Input, given: Arrays) -> np.ndarray:
    if wanted.name not in given:
        detail = f"{wanted.name} is not among the inputs that were given: {', '.join(given)}"
        raise DeviceTroubleError(FailureCode.UNSUPPORTED_MODEL, detail)
    array = given[wanted.name]
    if wanted.is_image:
        return array
    if wanted.shape and array.size != int(np.prod(wanted.shape)):
        detail = f"the input {wanted.name} has the shape {array.shape}; the model's is {wanted.shape}"
        raise DeviceTroubleError(FailureCode.UNSUPPORTED_MODEL, detail)
    return array.astype(wanted.kind).reshape(wanted.shape or array.shape)


def _generated(wanted: Input, generator: np.random.Generator) -> np.ndarray:
    if wanted.is_image:
        return generator.integers(0, 256, (*wanted.shape, 3)).astype(np.uint8)
    if wanted.kind == "int32":
        return generator.integers(0, _TOKENS, wanted.shape).astype(np.int32)
    return generator.random(wanted.shape).astype(wanted.kind)


def _input(described: Any) -> Input:
    kind = described.type.WhichOneof("Type")
    if kind == "imageType":
        image = described.type.imageType
        return Input(described.name, True, (image.height, image.width), "uint8")
    if kind != "multiArrayType":
        detail = f"the input {described.name} is neither array nor image"
        raise DeviceTroubleError(FailureCode.UNSUPPORTED_MODEL, detail)
    array = described.type.multiArrayType
    name = array.ArrayDataType.Name(array.dataType)
    if name not in _KINDS:
        detail = f"the input {described.name} is of the type {name}, which devices cannot be sent"
        raise DeviceTroubleError(FailureCode.UNSUPPORTED_MODEL, detail)
    return Input(described.name, False, tuple(array.shape), _KINDS[name])
