"""Inputs, outputs and states of a program: what they are called, their shapes, types and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastvlm_ops.core.coreml.reference.call import Kind, kind_of, shape_of

if TYPE_CHECKING:
    from fastvlm_ops.core.coreml.reference.loading import LoadedProgram


@dataclass(frozen=True)
class Feature:
    """An input, an output or a state.

    :param name: as the package names it
    :param tensor: its tensor in the ONNX model
    :param shape: None where a dimension is not fixed
    :param dtype: as the program declares it, in NumPy's words: ``float16``, ``int32``
    :param kind: its type in the ONNX model
    :param colour: of a picture: ``RGB``, ``BGR`` or ``GRAYSCALE``; None where it is none
    :param usual_shape: the one that the package names where some dimensions are not fixed
    """

    name: str
    tensor: str
    shape: tuple[int | None, ...]
    dtype: str
    kind: Kind
    colour: str | None = None
    usual_shape: tuple[int, ...] = ()

    @property
    def written_tensor(self) -> str:
        """Of a state: the tensor that holds it after the prediction."""
        return f"{self.tensor}:written"


@dataclass(frozen=True)
class Features:
    """All of a program's."""

    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...]


def features_of(program: LoadedProgram) -> Features:
    """Read them from a program and its package's description."""
    from coremltools.converters.mil.mil import types

    function = program.function
    states = [name for name, variable in function.inputs.items() if types.is_state(variable.sym_type)]
    described = {one.name: one for one in (*program.description.input, *program.description.output)}
    inputs = tuple(
        _feature("input", name, variable, described)
        for name, variable in function.inputs.items()
        if name not in states
    )
    outputs = tuple(_feature("output", one.name, one, described) for one in function.outputs)
    return Features(inputs, outputs, tuple(_state(name, function.inputs[name]) for name in states))


def _feature(prefix: str, name: str, variable: Any, described: Mapping[str, Any]) -> Feature:
    shape = tuple(shape_of(variable))
    said = described.get(name)
    return Feature(
        name,
        f"{prefix}:{name}",
        shape,
        _dtype(variable.dtype),
        kind_of(variable),
        _colour(said) if said else None,
        _usual_shape(shape, said),
    )


def _usual_shape(shape: tuple[int | None, ...], described: Any) -> tuple[int, ...]:
    if described is not None:
        picture = described.type.imageType
        said = [int(size) for size in described.type.multiArrayType.shape]
        if described.type.WhichOneof("Type") == "imageType":
            said = [*(size or 1 for size in shape[:-2]), int(picture.height), int(picture.width)]
        if len(said) == len(shape):
            return tuple(said)
    return tuple(size or 1 for size in shape)


def _state(name: str, variable: Any) -> Feature:
    wrapped = variable.sym_type.wrapped_type()
    primitive = wrapped.get_primitive()
    dtype = np.dtype(_dtype(primitive))
    kind = Kind.FLOAT if dtype.kind == "f" else Kind.BOOL if dtype.kind == "b" else Kind.INT
    return Feature(name, f"state:{name}", tuple(int(size) for size in wrapped.get_shape()), dtype.name, kind)


def _dtype(primitive: Any) -> str:
    from coremltools.converters.mil.mil import types

    return str(np.dtype(types.nptype_from_builtin(primitive)).name)


def _colour(described: Any) -> str | None:
    from coremltools.proto import FeatureTypes_pb2

    if described.type.WhichOneof("Type") != "imageType":
        return None
    layouts = FeatureTypes_pb2.ImageFeatureType.ColorSpace
    return str(layouts.Name(described.type.imageType.colorSpace)).removesuffix("_FLOAT16")


def to_tensor(feature: Feature, value: NDArray[Any]) -> NDArray[Any]:
    """An array as the ONNX model takes it, rounded as the declared type would.

    A picture may be given as pixels (rows x columns, or x 3 with red first, whole numbers from 0 to 255) or
    as the tensor that the program takes.

    :raises ValueError: its shape does not fit
    """
    array = np.asarray(value)
    if feature.colour and array.ndim < len(feature.shape):
        array = _planes(feature, array)
    if len(array.shape) != len(feature.shape) or any(
        size not in (None, given) for size, given in zip(feature.shape, array.shape, strict=True)
    ):
        raise ValueError(f"{feature.name} has shape {list(array.shape)}, expected {list(feature.shape)}")
    declared = array.astype(feature.dtype)
    return np.ascontiguousarray(declared.astype(_HELD[feature.kind]))


def _planes(feature: Feature, pixels: NDArray[Any]) -> NDArray[Any]:
    if feature.colour == "GRAYSCALE":
        return pixels.reshape(1, 1, *pixels.shape[:2])
    if pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise ValueError(f"{feature.name} has shape {list(pixels.shape)}, expected rows x columns x 3")
    ordered = pixels[..., ::-1] if feature.colour == "BGR" else pixels
    return ordered.transpose(2, 0, 1)[None]


def from_tensor(feature: Feature, tensor: NDArray[Any]) -> NDArray[Any]:
    """What the ONNX model gives, in the declared type.

    Floats stay float32, so that parity is not rounded away. A picture becomes pixels: rows x columns, or x 3
    with red first.
    """
    if feature.colour:
        pixels: NDArray[Any] = np.clip(np.rint(tensor[0]), 0, 255).astype(np.uint8)
        if feature.colour == "GRAYSCALE":
            return np.ascontiguousarray(pixels[0])
        ordered = pixels[::-1] if feature.colour == "BGR" else pixels
        return np.ascontiguousarray(ordered.transpose(1, 2, 0))
    return tensor if feature.kind is Kind.FLOAT else tensor.astype(feature.dtype)


def zeros(feature: Feature) -> NDArray[Any]:
    """What a state holds at first."""
    return np.zeros([size or 0 for size in feature.shape], _HELD[feature.kind])


_HELD: dict[Kind, type[np.generic]] = {Kind.FLOAT: np.float32, Kind.INT: np.int64, Kind.BOOL: np.bool_}


def example(feature: Feature, chance: np.random.Generator) -> NDArray[Any]:
    """An input that fits: noise between 0 and 1, of a picture between 0 and 255; zeros of what is no float.

    :param chance: that the noise comes from
    """
    if feature.kind is not Kind.FLOAT:
        return np.zeros(feature.usual_shape, _HELD[feature.kind])
    largest = 255 if feature.colour else 1
    return (chance.random(feature.usual_shape) * largest).astype(np.float32)
