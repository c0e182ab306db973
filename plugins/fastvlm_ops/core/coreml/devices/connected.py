"""iPhones, iPads and Macs at a worker on macOS, by ``xcrun devicectl`` and coremltools' ModelRunner app."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from fastvlm_ops.core.coreml.arrays import write_arrays
from fastvlm_ops.core.coreml.devices.building import coremltools_version, install_runner
from fastvlm_ops.core.coreml.devices.checks import (
    Signing,
    check_identifier,
    check_signing,
    hashed_identifier,
)
from fastvlm_ops.core.coreml.devices.compiling import compile_package
from fastvlm_ops.core.coreml.devices.devicectl import AppleDevice, AppProcess, Container, DeviceCtl
from fastvlm_ops.core.coreml.devices.features import ModelFeatures, make_inputs, read_features
from fastvlm_ops.core.coreml.devices.interface import (
    BackendKind,
    Device,
    Failure,
    FailureCode,
    HardwareClass,
    SessionPlan,
    SessionResult,
)
from fastvlm_ops.core.coreml.devices.model_runner import FOLDER, Inputs, ModelRunner
from fastvlm_ops.core.coreml.devices.trouble import DeviceTroubleError
from fastvlm_ops.core.coreml.devices.versions import xcode_version

_CLASSES = {"iphone": HardwareClass.IPHONE, "ipad": HardwareClass.IPAD, "mac": HardwareClass.MAC}
_CLEANING_SECONDS = 20.0
EMPTIED = "emptied.txt"


class ConnectedDeviceBackend:
    """A device at this Mac.

    :param name: as in ``coreml.yaml``
    :param identifier: its UDID, or devicectl's identifier; the only one of its kind where empty
    :param kind: ``iphone``, ``ipad`` or ``mac``, where no identifier is given
    :param signing: what the runner app is signed with
    :param salt: of the hash that stands for the UDID in results
    :param builds: folder that built apps are kept in; one of the user's caches where None
    :param environment: of all programs; this process's where None
    """

    kind = BackendKind.CONNECTED_DEVICE

    def __init__(
        self,
        name: str,
        *,
        identifier: str = "",
        kind: str = "iphone",
        signing: Signing | None = None,
        salt: str = "",
        builds: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._identifier = identifier
        self._kind = kind
        self._signing = signing or Signing()
        self._salt = salt
        self._control = DeviceCtl(environment)
        self._builds = builds or _caches(self._control.environment) / "fastvlm-ops" / "model-runner"
        self._bundle = ""
        self._private: set[str] = set()
        self._compiled: dict[tuple[Path, int], tuple[Path, ModelFeatures]] = {}
        self._workplace: tempfile.TemporaryDirectory[str] | None = None

    @cached_property
    def toolchain(self) -> dict[str, str]:
        """Versions of what compiles the model and of what the runner app is made from."""
        return {
            "coremltools": coremltools_version(),
            "xcode": xcode_version(self._control.environment),
            "backend": f"{self.kind}/1",
        }

    def discover(self) -> Device | Failure:
        """Find the device, and open the tunnel to it."""
        try:
            found = self._find()
        except DeviceTroubleError as error:
            return self._told(error)
        return Device(
            name=self.name,
            hardware_class=_CLASSES[found.kind],
            model=found.model,
            os_version=found.os_version,
            os_build=found.os_build,
            identifier_hash=hashed_identifier(found.udid, self._salt),
            identifier=found.identifier,
        )

    def preflight(self, device: Device) -> Failure | None:
        """Tell why the device is not fit. devicectl tells neither heat nor battery nor low power mode."""
        try:
            check_signing(self._signing)
            found = self._find()
            if found.developer_mode == "disabled":
                detail = "developer mode is off; turn it on: Settings, Privacy & Security, Developer Mode"
                return Failure(FailureCode.DEVELOPER_MODE_OFF, detail)
            if self._control.is_locked(found):
                return Failure(
                    FailureCode.NOT_READY, "the device is locked; unlock it and turn auto-lock off"
                )
        except DeviceTroubleError as error:
            return self._told(error)
        return None

    def run_session(self, device: Device, plan: SessionPlan, scratch: Path) -> SessionResult:
        """Launch the runner, load the model, predict, and end the runner."""
        started = datetime.now(UTC).isoformat()
        try:
            result = self._session(plan, scratch)
        except DeviceTroubleError as error:
            result = SessionResult(index=0, failure=self._told(error))
        except OSError as error:
            detail = f"a file of the session cannot be written or read: {error}"
            result = SessionResult(index=0, failure=Failure(FailureCode.INTERNAL, detail))
        return replace(result, started_at=started)

    def clean_up(self, device: Device) -> None:
        """End the runner, and uninstall it with all that it was sent."""
        if self._workplace is not None:
            self._workplace.cleanup()
            self._workplace = None
            self._compiled.clear()
        with contextlib.suppress(DeviceTroubleError):
            container = Container(self._find(), self._bundle or self._signing.bundle)
            if self._control.installed_at(container):
                self._control.end_app(container)
                self._control.uninstall(container)
        self._bundle = ""

    def left_behind(self) -> str:
        """Say what is on the device after cleaning up; empty where nothing is."""
        try:
            container = Container(self._find(), self._signing.bundle)
            installed = self._control.installed_at(container)
        except DeviceTroubleError as error:
            return f"that cannot be told: {self._told(error).detail}"
        return f"the runner {container.bundle} is still installed" if installed else ""

    def _told(self, error: DeviceTroubleError) -> Failure:
        """Return a failure without what names the device or its owner: tools say both."""
        detail = error.failure.detail
        for name in (*self._private, self._identifier, self._signing.team, self._signing.profile):
            detail = detail.replace(name, "…") if name else detail
        return replace(error.failure, detail=detail)

    def _find(self) -> AppleDevice:
        if self._identifier:
            check_identifier(self._identifier)
        found = self._pick(self._control.devices())
        self._private |= {found.identifier, found.udid}
        if found.state != "connected":
            found = self._control.awake(found.identifier) or found
        if found.state != "connected":
            detail = f"the device is known but {found.state or 'in no known state'}; connect and unlock it"
            raise DeviceTroubleError(FailureCode.DEVICE_DISCONNECTED, detail)
        return found

    def _pick(self, devices: list[AppleDevice]) -> AppleDevice:
        known = [one for one in devices if one.kind in _CLASSES]
        if self._identifier:
            wanted = self._identifier.lower()
            matching = [one for one in known if wanted in (one.identifier.lower(), one.udid.lower())]
            missing = "no device with the connection's identifier; see xcrun devicectl list devices"
        else:
            matching = [one for one in known if one.kind == self._kind]
            missing = f"no {self._kind}; connect one, or give the identifier in the connection"
        if not matching:
            raise DeviceTroubleError(FailureCode.DEVICE_MISSING, missing)
        reachable = [one for one in matching if one.state != "unavailable"] or matching
        if len(reachable) > 1:
            detail = (
                f"{len(reachable)} devices are of the kind {self._kind}; give an identifier in the connection"
            )
            raise DeviceTroubleError(FailureCode.DEVICE_MISSING, detail)
        return reachable[0]

    def _session(self, plan: SessionPlan, scratch: Path) -> SessionResult:
        found = self._find()
        compiled, features = self._compile(plan)
        if images := [one.name for one in features.inputs if one.is_image]:
            detail = (
                f"the ModelRunner of coremltools 9 takes no images: {', '.join(images)}; make it an array"
            )
            raise DeviceTroubleError(FailureCode.UNSUPPORTED_MODEL, detail)
        inputs = Inputs(make_inputs(features, plan.inputs))
        container = self._install(found)
        deadline = time.monotonic() + plan.timeout_seconds
        self._control.end_app(container)  # one that an earlier task left, with what it had been sent
        self._empty(container, plan.timeout_seconds)
        app = self._control.launch(container, scratch / "app.log")
        try:
            runner = ModelRunner(
                self._control,
                container,
                app,
                scratch,
                answer_seconds=plan.answer_timeout_seconds,
                deadline=deadline,
            )
            return _measure(runner, compiled, inputs, features, plan, scratch)
        finally:
            self._end(app, container)

    def _compile(self, plan: SessionPlan) -> tuple[Path, ModelFeatures]:
        """Compile a package once for all its sessions."""
        package = plan.package
        key = (package.resolve(), (package / "Manifest.json").stat().st_mtime_ns)
        if key not in self._compiled:
            if self._workplace is None:
                self._workplace = tempfile.TemporaryDirectory(prefix="fastvlm-compiled-")
            folder = Path(tempfile.mkdtemp(dir=self._workplace.name))
            features = read_features(package)
            environment = self._control.environment
            compiled = compile_package(package, folder, environment, plan.timeout_seconds)
            self._compiled[key] = (compiled, features)
        return self._compiled[key]

    def _install(self, found: AppleDevice) -> Container:
        """Build and install the runner, once; that has a time of its own, for Xcode takes minutes."""
        if not self._bundle:
            environment = self._control.environment
            self._bundle = install_runner(found, self._signing, self._builds, environment)
        return Container(found, self._bundle)

    def _end(self, app: AppProcess, container: Container) -> None:
        app.stop()
        with contextlib.suppress(DeviceTroubleError):
            self._control.end_app(container)
            self._empty(container, _CLEANING_SECONDS)

    def _empty(self, container: Container, seconds: float) -> None:
        """Remove what was sent and answered: the runner keeps all of it, models too."""
        with tempfile.TemporaryDirectory(prefix="fastvlm-empty-") as folder:
            # Not empty itself, so that the folder is made anew whatever removing takes away.
            (Path(folder) / EMPTIED).write_text("nothing is here\n")
            self._control.copy_to(container, Path(folder), FOLDER, seconds, replace=True)


def _caches(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _measure(
    runner: ModelRunner,
    compiled: Path,
    inputs: Inputs,
    features: ModelFeatures,
    plan: SessionPlan,
    scratch: Path,
) -> SessionResult:
    model = runner.load(compiled, plan.compute_unit)
    cold, warm = model.milliseconds, []
    for _ in range(plan.warm_loads):
        model = runner.load_again(model, compiled.name)
        warm.append(model.milliseconds)
    answers = [runner.predict(model, inputs) for _ in range(plan.warm_up + plan.iterations)]
    outputs = scratch / "outputs.npz" if plan.want_outputs and answers else None
    if outputs is not None:
        write_arrays(outputs, runner.outputs(inputs, answers[-1]))
    placement = runner.placement(model, features.kinds) if plan.want_placement else ()
    runner.unload(model)
    return SessionResult(
        index=0,
        load_cold_ms=cold,
        load_warm_ms=tuple(warm),
        samples_ms=tuple(answer.milliseconds for answer in answers[plan.warm_up :]),
        placement=placement,
        outputs=outputs,
    )
