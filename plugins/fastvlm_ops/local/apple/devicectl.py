"""devicectl of the stand-in."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastvlm_ops.local.apple.script import FaultKind, ScriptedDevice
from fastvlm_ops.local.apple.state import VARIABLE, State, is_alive

_GONE = "The device was disconnected; a connection to it could not be established."


class FailedError(Exception):
    """A command fails.

    :param text: what is said of it
    :param reason: what lies beneath
    """

    def __init__(self, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.reason = reason


def run(state: State, arguments: Sequence[str]) -> int:
    """Run a command.

    :returns: its exit code
    """
    options = _parser().parse_args(arguments)
    try:
        result = options.run(state, options)
    except FailedError as error:
        sys.stderr.write(f"ERROR: {error.text} (com.apple.dt.CoreDeviceError error 1.)\n{error.reason}\n")
        information: dict[str, Any] = {"NSLocalizedDescription": {"string": error.text}}
        if error.reason:
            beneath = {"userInfo": {"NSLocalizedDescription": {"string": error.reason}}}
            information["NSUnderlyingError"] = {"error": beneath}
        said = {"code": 1, "domain": "com.apple.dt.CoreDeviceError", "userInfo": information}
        _answer(options, {"error": said, "info": {"outcome": "failed"}})
        return 1
    if isinstance(result, int):
        return result
    _answer(options, {"info": {"outcome": "success", "jsonVersion": 2}, "result": result})
    return 0


def _answer(options: argparse.Namespace, content: dict[str, Any]) -> None:
    if options.json_output:
        Path(options.json_output).write_text(json.dumps(content))


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("-j", "--json-output", default="")
    shared.add_argument("-d", "--device", default="")
    parser = argparse.ArgumentParser(prog="devicectl")
    commands: dict[tuple[str, ...], Any] = {(): parser.add_subparsers(required=True)}

    def add(name: str, function: Any) -> argparse.ArgumentParser:
        *path, last = name.split()
        for depth in range(1, len(path) + 1):
            key = tuple(path[:depth])
            if key not in commands:
                commands[key] = commands[key[:-1]].add_parser(key[-1]).add_subparsers(required=True)
        command: argparse.ArgumentParser = commands[tuple(path)].add_parser(last, parents=[shared])
        command.set_defaults(run=function)
        return command

    add("list devices", _list)
    add("device info details", _details)
    add("device info lockState", _lock_state)
    add("device info apps", _apps).add_argument("--bundle-id", default="")
    add("device info processes", _processes)
    add("device install app", _install).add_argument("path")
    add("device uninstall app", _uninstall).add_argument("bundle")
    launch = add("device process launch", _launch)
    launch.add_argument("--console", action="store_true")
    launch.add_argument("--terminate-existing", action="store_true")
    launch.add_argument("bundle")
    terminate = add("device process terminate", _terminate)
    terminate.add_argument("-p", "--pid", type=int, required=True)
    terminate.add_argument("--kill", action="store_true")
    for name, function in (("device copy to", _copy_to), ("device copy from", _copy_from)):
        command = add(name, function)
        command.add_argument("--source", required=True)
        command.add_argument("--destination", required=True)
        command.add_argument("-u", "--user", default="")
        command.add_argument("--domain-type", required=True, choices=["appDataContainer", "temporary"])
        command.add_argument("--domain-identifier", required=True)
        command.add_argument("-r", "--remove-existing-content", default="false")
    return parser


def _list(state: State, options: argparse.Namespace) -> dict[str, Any]:
    if state.fault(FaultKind.LISTING, ""):
        raise FailedError("CoreDeviceService was unable to start.")
    return {"devices": [_described(state, device) for device in state.script.devices]}


def _described(state: State, device: ScriptedDevice) -> dict[str, Any]:
    woken = device.state == "disconnected" and (state.home(device) / "woken").exists()
    tunnel = "unavailable" if state.has_gone(device) else "connected" if woken else device.state
    return {
        "capabilities": [],
        "connectionProperties": {"pairingState": "paired", "transportType": "wired", "tunnelState": tunnel},
        "deviceProperties": {
            "bootState": "booted",
            "developerModeStatus": "enabled" if device.developer_mode else "disabled",
            "name": device.name,
            "osBuildUpdate": device.os_build,
            "osVersionNumber": device.os_version,
        },
        "hardwareProperties": {
            "deviceType": device.kind,
            "marketingName": device.name,
            "productType": device.model,
            "reality": "simulated" if device.simulated else "physical",
            "udid": device.udid,
        },
        "identifier": device.identifier,
        "visibilityClass": "default",
    }


def _there(state: State, options: argparse.Namespace) -> ScriptedDevice:
    device = state.device(options.device)
    if device is None:
        raise FailedError("The specified device was not found.")
    if state.has_gone(device) or device.state == "unavailable":
        raise FailedError(f"{_GONE} (device {device.identifier}, {device.udid})")
    (state.home(device) / "woken").touch()
    return device


def _installed(state: State, device: ScriptedDevice, bundle: str) -> Path:
    app = state.app(device, bundle)
    if not app.is_dir():
        raise FailedError(f"The application {bundle} is not installed.")
    return app


def _details(state: State, options: argparse.Namespace) -> dict[str, Any]:
    return _described(state, _there(state, options))


def _lock_state(state: State, options: argparse.Namespace) -> dict[str, Any]:
    device = _there(state, options)
    return {
        "deviceIdentifier": device.identifier,
        "passcodeRequired": device.locked,
        "unlockedSinceBoot": True,
    }


def _apps(state: State, options: argparse.Namespace) -> dict[str, Any]:
    device = _there(state, options)
    names = sorted(path.name for path in (state.home(device) / "apps").glob("*"))
    return {
        "apps": [
            {
                "bundleIdentifier": name,
                "url": f"file:///private/var/containers/Bundle/{name}/ModelRunner.app/",
            }
            for name in names
            if options.bundle_id in ("", name)
        ]
    }


def _processes(state: State, options: argparse.Namespace) -> dict[str, Any]:
    device = _there(state, options)
    running = [{"executable": "file:///sbin/launchd", "processIdentifier": 1}]
    for file in (state.home(device) / "apps").glob("*/pid"):
        pid = int(file.read_text() or 0)
        if is_alive(pid):
            path = f"file:///private/var/containers/Bundle/{file.parent.name}/ModelRunner.app/ModelRunner"
            running.append({"executable": path, "processIdentifier": pid})
    return {"runningProcesses": running}


def _install(state: State, options: argparse.Namespace) -> dict[str, Any]:
    device = _there(state, options)
    if not device.developer_mode:
        raise FailedError("Developer Mode is disabled.")
    if state.fault(FaultKind.INSTALL, device.name):
        reason = "Attempted to install an application without a valid executable."
        raise FailedError("Unable to install the app.", reason)
    bundle = (Path(options.path) / "bundle").read_text()
    state.container(device, bundle).mkdir(parents=True, exist_ok=True)
    identifier = "00000000-0000-0000-0000-000000000000"
    return {"installedApplications": [{"bundleID": bundle, "databaseUUID": identifier}]}


def _uninstall(state: State, options: argparse.Namespace) -> dict[str, Any]:
    app = _installed(state, _there(state, options), options.bundle)
    shutil.rmtree(app)
    return {}


def _launch(state: State, options: argparse.Namespace) -> int:
    """Start the app as a process of its own, hold its console, and hand signals on to it."""
    device = _there(state, options)
    app = _installed(state, device, options.bundle)
    if device.locked:
        raise FailedError(
            "The application failed to launch.", "Unable to launch because the device was locked."
        )
    if state.fault(FaultKind.CRASH_ON_LAUNCH, device.name):
        sys.stderr.write("App terminated due to signal 6.\n")
        return 1
    code = (
        f"import sys; sys.path[:0] = {sys.path[:1]!r}; "
        "from fastvlm_ops.local.apple.runner import main; sys.exit(main(*sys.argv[1:]))"
    )
    child = subprocess.Popen(
        [sys.executable, "-E", "-c", code, os.environ[VARIABLE], device.identifier, options.bundle],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    (app / "pid").write_text(str(child.pid))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: child.terminate())
    status = child.wait()
    (app / "pid").unlink(missing_ok=True)
    if status < 0:
        sys.stderr.write(f"App terminated due to signal {-status}.\n")
    return 1 if status else 0


def _terminate(state: State, options: argparse.Namespace) -> dict[str, Any]:
    device = _there(state, options)
    pids = {int(file.read_text() or 0) for file in (state.home(device) / "apps").glob("*/pid")}
    if options.pid not in pids:
        raise FailedError(f"No process with the identifier {options.pid}.")
    os.kill(options.pid, signal.SIGKILL if options.kill else signal.SIGTERM)
    return {}


def _copy_to(state: State, options: argparse.Namespace) -> dict[str, Any]:
    device = _there(state, options)
    app = _installed(state, device, options.domain_identifier)
    if state.fault(FaultKind.HANG, device.name):
        from fastvlm_ops.local.apple.programs import hang

        hang()
    source, target = Path(options.source), app / "container" / options.destination
    if options.remove_existing_content == "true" and source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
    elif state.fault(FaultKind.DISK_FULL, device.name):
        raise FailedError("The file could not be copied.", "No space left on device")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)
    return {"source": str(source), "destination": options.destination}


def _copy_from(state: State, options: argparse.Namespace) -> dict[str, Any]:
    app = _installed(state, _there(state, options), options.domain_identifier)
    source = app / "container" / options.source
    if not source.is_file():
        raise FailedError("The file could not be opened because there is no such file.")
    shutil.copyfile(source, options.destination)
    return {"source": options.source, "destination": options.destination}
