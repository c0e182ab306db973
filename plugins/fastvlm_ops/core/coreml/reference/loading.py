"""Reads a package into a program of coremltools, and tells what of it cannot be translated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvlm_ops.core.coreml.errors import PackageRefusedError, UnsupportedOperationError
from fastvlm_ops.core.coreml.inspecting import inspect_package
from fastvlm_ops.core.coreml.specification import block_of, operations_in, read_specification

_WRITE_STATE = "write_state"  # stands in packages only: coremltools reads it as another


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
    :raises PackageRefusedError: it is broken, hostile, or no ML program
    :raises UnsupportedOperationError: it has operations that coremltools does not know
    """
    inspect_package(package)  # refuses what must not reach coremltools, which believes all it reads
    specification = read_specification(package)
    from coremltools.converters.mil.frontend.milproto.load import load as load_mil

    _refuse_unknown(specification.program)
    weights = specification.files.model_file.parent / "weights"
    try:
        program = load_mil(specification.model, specification.model.specificationVersion, str(weights))
    except Exception as error:  # coremltools raises whatever happens to it
        raise PackageRefusedError(package, f"coremltools cannot read it: {error}") from error
    name = function or specification.default_function
    if name not in program.functions:
        raise PackageRefusedError(package, f"has no function {name}; it has {', '.join(program.functions)}")
    described = [one for one in specification.model.description.functions if one.name == name]
    return LoadedProgram(program.functions[name], described[0] if described else specification.description)


def _refuse_unknown(program: Any) -> None:
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    unknown = {
        f"{operation.type} ({function.opset})"
        for function in program.functions.values()
        for operation in operations_in(block_of(function))
        if operation.type not in SSAOpRegistry.core_ops and operation.type != _WRITE_STATE
    }
    if unknown:
        raise UnsupportedOperationError(tuple(sorted(unknown)))
