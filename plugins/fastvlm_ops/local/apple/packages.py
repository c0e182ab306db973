"""Reads packages, and compiles them in the stand-in's own way: into a folder that the stand-in can run."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

STAND_IN = "stand-in.json"
PACKAGE = "package.mlpackage"
_HEAVY = {"conv", "linear", "matmul", "einsum", "conv_transpose", "scaled_dot_product_attention"}
_MANY = 64  # a heavy operation counts as so many light ones for each element of its output
_SETS = {"CoreML5": "ios15", "CoreML6": "ios16", "CoreML7": "ios17", "CoreML8": "ios18", "CoreML9": "ios26"}
_TYPES = {65552: "Float16", 65568: "Float32", 65600: "Float64", 131104: "Int32"}


class BrokenPackageError(Exception):
    """A package cannot be compiled."""


def compile_package(package: Path, destination: Path) -> None:
    """Compile a package.

    :param package: folder of the ``.mlpackage``
    :param destination: folder of the ``.mlmodelc``, which is made
    :raises BrokenPackageError: it cannot be read
    """
    description = describe(package)
    destination.mkdir(parents=True)
    shutil.copytree(package, destination / PACKAGE)
    (destination / STAND_IN).write_text(json.dumps(description))


def describe(package: Path) -> dict[str, Any]:
    """Return what the stand-in has to know of a package: name, inputs and outputs, operations and their work.

    :raises BrokenPackageError: it cannot be read
    """
    try:
        manifest = json.loads((package / "Manifest.json").read_bytes())
        entry = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
        model = _messages().Model.FromString((package / "Data" / entry["path"]).read_bytes())
    except Exception as error:  # protobuf's own, and whatever a broken manifest leads to
        raise BrokenPackageError(f"{package}: unable to read the model: {error}") from error
    if not model.HasField("mlProgram"):
        raise BrokenPackageError(f"{package}: compiler error: the model is no ML program")
    operations: list[dict[str, Any]] = []
    for function in model.mlProgram.functions.values():
        prefix = _SETS.get(function.opset, function.opset)
        _collect(function.block_specializations[function.opset], prefix, operations)
    return {
        "name": package.stem,
        "specification": model.specificationVersion,
        "functions": list(model.mlProgram.functions),
        "operations": operations,
        "inputs": [_feature(one) for one in model.description.input],
        "outputs": [_feature(one) for one in model.description.output],
        "stateful": bool(model.description.state),
    }


def _messages() -> Any:
    """Import the messages alone: all of coremltools takes seconds, and a device's app starts often."""
    if "coremltools" not in sys.modules:
        found = importlib.util.find_spec("coremltools")
        if found is None:
            raise BrokenPackageError("coremltools is not installed")
        module = types.ModuleType("coremltools")
        module.__path__ = list(found.submodule_search_locations or [])
        sys.modules["coremltools"] = module
        try:
            from coremltools.proto import Model_pb2
        finally:
            del sys.modules["coremltools"]
        return Model_pb2
    from coremltools.proto import Model_pb2

    return Model_pb2


def _collect(block: Any, prefix: str, operations: list[dict[str, Any]]) -> None:
    for operation in block.operations:
        if operation.type == "const" or not operation.outputs:
            continue
        elements = 1
        for dimension in operation.outputs[0].type.tensorType.dimensions:
            elements *= max(int(dimension.constant.size), 1)
        folded = operation.type.startswith("constexpr_")
        work = 0.0 if folded else float(elements * (_MANY if operation.type in _HEAVY else 1))
        outputs = [output.name for output in operation.outputs]
        described = {"outputs": outputs, "kind": operation.type, "set": prefix, "work": work}
        operations.append({**described, "elements": 0 if folded else elements})
        for inner in operation.blocks:
            _collect(inner, prefix, operations)


def _feature(description: Any) -> dict[str, Any]:
    if description.type.HasField("imageType"):
        image = description.type.imageType
        return {"name": description.name, "type": "Image", "shape": [image.height, image.width]}
    array = description.type.multiArrayType
    kind = _TYPES.get(array.dataType, "Float32")
    return {"name": description.name, "type": kind, "shape": list(array.shape)}
