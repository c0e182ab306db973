"""What the stand-in for Apple's toolchain plays: devices, how fast they are, what goes wrong. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class FaultKind(StrEnum):
    """What can go wrong."""

    DISCONNECT = "disconnect"  # the device goes away when it should predict
    CRASH_ON_LAUNCH = "crash_on_launch"
    CRASH_ON_LOAD = "crash_on_load"
    CRASH_ON_PREDICT = "crash_on_predict"
    NO_ANSWER = "no_answer"  # to a prediction
    SLOW_ANSWER = "slow_answer"  # to a prediction, by so many seconds
    LOAD = "load"  # Core ML refuses the model
    PREDICT = "predict"  # Core ML refuses to predict
    NAN_OUTPUTS = "nan_outputs"
    DISK_FULL = "disk_full"  # of the device
    SIGNING = "signing"
    BUILD = "build"
    INSTALL = "install"
    LISTING = "listing"  # devicectl itself fails
    HANG = "hang"  # devicectl does not come back from a copy to the device


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    :param kind: what
    :param device: only on the device of this name
    :param model: only with packages whose name begins with this
    :param after: how often it goes well before
    :param times: how often it goes wrong; for ever where None
    :param seconds: how long an answer takes, where that is the fault
    """

    kind: FaultKind
    device: str | None = None
    model: str = ""
    after: int = 0
    times: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class ScriptedDevice:
    """A device that devicectl lists.

    :param name: that its owner gave it
    :param kind: ``iPhone``, ``iPad`` or ``Mac``, as devicectl writes it
    :param model: as the maker names it
    :param identifier: CoreDevice's
    :param udid: the device's
    :param os_version: of its system
    :param os_build: of its system
    :param developer_mode: whether it is on
    :param state: of the tunnel; ``disconnected`` becomes ``connected`` when the device is asked for something
    :param locked: whether it waits for its passcode
    :param simulated: whether it is a simulator, which newer tools list as well
    """

    name: str = "Test iPhone"
    kind: str = "iPhone"
    model: str = "iPhone16,1"
    identifier: str = "5A1D2C3B-0000-4000-8000-000000000001"
    udid: str = "00008130-0000000000000001"
    os_version: str = "18.1"
    os_build: str = "22B83"
    developer_mode: bool = True
    state: str = "connected"
    locked: bool = False
    simulated: bool = False


@dataclass(frozen=True)
class Timing:
    """How fast packages are. The first one that fits counts.

    :param model: beginning of the packages' names; empty for all
    :param device: name of the device; empty for all, and for this Mac
    :param samples_ms: of each session's predictions, again and again; worked out where empty
    :param median_ms: of predictions; by the work that the model is where None
    :param session_noise: standard deviation of a session's factor, as a share
    :param noise: of a prediction's factor within its session
    :param load_cold_ms: of the first load in a session
    :param load_warm_ms: of later ones
    """

    model: str = ""
    device: str = ""
    samples_ms: tuple[float, ...] = ()
    median_ms: float | None = None
    session_noise: float = 0.0
    noise: float = 0.0
    load_cold_ms: float = 200.0
    load_warm_ms: float = 40.0


@dataclass(frozen=True)
class AppleScript:
    """All of it.

    :param devices: that devicectl lists
    :param timings: of packages; the first that fits counts
    :param cpu_operations: outputs of operations that run on the CPU, whatever is allowed
    :param cpu_kinds: operators that do
    :param faults: what goes wrong
    :param macos: version and build of this Mac's system
    :param mac_model: of this Mac, as the maker names it
    :param xcode: version and build of Xcode
    :param battery: charge of this Mac's battery in percent; None where it has none
    :param low_power: whether this Mac is in low power mode
    :param speed_limit: of this Mac's processor in percent; below 100 when it is hot
    :param seed: of all that is random
    """

    devices: tuple[ScriptedDevice, ...] = (ScriptedDevice(),)
    timings: tuple[Timing, ...] = (Timing(),)
    cpu_operations: tuple[str, ...] = ()
    cpu_kinds: tuple[str, ...] = ("gather_along_axis", "topk", "non_zero", "cumsum", "argsort")
    faults: tuple[Fault, ...] = ()
    macos: tuple[str, str] = ("15.1", "24B83")
    mac_model: str = "Mac14,2"
    xcode: tuple[str, str] = ("16.1", "16B40")
    battery: int | None = None
    low_power: bool = False
    speed_limit: int = 100
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AppleScript:
        """From JSON."""
        plain: dict[str, Any] = {
            name: tuple(one) if isinstance(one, list) else one for name, one in values.items()
        }
        timings = [{**one, "samples_ms": tuple(one["samples_ms"])} for one in values["timings"]]
        faults = [{**one, "kind": FaultKind(one["kind"])} for one in values["faults"]]
        plain["devices"] = tuple(ScriptedDevice(**one) for one in values["devices"])
        plain["timings"] = tuple(Timing(**one) for one in timings)
        plain["faults"] = tuple(Fault(**one) for one in faults)
        return cls(**plain)

    def timing(self, model: str, device: str) -> Timing:
        """Return how fast a package is on a device.

        :param model: name of the package
        :param device: name of the device
        """
        fitting = (one for one in self.timings if model.startswith(one.model) and one.device in ("", device))
        return next(fitting, Timing())
