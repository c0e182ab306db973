"""Translates an ML program into an ONNX model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.coreml.errors import UnsupportedOperationError
from fastvlm_ops.core.coreml.reference.call import Call, UnsupportedFormError, constant_value, opset_of
from fastvlm_ops.core.coreml.reference.compression import DECOMPRESSED
from fastvlm_ops.core.coreml.reference.features import Feature, features_of
from fastvlm_ops.core.coreml.reference.graph import OPSET, Graph, WeightFile
from fastvlm_ops.core.coreml.reference.loading import load_program
from fastvlm_ops.core.coreml.reference.registry import translators

if TYPE_CHECKING:
    from onnx import GraphProto, ValueInfoProto

MODEL_FILE, WEIGHT_FILE = "model.onnx", "weights.bin"

# They give what they are given, or parts of it, which are rounded already.
_MOVES = frozenset(
    {
        "band_part",
        "batch_to_space",
        "concat",
        "cond",
        "coreml_update_state",
        "crop",
        "depth_to_space",
        "expand_dims",
        "flatten2d",
        "gather",
        "gather_along_axis",
        "gather_nd",
        "identity",
        "max_pool",
        "maximum",
        "minimum",
        "pixel_shuffle",
        "pixel_unshuffle",
        "read_state",
        "relu",
        "reshape",
        "reshape_like",
        "reverse",
        "reverse_sequence",
        "select",
        "slice_by_index",
        "slice_by_size",
        "slice_update",
        "sliding_windows",
        "space_to_batch",
        "space_to_depth",
        "split",
        "squeeze",
        "stack",
        "tile",
        "topk",
        "transpose",
        "while_loop",
    }
)


class Precision(StrEnum):
    """How results are held.

    ``FP32`` computes throughout in single precision. ``FP16_ROUNDED`` rounds the result of each operation
    that the program types as half precision: what is too large becomes infinite, as on the Neural Engine.
    """

    FP32 = "fp32"
    FP16_ROUNDED = "fp16-rounded"


@dataclass(frozen=True)
class TranslatedOperation:
    """An operation of the program.

    :param name: its first output's
    :param kind: as in ``ios17.conv``
    """

    name: str
    kind: str


@dataclass(frozen=True)
class Translation:
    """An ONNX model in a folder.

    :param file: of the model; its weights are beside it
    :param inputs: that it takes, in the program's order
    :param outputs: that it gives
    :param states: that it reads and writes
    :param operations: that were translated, in the program's order
    """

    file: Path
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...]
    operations: tuple[TranslatedOperation, ...]


def translate(
    package: Path, folder: Path, *, precision: Precision = Precision.FP32, function: str | None = None
) -> Translation:
    """Write an ML program as an ONNX model.

    :param package: the ``.mlpackage``
    :param folder: that the model and its weights are written to
    :param precision: how results are held
    :param function: of the package; the default one where None
    :raises PackageRefusedError: it is broken, or no ML program
    :raises UnsupportedOperationError: operations of it are not translated; all of them are named
    """
    program = load_program(package, function)
    features = features_of(program)
    weights = WeightFile(folder / WEIGHT_FILE)
    try:
        translator = _Translator(Graph(weights), precision)
        graph = translator.program(program.function, features.inputs, features.outputs, features.states)
    finally:
        weights.close()
    file = folder / MODEL_FILE
    _write(graph, file)
    return Translation(file, features.inputs, features.outputs, features.states, tuple(translator.operations))


def _write(graph: GraphProto, file: Path) -> None:
    from onnx import helper

    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], producer_name="fastvlm-ops")
    model.ir_version = 10  # newer ones hold nothing that is used here
    file.write_bytes(model.SerializeToString())


class _Translator:
    """Adds a program's operations to a graph, one by one."""

    def __init__(self, graph: Graph, precision: Precision) -> None:
        self.operations: list[TranslatedOperation] = []
        self._graph = graph
        self._rounds = precision is Precision.FP16_ROUNDED
        self._tensors: dict[Any, str] = {}
        self._states: dict[str, str] = {}
        self._missing: set[str] = set()

    def program(
        self,
        function: Any,
        inputs: tuple[Feature, ...],
        outputs: tuple[Feature, ...],
        states: tuple[Feature, ...],
    ) -> GraphProto:
        """The graph of a whole function."""
        from onnx import helper

        for feature in inputs:
            self._tensors[function.inputs[feature.name]] = feature.tensor
        self._states = {state.name: state.tensor for state in states}
        results = self.block(function, {})
        if self._missing:
            raise UnsupportedOperationError(tuple(sorted(self._missing)))
        named = [
            *((result, output.tensor) for result, output in zip(results, outputs, strict=True)),
            *((self._states[state.name], state.written_tensor) for state in states),
        ]
        nodes = [helper.make_node("Identity", [result], [name]) for result, name in named]
        return helper.make_graph(
            [*self._graph.nodes, *nodes],
            "program",
            [_value(one.tensor, one) for one in (*inputs, *states)],
            [_value(one.tensor, one) for one in outputs]
            + [_value(one.written_tensor, one) for one in states],
            initializer=self._graph.constants,
        )

    def block(self, block: Any, bound: Mapping[Any, str]) -> list[str]:
        """Add a block's operations.

        :param bound: its inputs and their tensors
        :returns: tensors of its outputs
        """
        self._tensors.update(bound)
        for operation in block.operations:
            if operation.op_type == "const" or operation.op_type in DECOMPRESSED:
                continue  # they are added where they are used
            kind = f"{opset_of(operation).lower()}.{operation.op_type}"
            self.operations.append(TranslatedOperation(operation.outputs[0].name, kind))
            if any(output.val is None for output in operation.outputs):
                self._add(operation)
        return [self._tensor(output) for output in block.outputs]

    def _add(self, operation: Any) -> None:
        kind = operation.op_type
        call = Call(operation, self._graph, self._tensor, self._states, self.block)
        try:
            translator = translators().get(kind)
            if translator is None:
                raise UnsupportedFormError("")
            made = translator(call)
        except UnsupportedFormError as error:
            reason = f": {error}" if str(error) else ""
            self._missing.add(f"{kind} ({call.opset}){reason}")
            made = [self._graph.new_name("missing") for _ in operation.outputs]
        names = [made] if isinstance(made, str) else list(made)
        for variable, name in zip(operation.outputs, names, strict=True):
            self._tensors[variable] = self._rounded(variable, name) if kind not in _MOVES else name

    def _tensor(self, variable: Any) -> str:
        """The tensor of a variable; constants are added when they are first used."""
        if variable not in self._tensors:
            value = constant_value(variable)
            if value is None:
                raise UnsupportedFormError(f"{variable.name} is made by nothing that is translated")
            self._tensors[variable] = self._graph.constant(value)
        return self._tensors[variable]

    def _rounded(self, variable: Any, tensor: str) -> str:
        from coremltools.converters.mil.mil import types
        from onnx import TensorProto

        if not self._rounds or variable.dtype != types.fp16:
            return tensor
        half = self._graph.add("Cast", [tensor], 1, {"to": TensorProto.FLOAT16})
        return self._graph.add("Cast", half, 1, {"to": TensorProto.FLOAT})[0]


def _value(name: str, feature: Feature) -> ValueInfoProto:
    from onnx import TensorProto, helper

    shape = [f"{feature.name}_{axis}" if size is None else size for axis, size in enumerate(feature.shape)]
    return helper.make_tensor_value_info(name, getattr(TensorProto, feature.kind), shape)
