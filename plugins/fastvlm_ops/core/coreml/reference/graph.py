"""An ONNX graph in the making, with its constants in a file beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

OPSET = 20
_INLINE_BYTES = 1024
_ALIGNMENT = 4096  # so that ONNX Runtime can map them into memory


class WeightFile:
    """Constants of a graph, in one file: a protobuf holds 2 GiB at most, and all of it in memory.

    :param file: that is written
    """

    def __init__(self, file: Path) -> None:
        self._name = file.name
        self._output: IO[bytes] = file.open("wb")

    def add(self, name: str, array: NDArray[Any]) -> TensorProto:
        """Store an array and return the tensor that stands for it."""
        from onnx import TensorProto, helper

        content = np.ascontiguousarray(array)
        self._output.write(bytes(-self._output.tell() % _ALIGNMENT))
        tensor = TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(content.dtype),
            dims=content.shape,
            data_location=TensorProto.EXTERNAL,
        )
        place = {"location": self._name, "offset": self._output.tell(), "length": content.nbytes}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self._output.write(content.data)
        return tensor

    def close(self) -> None:
        """End the file."""
        self._output.close()


class Graph:
    """Nodes and constants. Tensors are known by name; floats are float32 and integers int64 throughout.

    ONNX Runtime lacks kernels of many operations for the narrower integers; what a model declares is restored
    at its outputs, and where a cast narrows.

    :param weights: that large constants go to
    """

    def __init__(self, weights: WeightFile) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._weights = weights
        self._numbers: Iterator[int] = count()
        self._small: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def new_name(self, kind: str) -> str:
        """A name that no tensor has yet."""
        return f"{kind}_{next(self._numbers)}"

    def add(self, kind: str, inputs: Sequence[str], outputs: int, attributes: dict[str, Any]) -> list[str]:
        """Add a node.

        :param kind: of ONNX
        :param inputs: names of tensors; empty for one that is left out
        :param outputs: how many
        :returns: names of its outputs
        """
        from onnx import helper

        names = [self.new_name(kind) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=self.new_name(kind), **attributes))
        return names

    def constant(self, value: Any) -> str:
        """Add a constant, once where it is small.

        :param value: an array or what makes one; its type becomes one of the graph's
        """
        from onnx import numpy_helper

        array = in_graph_type(np.asarray(value))
        if array.nbytes > _INLINE_BYTES:
            name = self.new_name("weight")
            self.constants.append(self._weights.add(name, array))
            return name
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._small:
            self._small[key] = self.new_name("constant")
            self.constants.append(numpy_helper.from_array(array, self._small[key]))
        return self._small[key]

    def take_nodes(self, start: int) -> list[NodeProto]:
        """Remove the nodes from a place on, and return them: they are a branch's."""
        taken = self.nodes[start:]
        del self.nodes[start:]
        return taken


def in_graph_type(array: NDArray[Any]) -> NDArray[Any]:
    """An array in the type that the graph has for it: float32, int64 or bool."""
    if array.dtype == np.bool_:
        return array
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32, copy=False)
    return array.astype(np.int64)
