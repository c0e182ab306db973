"""The child that builds and installs: ``python -m …building_process REQUEST.json ANSWER.json``.

It uses what coremltools has for it, and says what xcodebuild and devicectl said where that fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def main(asked: Path, answered: Path) -> None:
    """Do what a request says.

    :param asked: file with the device, the signing and the folder of the build
    :param answered: file that takes the app's identifier, or the stage that failed and what was said
    """
    request = json.loads(asked.read_bytes())
    stage = "build"
    try:
        app, device = _build(request)
        stage = "install"
        answer = {"bundle": _install(device, app)}
    except Exception as error:
        answer = {"stage": stage, "said": _said(error)}
    answered.write_text(json.dumps(answer))


def _build(request: dict[str, Any]) -> tuple[Path, Any]:
    from coremltools.models.ml_program.experimental import remote_device as remote

    told = request["device"]
    device = remote.Device(
        name=told["name"],
        type=remote.DeviceType(told["kind"]),
        identifier=told["identifier"],
        udid=told["udid"],
        os_version=told["os_version"],
        os_build_number=told["os_build"],
        developer_mode_state=told["developer_mode"],
        state=remote.DeviceState.CONNECTED,
        session=None,
    )
    signing = request["signing"]
    credentials = remote.AppSigningCredentials(
        development_team=signing["team"],
        provisioning_profile_uuid=signing["profile"] or None,
        bundle_identifier=signing["bundle"],
    )
    app = remote._ModelRunnerAppBuilder.build(
        device=device, build_directory=Path(request["build"]), credentials=credentials
    )
    if app is None:
        raise FileNotFoundError("xcodebuild ended well, but built no app")
    return app, device


def _install(device: Any, app: Path) -> str:
    from coremltools.models.ml_program.experimental import remote_device as remote

    return str(remote._DeviceCtl.install_app(device=device, app_path=app).bundle_identifier)


def _said(error: Exception) -> str:
    """Return all that is known: coremltools looks for the text in the stream that it did not record."""
    texts = [str(error)]
    if isinstance(cause := error.__context__, subprocess.CalledProcessError):
        streams = (cause.stdout, cause.stderr)
        texts += [stream.decode(errors="replace") for stream in streams if isinstance(stream, bytes)]
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    wanted = [line for line in lines if "error" in line.lower()]
    return "\n".join(wanted or lines)[-4000:]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
