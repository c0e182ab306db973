"""Reads a package into a program of coremltools, and tells what of it cannot be translated."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvlm_ops.core.coreml.errors import PackageRefusedError, UnsupportedOperationError


@dataclass(frozen=True)
class LoadedProgram:
    """A function of a package, with what the package says of its inputs and outputs.

    :param function: of coremltools, with operations, inputs and outputs
    :param description: of the package's inputs and outputs
    """

    function: Any
    description: Any


def load_program(package: Path, function: str | None = None) -> LoadedProgram:
    """Read a function of a package.

    :param package: the ``.mlpackage``
    :param function: its name; the default one where None
    :raises PackageRefusedError: it is broken, or no ML program
    :raises UnsupportedOperationError: it has operations that coremltools does not know
    """
    quiet_coremltools()
    from coremltools.converters.mil.frontend.milproto.load import load as load_mil
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError

    file, weights = _files(package)
    try:
        specification = Model_pb2.Model.FromString(file.read_bytes())
    except DecodeError as error:
        raise PackageRefusedError(package, f"{file.name} is damaged: {error}") from error
    if specification.WhichOneof("Type") != "mlProgram":
        kind = specification.WhichOneof("Type") or "nothing"
        raise PackageRefusedError(package, f"it holds {kind}, expected an ML program")
    _refuse_unknown(specification.mlProgram)
    try:
        program = load_mil(specification, specification.specificationVersion, str(weights))
    except Exception as error:  # coremltools raises whatever happens to it
        raise PackageRefusedError(package, f"coremltools cannot read it: {error}") from error
    name = function or specification.description.defaultFunctionName or "main"
    if name not in program.functions:
        raise PackageRefusedError(package, f"no function {name}; it has {', '.join(program.functions)}")
    return LoadedProgram(program.functions[name], _description(specification, name))


def quiet_coremltools() -> None:
    """Keep coremltools from warning that no model can be run here: that is what this is for."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)


def _description(specification: Any, function: str) -> Any:
    for one in specification.description.functions:
        if one.name == function:
            return one
    return specification.description


def _refuse_unknown(program: Any) -> None:
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    unknown = {
        f"{operation.type} ({function.opset})"
        for function in program.functions.values()
        for block in function.block_specializations.values()
        for operation in _operations(block)
        if operation.type not in SSAOpRegistry.core_ops and operation.type != "write_state"
    }
    if unknown:
        raise UnsupportedOperationError(tuple(sorted(unknown)))


def _operations(block: Any) -> list[Any]:
    found = []
    for operation in block.operations:
        found.append(operation)
        for inner in operation.blocks:
            found.extend(_operations(inner))
    return found


def _files(package: Path) -> tuple[Path, Path]:
    manifest = json.loads((package / "Manifest.json").read_text())
    model = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
    file = package / "Data" / model
    return file, file.parent / "weights"
