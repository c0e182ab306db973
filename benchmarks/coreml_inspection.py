"""How long it takes to tell what a Core ML package of 500 MiB is."""

from __future__ import annotations

import copy
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure

SIZE_BYTES = 500 * 2**20
_ROUNDS = 5
_DATA = Path("Data") / "com.apple.CoreML"
_FLOAT32 = 11  # of MIL's types


def inspection_figures() -> list[Figure]:
    """Inspect a package of 500 MiB several times.

    coremltools is imported before, as it is once a process and whatever the size of the package.
    """
    from fastvlm_ops.core.coreml.inspecting import inspect_package
    from fastvlm_ops.local.coreml_models import build_model

    folder = Path(tempfile.mkdtemp(prefix="coreml_inspection_"))
    try:
        package = build_model(folder, "VisionEncoder", 1, "slower")
        grow_weights(package, SIZE_BYTES)
        seconds = []
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            inspect_package(package)
            seconds.append(time.perf_counter() - started)
    finally:
        shutil.rmtree(folder)
    return [
        Figure("inspecting a package of 500 MiB, weights unread", statistics.median(seconds), "s", target=1.0)
    ]


def grow_weights(package: Path, size_bytes: int) -> None:
    """Give a package a weight more, of so many bytes, in a file that has a hole there and takes no space.

    :param package: that is changed
    :param size_bytes: of the weight
    """
    weights = package / _DATA / "weights" / "weight.bin"
    offset = weights.stat().st_size
    os.truncate(weights, offset + 64 + size_bytes)

    def add(model: Any) -> None:
        function = model.mlProgram.functions["main"]
        block = function.block_specializations[function.opset]
        constant = copy.deepcopy(next(one for one in block.operations if one.type == "const"))
        constant.outputs[0].name = "huge"
        value = constant.attributes["val"]
        value.Clear()
        for tensor in (constant.outputs[0].type.tensorType, value.type.tensorType):
            tensor.Clear()
            tensor.dataType, tensor.rank = _FLOAT32, 1
            tensor.dimensions.add().constant.size = size_bytes // 4
        value.blobFileValue.fileName = "@model_path/weights/weight.bin"
        value.blobFileValue.offset = offset
        block.operations.insert(0, constant)

    edit_specification(package, add)


def edit_specification(package: Path, edit: Callable[[Any], object]) -> None:
    """Change a package's specification, as whoever writes packages could.

    :param package: that is changed
    :param edit: changes the protobuf
    """
    from coremltools.proto import Model_pb2

    file = package / _DATA / "model.mlmodel"
    model = Model_pb2.Model.FromString(file.read_bytes())
    edit(model)
    file.write_bytes(model.SerializeToString())
