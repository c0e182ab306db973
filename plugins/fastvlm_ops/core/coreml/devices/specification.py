"""What a backend has to know of a model: its inputs, and the operator behind each output's name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastvlm_ops.core.coreml.devices.interface import FailureCode
from fastvlm_ops.core.coreml.devices.trouble import DeviceTroubleError

if TYPE_CHECKING:
    from coremltools.proto import Model_pb2

_SEED = 1  # of generated inputs: every session predicts from the same ones
_TOKENS = 8  # generated integers are below it: tokens, or indices, that are in every table
# Core ML names an operation by the system that its operator set came with.
_SETS = {"CoreML5": "ios15", "CoreML6": "ios16", "CoreML7": "ios17", "CoreML8": "ios18", "CoreML9": "ios26"}


@dataclass(frozen=True)
class Feature:
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
class Specification:
    """A model, as far as running it goes.

    :param inputs: of it
    :param kinds: operator by the name of an operation's first output
    """

    inputs: tuple[Feature, ...]
    kinds: dict[str, str]


def read_specification(package: Path) -> Specification:
    """Read a package.

    :param package: folder of the ``.mlpackage``
    :raises DeviceTroubleError: it cannot be read, or is no ML program
    """
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError

    try:
        model = Model_pb2.Model.FromString(_model_file(package).read_bytes())
    except (OSError, DecodeError, KeyError, ValueError) as error:
        raise DeviceTroubleError(FailureCode.LOAD_FAILED, f"{package.name} cannot be read: {error}") from error
    if not model.HasField("mlProgram"):
        raise DeviceTroubleError(FailureCode.UNSUPPORTED_MODEL, f"{package.name} holds no ML program")
    kinds: dict[str, str] = {}
    for function in model.mlProgram.functions.values():
        prefix = _SETS.get(function.opset, function.opset)
        _collect(function.block_specializations[function.opset], prefix, kinds)
    return Specification(tuple(_feature(one) for one in model.description.input), kinds)


def make_inputs(specification: Specification, file: Path | None) -> dict[str, np.ndarray]:
    """Return what a session predicts from, of the model's own types.

    :param file: an ``.npz`` with an array an input; generated ones, always the same, where None
    :raises DeviceTroubleError: the file lacks an input, or has one that does not fit
    """
    generator = np.random.default_rng(_SEED)
    if file is None:
        return {one.name: _generated(one, generator) for one in specification.inputs}
    with np.load(file, allow_pickle=False) as given:
        return {one.name: _given(one, given) for one in specification.inputs}


def _given(feature: Feature, given: Any) -> np.ndarray:
    if feature.name not in given:
        detail = f"{feature.name} is not among the inputs that were given: {', '.join(given)}"
        raise DeviceTroubleError(FailureCode.UNSUPPORTED_MODEL, detail)
    array: np.ndarray = given[feature.name]
    if feature.is_image:
        return array
    if feature.shape and array.size != int(np.prod(feature.shape)):
        detail = f"the input {feature.name} has the shape {array.shape}; the model's is {feature.shape}"
        raise DeviceTroubleError(FailureCode.UNSUPPORTED_MODEL, detail)
    return array.astype(feature.kind).reshape(feature.shape or array.shape)


def _generated(feature: Feature, generator: np.random.Generator) -> np.ndarray:
    if feature.is_image:
        return generator.integers(0, 256, (*feature.shape, 3)).astype(np.uint8)
    if feature.kind == "int32":
        return generator.integers(0, _TOKENS, feature.shape).astype(np.int32)
    return generator.random(feature.shape).astype(feature.kind)


def _model_file(package: Path) -> Path:
    manifest = json.loads((package / "Manifest.json").read_bytes())
    entry = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
    file = (package / "Data" / entry["path"]).resolve()
    if not file.is_relative_to(package.resolve()):
        raise ValueError("its manifest leads out of it")
    return file


def _feature(description: Model_pb2.FeatureDescription) -> Feature:
    kind = description.type
    if kind.HasField("imageType"):
        return Feature(description.name, True, (kind.imageType.height, kind.imageType.width), "uint8")
    if not kind.HasField("multiArrayType"):
        detail = f"the input {description.name} is neither array nor image"
        raise DeviceTroubleError(FailureCode.UNSUPPORTED_MODEL, detail)
    array = kind.multiArrayType
    types = {65552: "float16", 65568: "float32", 65600: "float64", 131104: "int32"}
    if array.dataType not in types:
        detail = f"the input {description.name} is of a type that devices cannot be sent"
        raise DeviceTroubleError(FailureCode.UNSUPPORTED_MODEL, detail)
    return Feature(description.name, False, tuple(array.shape), types[array.dataType])


def _collect(block: Any, prefix: str, kinds: dict[str, str]) -> None:
    for operation in block.operations:
        if operation.outputs:
            kinds[operation.outputs[0].name] = f"{prefix}.{operation.type}"
        for inner in operation.blocks:
            _collect(inner, prefix, kinds)
