"""Builds the ModelRunner app and installs it on a device, by coremltools' own code in a child process.

That code hands credentials and paths to a shell, waits without end, and keeps what xcodebuild says to itself.
So all that it gets is checked before, and it runs in a process that is killed with all it started.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastvlm_ops.core.coreml.devices.checks import Signing, check_identifier, check_path, check_signing
from fastvlm_ops.core.coreml.devices.devicectl import AppleDevice
from fastvlm_ops.core.coreml.devices.interface import FailureCode
from fastvlm_ops.core.coreml.devices.trouble import DeviceTroubleError, trouble
from fastvlm_ops.core.programs import ProgramError, ProgramTimeoutError, run

_BUILD_SECONDS = 900.0


@dataclass(frozen=True)
class _Stage:
    name: str
    otherwise: FailureCode


_BUILD = _Stage("build", FailureCode.BUILD_FAILED)
_INSTALL = _Stage("install", FailureCode.INSTALL_FAILED)


def coremltools_version() -> str:
    """Return the version of coremltools; empty where it is not installed."""
    try:
        return version("coremltools")
    except PackageNotFoundError:
        return ""


def install_runner(
    device: AppleDevice,
    signing: Signing,
    folder: Path,
    environment: Mapping[str, str],
    seconds: float = _BUILD_SECONDS,
) -> str:
    """Build the app where it is not built yet, and install it.

    :param device: that it is installed on
    :param signing: what it is signed with
    :param folder: that builds are kept in
    :param environment: of the programs
    :param seconds: that both may take
    :returns: the identifier of the app
    :raises DeviceTroubleError: a credential or path has a wrong form, or it cannot be signed, built or
        installed
    """
    check_signing(signing)
    check_identifier(device.udid)
    check_identifier(device.identifier)
    check_path(folder, "the folder of builds")
    build = folder / _key(signing, environment)
    build.mkdir(parents=True, exist_ok=True, mode=0o700)
    request = {"device": asdict(device), "signing": asdict(signing), "build": str(build)}
    answer = _in_child(request, environment, seconds)
    bundle = answer.get("bundle")
    if not isinstance(bundle, str) or not bundle:
        stage = _INSTALL if answer.get("stage") == _INSTALL.name else _BUILD
        said = str(answer.get("said", ""))
        raise trouble(stage.otherwise, f"the runner app's {stage.name} failed", said)
    check_signing(Signing(bundle=bundle))
    return bundle


def _key(signing: Signing, environment: Mapping[str, str]) -> str:
    """Name a folder of builds by all that a build depends on: coremltools takes any app that lies there."""
    text = json.dumps([coremltools_version(), environment.get("DEVELOPER_DIR", ""), asdict(signing)])
    return f"runner-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _in_child(request: Mapping[str, Any], environment: Mapping[str, str], seconds: float) -> dict[str, Any]:
    if not coremltools_version():
        detail = "coremltools is not installed; install fastvlm-ops[coreml] on the worker"
        raise DeviceTroubleError(FailureCode.NO_TOOLCHAIN, detail)
    with tempfile.TemporaryDirectory(prefix="fastvlm-runner-") as name:
        asked, answered = Path(name) / "request.json", Path(name) / "answer.json"
        asked.touch(mode=0o600)
        asked.write_text(json.dumps(request))
        try:
            run(
                [sys.executable, "-m", f"{__package__}.building_process", str(asked), str(answered)],
                name="the build of the runner app",
                environment=child_environment(environment),
                timeout_seconds=seconds,
            )
        except ProgramTimeoutError as error:
            raise DeviceTroubleError(FailureCode.TIMED_OUT, str(error)) from error
        except ProgramError as error:
            raise trouble(FailureCode.BUILD_FAILED, str(error), error.tail()) from error
        answer: dict[str, Any] = json.loads(answered.read_bytes())
        return answer


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which this package is found by a child, wherever it was imported from."""
    root = str(Path(__file__).resolve().parents[4])
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path != root]
    return {**environment, "PYTHONPATH": os.pathsep.join([*paths, root])}
