"""Compiles a package to what devices load, by Xcode's compiler."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastvlm_ops.core.coreml.devices.interface import FailureCode
from fastvlm_ops.core.coreml.devices.trouble import DeviceTroubleError, trouble
from fastvlm_ops.core.programs import ProgramError, ProgramTimeoutError, run

COMPILED = "model.mlmodelc"


def compile_package(package: Path, folder: Path, environment: Mapping[str, str], seconds: float) -> Path:
    """Compile a package.

    :param package: folder of the ``.mlpackage``
    :param folder: an empty one that takes the result
    :param environment: of the programs
    :param seconds: that it may take
    :returns: folder of the ``.mlmodelc``
    :raises DeviceTroubleError: it cannot be compiled
    """
    arguments = ["xcrun", "coremlcompiler", "compile", str(package.resolve()), str(folder.resolve())]
    try:
        run(arguments, name="coremlcompiler", environment=environment, timeout_seconds=seconds)
    except ProgramTimeoutError as error:
        raise DeviceTroubleError(FailureCode.TIMED_OUT, str(error)) from error
    except ProgramError as error:
        if isinstance(error.__cause__, OSError):
            raise DeviceTroubleError(
                FailureCode.NO_TOOLCHAIN, f"{error}; install Xcode on the worker"
            ) from error
        raise trouble(FailureCode.LOAD_FAILED, f"{package.name} cannot be compiled", error.tail()) from error
    made = sorted(folder.glob("*.mlmodelc"))
    if len(made) != 1:
        raise DeviceTroubleError(FailureCode.LOAD_FAILED, f"coremlcompiler made nothing of {package.name}")
    return made[0].rename(folder / COMPILED)
