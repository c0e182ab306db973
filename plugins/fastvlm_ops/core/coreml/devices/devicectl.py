"""Client of ``xcrun devicectl``: argument lists, never a shell; answers as JSON; every call with an end.

coremltools has a client too, which hands unquoted text to a shell and waits for ten seconds at most.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastvlm_ops.core.coreml.devices.interface import FailureCode
from fastvlm_ops.core.coreml.devices.trouble import DeviceTroubleError, trouble
from fastvlm_ops.core.programs import ProgramError, ProgramTimeoutError, run

_CALL_SECONDS = 30.0
_PATIENCE_SECONDS = 5.0  # between asking an app to end and killing what holds its console
_LOG_BYTES = 4096


@dataclass(frozen=True)
class AppleDevice:
    """A device as devicectl lists it.

    :param identifier: CoreDevice's own name for it
    :param udid: the device's
    :param name: that its owner gave it
    :param kind: ``iphone``, ``ipad``, ``mac`` or another
    :param model: ``iPhone16,1``
    :param os_version: ``18.1``
    :param os_build: ``22B83``
    :param developer_mode: ``enabled``, ``disabled``, or empty where it is not told
    :param state: of the tunnel to it: ``connected``, ``disconnected``, ``unavailable`` …
    """

    identifier: str = field(repr=False)
    udid: str = field(repr=False)
    name: str
    kind: str
    model: str
    os_version: str
    os_build: str
    developer_mode: str
    state: str

    @property
    def user(self) -> tuple[str, ...]:
        """Arguments that name the user whose container is meant; a Mac needs none."""
        return () if self.kind == "mac" else ("--user", "mobile")


@dataclass(frozen=True)
class Container:
    """The folder of an app's data on a device.

    :param device: the device
    :param bundle: the app's identifier
    """

    device: AppleDevice
    bundle: str

    @property
    def arguments(self) -> tuple[str, ...]:
        """What names it to devicectl."""
        domain = ("--domain-type", "appDataContainer", "--domain-identifier", self.bundle)
        return ("--device", self.device.identifier, *self.device.user, *domain)


class AppProcess:
    """An app that runs on a device, by the process that holds its console here.

    :param child: devicectl, the leader of its session
    :param log: file of what the app and devicectl write
    """

    def __init__(self, child: subprocess.Popen[bytes], log: Path) -> None:
        self._child = child
        self._log = log

    @property
    def alive(self) -> bool:
        """Whether the app still runs, as far as is known here."""
        return self._child.poll() is None

    def said(self) -> str:
        """Return the end of what the app and devicectl wrote."""
        with contextlib.suppress(OSError), self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - _LOG_BYTES))
            return file.read().decode(errors="replace")
        return ""

    def stop(self) -> None:
        """End it: devicectl hands the signal on to the app, and is killed with all it started if it stays."""
        with contextlib.suppress(ProcessLookupError):
            if self.alive:
                self._child.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._child.wait(_PATIENCE_SECONDS)
            if self.alive:
                os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()


class DeviceCtl:
    """Runs devicectl.

    :param environment: of the programs; this process's where None
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = environment

    @property
    def environment(self) -> dict[str, str]:
        """The programs' environment."""
        return dict(os.environ if self._environment is None else self._environment)

    def devices(self) -> list[AppleDevice]:
        """List all devices that this Mac knows, connected or not.

        :raises DeviceTroubleError: devicectl is not there or fails
        """
        result = self._result(("list", "devices"), FailureCode.NO_TOOLCHAIN)
        found = (_device(entry) for entry in _list(result, "devices"))
        return [device for device in found if device is not None]

    def connect(self, device: AppleDevice) -> None:
        """Open the tunnel to a device: devicectl does so only when it is asked for something.

        :raises DeviceTroubleError: the device does not answer
        """
        arguments = ("device", "info", "details", "--device", device.identifier)
        self._result(arguments, FailureCode.DEVICE_DISCONNECTED)

    def is_locked(self, device: AppleDevice) -> bool | None:
        """Tell whether a device waits for its passcode; None where that is not known."""
        arguments = ("device", "info", "lockState", "--device", device.identifier)
        try:
            locked = self._result(arguments, FailureCode.INTERNAL).get("passcodeRequired")
        except DeviceTroubleError:
            return None
        return locked if isinstance(locked, bool) else None

    def awake(self, identifier: str) -> AppleDevice | None:
        """Return a device as it is now, with its tunnel opened where it slept; None where it is not known.

        :param identifier: devicectl's
        :raises DeviceTroubleError: devicectl is not there or fails
        """
        found = self._listed(identifier)
        if found is not None and found.state not in ("connected", "unavailable"):
            with contextlib.suppress(DeviceTroubleError):
                self.connect(found)
                found = self._listed(identifier)
        return found

    def _listed(self, identifier: str) -> AppleDevice | None:
        return next((one for one in self.devices() if one.identifier == identifier), None)

    def installed_at(self, container: Container) -> str:
        """Return where on the device an app is installed, as a URL; empty where it is not.

        :raises DeviceTroubleError: the device does not answer
        """
        device = ("--device", container.device.identifier)
        arguments = ("device", "info", "apps", *device, "--bundle-id", container.bundle)
        apps = _list(self._result(arguments, FailureCode.DEVICE_DISCONNECTED), "apps")
        mine = (one for one in apps if one.get("bundleIdentifier") == container.bundle)
        return next((str(one.get("url", "")) for one in mine), "")

    def launch(self, container: Container, log: Path) -> AppProcess:
        """Launch an app, and hold its console. One that runs already is ended first.

        :param container: of the app
        :param log: file that takes what it writes
        :raises DeviceTroubleError: devicectl is not there
        """
        flags = ("--console", "--terminate-existing", "--device", container.device.identifier)
        arguments = ["xcrun", "devicectl", "device", "process", "launch", *flags, container.bundle]
        with log.open("wb") as output:
            try:
                child = subprocess.Popen(
                    arguments,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    umask=0o077,
                )
            except OSError as error:
                raise _no_toolchain(error.strerror or "") from error
        return AppProcess(child, log)

    def end_app(self, container: Container) -> None:
        """Kill all processes of an app.

        :raises DeviceTroubleError: the device does not answer
        """
        bundle = self.installed_at(container)
        device = ("--device", container.device.identifier)
        result = self._result(("device", "info", "processes", *device), FailureCode.DEVICE_DISCONNECTED)
        for one in _list(result, "runningProcesses"):
            if bundle and str(one.get("executable", "")).startswith(bundle):
                arguments = ("device", "process", "terminate", *device)
                with contextlib.suppress(DeviceTroubleError):  # it may have ended by itself
                    pid = str(one.get("processIdentifier"))
                    self._result((*arguments, "--pid", pid, "--kill"), FailureCode.INTERNAL)

    def uninstall(self, container: Container) -> None:
        """Remove an app with all its data.

        :raises DeviceTroubleError: that failed
        """
        arguments = ("device", "uninstall", "app", "--device", container.device.identifier, container.bundle)
        self._result(arguments, FailureCode.INTERNAL)

    def copy_to(
        self, container: Container, source: Path, destination: str, seconds: float, *, replace: bool = False
    ) -> None:
        """Copy a file or folder into an app's container.

        :param source: an absolute path here
        :param destination: a path within the container
        :param seconds: that it may take
        :param replace: whether what the destination holds is removed first
        :raises DeviceTroubleError: that failed
        """
        paths = ("--source", str(source.resolve()), "--destination", destination)
        more = ("--remove-existing-content", "true") if replace else ()
        arguments = ("device", "copy", "to", *container.arguments, *paths, *more)
        self._result(arguments, FailureCode.INTERNAL, seconds)

    def copy_from(self, container: Container, source: str, destination: Path, seconds: float) -> bool:
        """Copy a file out of an app's container.

        :param source: a path within the container
        :param destination: an absolute path here
        :param seconds: that it may take
        :returns: whether it came. devicectl does not tell apart what is not there (yet) from what fails.
        :raises DeviceTroubleError: devicectl is not there
        """
        paths = ("--source", source, "--destination", str(destination.resolve()))
        try:
            self._result(
                ("device", "copy", "from", *container.arguments, *paths), FailureCode.INTERNAL, seconds
            )
        except DeviceTroubleError as error:
            if error.failure.code == FailureCode.NO_TOOLCHAIN:
                raise
            return False
        return destination.is_file()

    def _result(
        self, arguments: Sequence[str], otherwise: FailureCode, seconds: float = _CALL_SECONDS
    ) -> Mapping[str, Any]:
        name = f"devicectl {' '.join(arguments[:3])}"
        with tempfile.TemporaryDirectory(prefix="fastvlm-devicectl-") as folder:
            answer = Path(folder) / "answer.json"
            try:
                run(
                    ["xcrun", "devicectl", *arguments, "--json-output", str(answer)],
                    name=name,
                    environment=self.environment,
                    timeout_seconds=max(seconds, 0.1),
                )
            except ProgramTimeoutError as error:
                raise trouble(FailureCode.TIMED_OUT, str(error)) from error
            except ProgramError as error:
                if isinstance(error.__cause__, OSError):
                    raise _no_toolchain(str(error)) from error
                raise trouble(otherwise, f"{name} failed", _reason(answer) or error.tail()) from error
            return _read(answer, name)


def _read(answer: Path, name: str) -> Mapping[str, Any]:
    try:
        content = json.loads(answer.read_bytes())
    except (OSError, ValueError) as error:
        raise trouble(FailureCode.NO_TOOLCHAIN, f"{name} gave no JSON: {error}") from error
    result = content.get("result") if isinstance(content, dict) else None
    return result if isinstance(result, dict) else {}


def _reason(answer: Path) -> str:
    """Return what the JSON of a failed call says, through all the errors that lie beneath each other."""
    with contextlib.suppress(OSError, ValueError):
        return " / ".join(_texts(json.loads(answer.read_bytes()).get("error", {})))
    return ""


def _texts(error: Any) -> list[str]:
    if isinstance(error, str):
        return [error]
    if not isinstance(error, dict):
        return []
    if "string" in error:
        return _texts(error["string"])
    information = error.get("userInfo", {})
    keys = ("NSLocalizedDescription", "NSLocalizedFailureReason", "NSUnderlyingError")
    beneath = (_texts(_unwrap(information.get(key))) for key in keys if isinstance(information, dict))
    return [text for texts in beneath for text in texts]


def _unwrap(value: Any) -> Any:
    return value["error"] if isinstance(value, dict) and "error" in value else value


def _list(result: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    entries = result.get(key)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _device(entry: dict[str, Any]) -> AppleDevice | None:
    def text(group: str, name: str) -> str:
        values = entry.get(group)
        value = values.get(name) if isinstance(values, dict) else None
        return value if isinstance(value, str) else ""

    device = AppleDevice(
        identifier=str(entry.get("identifier", "")),
        udid=text("hardwareProperties", "udid"),
        name=text("deviceProperties", "name"),
        kind=text("hardwareProperties", "deviceType").lower(),
        model=text("hardwareProperties", "productType") or text("hardwareProperties", "marketingName"),
        os_version=text("deviceProperties", "osVersionNumber"),
        os_build=text("deviceProperties", "osBuildUpdate"),
        developer_mode=text("deviceProperties", "developerModeStatus").lower(),
        state=text("connectionProperties", "tunnelState").lower(),
    )
    # From Xcode 27 on, simulators are listed too.
    is_real = text("hardwareProperties", "reality") in ("", "physical")
    return device if device.identifier and device.udid and is_real else None


def _no_toolchain(reason: str) -> DeviceTroubleError:
    detail = f"xcrun devicectl cannot be run ({reason}); install Xcode 15 or later on the worker"
    return DeviceTroubleError(FailureCode.NO_TOOLCHAIN, detail)
