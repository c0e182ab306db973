"""What a device backend is, and what a session gives: the one shape that all backends fill.

A session is one launch of a process that loads the model and predicts. It is the unit of replication: samples
within a session depend on each other, so statistics see one value a session and metric.

What a platform does not tell is None, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

SCHEMA_VERSION = 1


class HardwareClass(StrEnum):
    """What a device is. Results of different classes are never compared."""

    IPHONE = "iphone"
    IPAD = "ipad"
    MAC = "mac"
    LINUX_REFERENCE = "linux-reference"  # no Apple hardware: parity, and relative timing only


class BackendKind(StrEnum):
    """How a device is reached."""

    CONNECTED_DEVICE = "connected-device"
    LOCAL_MAC = "local-mac"
    LINUX_REFERENCE = "linux-reference"


class ComputeUnit(StrEnum):
    """What Core ML is allowed to use, in coremltools' words."""

    ALL = "ALL"
    CPU_AND_NE = "CPU_AND_NE"
    CPU_AND_GPU = "CPU_AND_GPU"
    CPU_ONLY = "CPU_ONLY"


class FailureCode(StrEnum):
    """Why a device or session gave no result."""

    NO_TOOLCHAIN = "no_toolchain"  # xcrun, devicectl or coremltools is not there
    DEVICE_MISSING = "device_missing"
    DEVICE_DISCONNECTED = "device_disconnected"
    DEVELOPER_MODE_OFF = "developer_mode_off"
    NOT_READY = "not_ready"  # low power mode, hot, battery too low, locked
    SIGNING_FAILED = "signing_failed"
    BUILD_FAILED = "build_failed"
    INSTALL_FAILED = "install_failed"
    APP_CRASHED = "app_crashed"
    NO_ANSWER = "no_answer"
    LOAD_FAILED = "load_failed"
    PREDICTION_FAILED = "prediction_failed"
    UNSUPPORTED_MODEL = "unsupported_model"  # an operation or feature the backend lacks; detail names it
    TIMED_OUT = "timed_out"
    INTERNAL = "internal"


@dataclass(frozen=True)
class Failure:
    """A failure that is data: device trouble is never raised.

    :param code: what kind it is
    :param detail: what happened and what to do, for a person; no secrets
    """

    code: FailureCode
    detail: str

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"code": str(self.code), "detail": self.detail}


@dataclass(frozen=True)
class Device:
    """A device that was found.

    :param name: as in ``coreml.yaml``
    :param hardware_class: what it is
    :param model: as the maker names it: ``iPhone16,1``; of Linux: the processor's name
    :param os_version: ``18.1``
    :param os_build: ``22B83``; part of the epoch
    :param identifier_hash: a salted hash of its UDID: the UDID itself is in no result
    :param identifier: what the backend addresses it by; never stored
    """

    name: str
    hardware_class: HardwareClass
    model: str
    os_version: str
    os_build: str
    identifier_hash: str = ""
    identifier: str = field(default="", repr=False)

    def as_dict(self) -> dict[str, Any]:
        """As JSON, without the identifier."""
        values = asdict(self)
        del values["identifier"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Device:
        """From JSON."""
        return cls(**{**values, "hardware_class": HardwareClass(values["hardware_class"])})


@dataclass(frozen=True)
class SessionPlan:
    """What one session does.

    :param package: folder of the ``.mlpackage``
    :param compute_unit: that Core ML may use
    :param inputs: path of an ``.npz`` with one array an input, or None for generated ones
    :param warm_up: predictions that are not counted
    :param iterations: predictions that are timed
    :param warm_loads: loads after the first, timed apart
    :param timeout_seconds: for the whole session
    :param answer_timeout_seconds: for one answer of the device
    :param want_outputs: whether the outputs of the last prediction come back, for parity
    :param want_placement: whether the compute plan is asked for
    """

    package: Path
    compute_unit: ComputeUnit
    inputs: Path | None = None
    warm_up: int = 3
    iterations: int = 20
    warm_loads: int = 1
    timeout_seconds: float = 600
    answer_timeout_seconds: float = 120
    want_outputs: bool = True
    want_placement: bool = True


@dataclass(frozen=True)
class Conditions:
    """The state of a device around a session; None where the platform does not tell.

    :param thermal_start: ``nominal``, ``fair``, ``serious`` or ``critical``
    :param thermal_end: likewise
    :param low_power: whether low power mode was on
    :param battery_percent: 0 to 100
    :param charging: whether it was
    :param cooldown_seconds: waited before the session
    """

    thermal_start: str | None = None
    thermal_end: str | None = None
    low_power: bool | None = None
    battery_percent: float | None = None
    charging: bool | None = None
    cooldown_seconds: float = 0.0


@dataclass(frozen=True)
class Placement:
    """Where an operation is planned to run. Core ML tells its plan, not what it then did.

    :param operation: its first output's name, unique in the model
    :param kind: operator, as in ``ios17.conv``
    :param unit: ``ane``, ``gpu``, ``cpu``, or None where the plan has none
    :param cost_share: estimated part of the model's cost, 0 to 1; None where unknown
    """

    operation: str
    kind: str
    unit: str | None
    cost_share: float | None


@dataclass(frozen=True)
class SessionResult:
    """What one session gave.

    :param index: from 0, in its run
    :param failure: why there is nothing, or None
    :param load_cold_ms: first load in the process
    :param load_warm_ms: later ones
    :param samples_ms: every timed prediction, in order
    :param peak_memory_bytes: the process's peak footprint
    :param conditions: of the device
    :param placement: of every operation, or empty
    :param outputs: path of an ``.npz`` with the outputs of the last prediction, or None
    :param started_at: ISO 8601, UTC
    """

    index: int
    failure: Failure | None = None
    load_cold_ms: float | None = None
    load_warm_ms: tuple[float, ...] = ()
    samples_ms: tuple[float, ...] = ()
    peak_memory_bytes: int | None = None
    conditions: Conditions = field(default_factory=Conditions)
    placement: tuple[Placement, ...] = ()
    outputs: Path | None = None
    started_at: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As JSON, for the artefact of raw samples; without the outputs' path."""
        values = asdict(self)
        del values["outputs"]
        values["failure"] = self.failure.as_dict() if self.failure else None
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SessionResult:
        """From JSON."""
        failure = values["failure"]
        return cls(
            **{
                **values,
                "failure": Failure(FailureCode(failure["code"]), failure["detail"]) if failure else None,
                "load_warm_ms": tuple(values["load_warm_ms"]),
                "samples_ms": tuple(values["samples_ms"]),
                "conditions": Conditions(**values["conditions"]),
                "placement": tuple(Placement(**one) for one in values["placement"]),
            }
        )

    def at(self, index: int) -> SessionResult:
        """The same with another index."""
        return replace(self, index=index)


class DeviceBackend(Protocol):
    """A way to run models on a device. Trouble of a device is returned, not raised."""

    kind: BackendKind

    @property
    def toolchain(self) -> dict[str, str]:
        """Versions of what runs the model: coremltools, Xcode, the runner. Part of the epoch."""
        ...

    def discover(self) -> Device | Failure:
        """Find the device that this backend was made for."""
        ...

    def preflight(self, device: Device) -> Failure | None:
        """Tell why the device is not fit to be measured now, or None."""
        ...

    def run_session(self, device: Device, plan: SessionPlan, scratch: Path) -> SessionResult:
        """Run one session: one launch. Bounded by the plan's time-outs.

        :param scratch: an empty folder of the session's own
        """
        ...

    def clean_up(self, device: Device) -> None:
        """Stop what runs on the device and remove what was put there. Idempotent; raises nothing."""
        ...


@runtime_checkable
class TakesTurns(Protocol):
    """A backend that can time two models in one process, where separate sessions say little."""

    def take_turns(
        self, accepted: Path, candidate: Path, *, blocks: int, iterations: int, timeout_seconds: float
    ) -> list[tuple[float, float]] | Failure:
        """Return the fastest prediction of either in each block, in milliseconds.

        :param accepted: package of one
        :param candidate: package of the other
        :param blocks: turns of each
        :param iterations: predictions of a turn, of which the fastest counts
        :param timeout_seconds: for all
        """
        ...
