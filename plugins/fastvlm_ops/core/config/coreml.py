"""``include/coreml.yaml``: which Core ML models are measured, on which devices, and what is a regression."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from fastvlm_ops.core.config.checking import CONNECTION_PATTERN, check_connection, check_path
from fastvlm_ops.core.config.errors import DefinitionError, Problem
from fastvlm_ops.core.config.reading import Definition, DefinitionFile, read_definition_file

COREML_FILE = "coreml.yaml"
VERSION_PLACEHOLDER = "{version}"
MODEL_NAME_PATTERN = r"^[A-Za-z][A-Za-z0-9_.-]{0,79}$"
DEVICE_NAME_PATTERN = r"^[a-z][a-z0-9-]{0,39}$"
QUEUE_PATTERN = r"^[A-Za-z0-9_.:-]{1,200}$"

Unit = Literal["ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY"]
Backend = Literal["connected-device", "local-mac", "linux-reference"]
Thermal = Literal["nominal", "fair", "serious", "critical"]


def _check_model_name(name: str) -> str:
    if not re.fullmatch(MODEL_NAME_PATTERN, name):
        raise ValueError(
            f"{name!r} cannot be a name; expected a letter, then at most 79 letters, digits, '_', '.' and '-'"
        )
    return name


def _check_device_name(name: str) -> str:
    if not re.fullmatch(DEVICE_NAME_PATTERN, name):
        raise ValueError(
            f"{name!r} cannot be a name; expected a lower-case letter, then at most 39 lower-case letters,"
            " digits and '-'"
        )
    return name


def _check_package_path(path: str) -> str:
    check_path(path)
    if not path.endswith(".mlpackage"):
        raise ValueError(f"{path!r} is no package; expected a path that ends in .mlpackage")
    if path.count(VERSION_PLACEHOLDER) != 1:
        raise ValueError(
            f"{path!r} has to have {VERSION_PLACEHOLDER} once, where the version stands in the name"
        )
    _refuse_other_braces(path)
    return path


def _check_golden_path(path: str) -> str:
    check_path(path)
    if path.count(VERSION_PLACEHOLDER) > 1:
        raise ValueError(f"{path!r} has {VERSION_PLACEHOLDER} more than once")
    _refuse_other_braces(path)
    return path


def _refuse_other_braces(path: str) -> None:
    if set(path.replace(VERSION_PLACEHOLDER, "")) & set("{}*?[]"):
        raise ValueError(f"{path!r}: nothing but {VERSION_PLACEHOLDER} is replaced; it has no other pattern")


def _check_queue(name: str) -> str:
    if not re.fullmatch(QUEUE_PATTERN, name):
        raise ValueError(f"{name!r} cannot be a name; expected letters, digits, '_', '.', ':' and '-'")
    return name


def _check_units(units: object) -> object:
    for unit, times in Counter(map(str, units)).items() if isinstance(units, list) else ():
        if times > 1:
            raise ValueError(f"{unit} stands {times} times")
    return units


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Decibels = Annotated[float, Field(gt=0, le=200, allow_inf_nan=False)]
Units = Annotated[tuple[Unit, ...], BeforeValidator(_check_units), Field(strict=False, min_length=1)]


class ModelDefinition(Definition):
    """A model, of which there are versions."""

    name: Annotated[
        str,
        AfterValidator(_check_model_name),
        Field(
            description="unique name of the model: letters, digits, '_', '.' and '-'",
            json_schema_extra={"pattern": MODEL_NAME_PATTERN},
        ),
    ]
    path: Annotated[
        str,
        AfterValidator(_check_package_path),
        Field(
            description="where its packages are, absolute or below [fastvlm_ops] kit_dir, with {version}"
            " where the version stands, as in models/Encoder-v{version}.mlpackage"
        ),
    ]
    compute_units: Annotated[
        Units,
        Field(
            description="what Core ML may use, each measured apart: ALL, CPU_AND_NE, CPU_AND_GPU, CPU_ONLY"
        ),
    ] = ("ALL",)
    golden: Annotated[
        str | None,
        AfterValidator(lambda path: path if path is None else _check_golden_path(path)),
        Field(
            description="folder of its golden inputs and outputs; null for <name>.golden beside the package"
        ),
    ] = None

    def golden_folder(self, package: Path, version: str, root: Path) -> Path:
        """Return where the golden inputs and outputs of a package are, or would be.

        :param package: the package
        :param version: of it
        :param root: what relative paths start from
        """
        if self.golden is None:
            return package.parent / f"{self.name}.golden"
        return root / self.golden.replace(VERSION_PLACEHOLDER, version)


class DeviceDefinition(Definition):
    """A device that models are run on, and how it is reached."""

    name: Annotated[
        str,
        AfterValidator(_check_device_name),
        Field(
            description="unique name of the device: lower-case letters, digits and '-'",
            json_schema_extra={"pattern": DEVICE_NAME_PATTERN},
        ),
    ]
    backend: Annotated[
        Backend,
        Field(
            description="connected-device: an iPhone, iPad or Mac at a worker on macOS; local-mac: that"
            " worker itself; linux-reference: no Apple hardware, for parity and relative timing"
        ),
    ]
    connection: Annotated[
        str | None,
        AfterValidator(lambda name: name if name is None else check_connection(name)),
        Field(
            description="id of the connection of type fastvlm_apple_device; a connected-device needs one",
            json_schema_extra={"pattern": CONNECTION_PATTERN},
        ),
    ] = None
    queue: Annotated[
        str | None,
        AfterValidator(lambda name: name if name is None else _check_queue(name)),
        Field(description="Airflow queue of the worker that the device hangs on; null for the default one"),
    ] = None
    executor: Annotated[
        str | None,
        AfterValidator(lambda name: name if name is None else _check_queue(name)),
        Field(description="Airflow executor of that worker, as in EdgeExecutor; null for the default one"),
    ] = None
    compute_units: Annotated[
        Units | None, Field(description="only these of the models' compute units; null for all of them")
    ] = None
    cooldown_seconds: Annotated[
        float | None,
        Field(
            ge=0,
            le=3600,
            allow_inf_nan=False,
            description="wait before each session here; null for the one of sessions",
        ),
    ] = None

    @model_validator(mode="after")
    def _is_reached(self) -> Self:
        if self.backend == "connected-device" and self.connection is None:
            raise ValueError("a connected-device needs the key connection")
        if self.backend != "connected-device" and self.connection is not None:
            raise ValueError(f"{self.backend} is reached without a connection; remove the key connection")
        return self


class SessionRules(Definition):
    """How a model is run on a device. A session is one launch of a process: the unit that is compared."""

    count: Annotated[int, Field(ge=1, le=200, description="sessions of a model, unit and run, 1 to 200")] = 12
    warm_up: Annotated[int, Field(ge=0, le=1000, description="predictions first that do not count")] = 3
    iterations: Annotated[int, Field(ge=1, le=10_000, description="predictions that are timed")] = 20
    warm_loads: Annotated[int, Field(ge=0, le=20, description="loads after the first, timed apart")] = 1
    cooldown_seconds: Annotated[
        float, Field(ge=0, le=3600, allow_inf_nan=False, description="wait before each session, to 3600")
    ] = 30
    max_rerun: Annotated[
        int, Field(ge=0, le=200, description="at most so many sessions more, to confirm a regression")
    ] = 12
    timeout_seconds: Annotated[Seconds, Field(description="for a whole session")] = 600
    answer_timeout_seconds: Annotated[Seconds, Field(description="for one answer of the device")] = 120

    @model_validator(mode="after")
    def _answers_end_before_sessions(self) -> Self:
        if self.answer_timeout_seconds > self.timeout_seconds:
            raise ValueError(
                f"answer_timeout_seconds {self.answer_timeout_seconds:g} is above"
                f" timeout_seconds {self.timeout_seconds:g}"
            )
        return self


class ConditionRules(Definition):
    """The state that a device has to be in to be measured. What a platform does not tell does not hinder."""

    minimum_battery_percent: Annotated[
        float, Field(ge=0, le=100, allow_inf_nan=False, description="charge of its battery, 0 to 100")
    ] = 30
    allow_low_power: Annotated[bool, Field(description="whether it may be in low power mode")] = False
    worst_thermal: Annotated[
        Thermal, Field(description="hottest state that is measured: nominal, fair, serious or critical")
    ] = "fair"


class CompareRules(Definition):
    """What counts as worse. Shares are of the baseline: 0.03 is 3 %."""

    baseline_sessions: Annotated[
        int, Field(ge=4, le=1000, description="so many of the last accepted sessions are the baseline")
    ] = 40
    minimum_effect: Annotated[Fraction, Field(description="latency: smaller changes are none")] = 0.03
    p_value: Annotated[Fraction, Field(description="how rare chance alone may give such a change")] = 0.01
    false_discovery_rate: Annotated[
        Fraction, Field(description="expected share of false ones among the changes that a run reports")
    ] = 0.01
    unstable_share: Annotated[
        Fraction, Field(description="with this share of throttled sessions nothing is concluded")
    ] = 0.35
    size_growth: Annotated[Fraction, Field(description="a package that grew by more is worse")] = 0.10
    memory_growth: Annotated[Fraction, Field(description="peak memory: smaller changes are none")] = 0.10
    load_effect: Annotated[Fraction, Field(description="time to load: smaller changes are none")] = 0.15
    parity_drop_db: Annotated[
        Decibels, Field(description="outputs whose PSNR fell by more decibels are worse")
    ] = 10
    minimum_psnr_db: Annotated[
        Decibels, Field(description="outputs below this PSNR against the golden ones are worse, in decibels")
    ] = 35
    flagged_cost_share: Annotated[
        Share,
        Field(description="operations that left the Neural Engine: together at least so much of the cost"),
    ] = 0.01


class CoreMLDefinitions(DefinitionFile):
    """Which Core ML models are benchmarked, on which devices, and what is a regression."""

    version: Literal[1] = Field(description="version of this file's format: 1")
    models: Annotated[
        tuple[ModelDefinition, ...],
        Field(strict=False, min_length=1, description="at least one model"),
    ]
    devices: Annotated[
        tuple[DeviceDefinition, ...],
        Field(strict=False, min_length=1, description="at least one device"),
    ]
    sessions: Annotated[SessionRules, Field(description="how a model is run")] = SessionRules()
    conditions: Annotated[ConditionRules, Field(description="when a device is fit")] = ConditionRules()
    compare: Annotated[CompareRules, Field(description="what counts as worse")] = CompareRules()
    missing_devices: Annotated[
        Literal["fail", "warn"],
        Field(description="a device that gave no result: fail ends the run as failed, warn only says so"),
    ] = "fail"

    @field_validator("models", "devices")
    @classmethod
    def _names_are_unique(
        cls, named: tuple[ModelDefinition | DeviceDefinition, ...]
    ) -> tuple[ModelDefinition | DeviceDefinition, ...]:
        # Names become names of files and metrics, which some systems fold to one case.
        for name, times in Counter(one.name.lower() for one in named).items():
            if times > 1:
                raise ValueError(f"{times} are named {name!r}; expected unique names, whatever their case")
        return named

    @model_validator(mode="after")
    def _every_device_has_work(self) -> Self:
        for device in self.devices:
            if not any(self.units_of(model, device) for model in self.models):
                raise ValueError(f"device {device.name!r} shares no compute unit with any model")
        return self

    @staticmethod
    def units_of(model: ModelDefinition, device: DeviceDefinition) -> tuple[Unit, ...]:
        """Return the compute units that a model is measured with on a device, in the model's order.

        :param model: the model
        :param device: the device
        """
        allowed = device.compute_units
        return tuple(unit for unit in model.compute_units if allowed is None or unit in allowed)

    def sessions_on(self, device: DeviceDefinition) -> SessionRules:
        """Return how a model is run on a device.

        :param device: the device
        """
        if device.cooldown_seconds is None:
            return self.sessions
        return self.sessions.model_copy(update={"cooldown_seconds": device.cooldown_seconds})

    def model(self, name: str) -> ModelDefinition:
        """Return one model.

        :param name: its name
        :raises DefinitionError: the file has none of that name
        """
        return next((one for one in self.models if one.name == name), None) or self._lacks(
            "models", name, [one.name for one in self.models]
        )

    def device(self, name: str) -> DeviceDefinition:
        """Return one device.

        :param name: its name
        :raises DefinitionError: the file has none of that name
        """
        return next((one for one in self.devices if one.name == name), None) or self._lacks(
            "devices", name, [one.name for one in self.devices]
        )

    def _lacks(self, key: str, name: str, known: Sequence[str]) -> NoReturn:
        message = f"has none named {name!r}; it has {', '.join(known)}"
        raise DefinitionError(self.file, [Problem(key, message)])


def load_coreml(include_dir: Path) -> CoreMLDefinitions:
    """Read ``coreml.yaml``.

    :param include_dir: the folder that it is in
    :raises DefinitionError: it cannot be used; the message names file, line, key and what would be right
    """
    return read_definition_file(include_dir / COREML_FILE, CoreMLDefinitions)
