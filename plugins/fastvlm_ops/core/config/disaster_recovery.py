"""``include/disaster_recovery/<scenario>.yaml``: one drill each, with what it breaks and has to prove."""

from __future__ import annotations

import hashlib
import re
from datetime import time
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from fastvlm_ops.core.config.checking import CONNECTION_PATTERN, check_connection
from fastvlm_ops.core.config.disaster_recovery_steps import (
    AbortCondition,
    FailoverCheck,
    FaultStep,
    Name,
    Probe,
    RecoveryCheck,
    RestoreAction,
    Seconds,
)
from fastvlm_ops.core.config.errors import DefinitionError, Problem
from fastvlm_ops.core.config.reading import Definition, DefinitionFile, read_definition_file

SCENARIO_FOLDER = "disaster_recovery"
SCENARIO_PATTERN = r"^[a-z][a-z0-9_]{0,59}$"
#: DAG ids that are no scenario's.
RESERVED = frozenset({"reaper"})

#: Fields of a cron expression, with what is least and greatest in each.
_CRON = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 6))
_CRON_PART = re.compile(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/([1-9]\d?))?")


def _check_cron(expression: str) -> str:
    fields = expression.split()
    if len(fields) != len(_CRON):
        raise ValueError(f"{expression!r} is no cron expression; expected five fields, as in '0 6 * * 3'")
    for field, (name, least, greatest) in zip(fields, _CRON, strict=True):
        for part in field.split(","):
            match = _CRON_PART.fullmatch(part)
            numbers = [int(one) for one in match.groups()[:2] if one] if match else []
            if (
                match is None
                or numbers != sorted(numbers)
                or not all(least <= n <= greatest for n in numbers)
            ):
                raise ValueError(
                    f"{field!r} cannot be the {name} of a cron expression; expected numbers from {least} to"
                    f" {greatest}, '*', '-', ',' and '/'"
                )
    return expression


Day = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
Connection = Annotated[
    str, AfterValidator(check_connection), Field(json_schema_extra={"pattern": CONNECTION_PATTERN})
]


class ServiceTarget(Definition):
    """A running service."""

    kind: Annotated[Literal["service"], Field(description="what is drilled")]
    service: Annotated[Name, Field(description="name that the service itself must give")]
    connection: Annotated[Connection, Field(description="id of its connection, of type fastvlm_service")]


class BackupTarget(Definition):
    """The backups themselves; nothing is broken."""

    kind: Annotated[Literal["backups"], Field(description="what is drilled")]


class BlastRadius(Definition):
    """How much a drill may hit, and what must stay."""

    instances: Annotated[int, Field(ge=0, le=100, description="how many instances are hit at most")] = 1
    healthy_left: Annotated[
        int, Field(ge=0, le=100, description="how many healthy ones of the same role must be left")
    ] = 1


class Window(Definition):
    """When a drill may break anything."""

    days: Annotated[tuple[Day, ...], Field(strict=False, min_length=1, description="days of the week")]
    start: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="as in '09:00'")]
    end: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="as in '16:00'")]
    timezone: Annotated[str, Field(max_length=60, description="as in Europe/Berlin")] = "UTC"

    @model_validator(mode="after")
    def _is_a_span(self) -> Self:
        from zoneinfo import ZoneInfo

        if time.fromisoformat(self.start) >= time.fromisoformat(self.end):
            raise ValueError(f"start {self.start} is not before end {self.end}; a window lies within a day")
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{self.timezone!r} is no time zone; expected one as Europe/Berlin") from None
        return self


class Conditions(Definition):
    """What must hold in operations before a drill starts. A condition that cannot be read refuses it."""

    no_open_incidents: Annotated[
        bool, Field(description="true: an open incident of severity 1 or 2 refuses the drill")
    ] = False
    error_budget_left: Annotated[
        float | None,
        Field(ge=0, le=1, description="share of every error budget of the service that must be left"),
    ] = None


class Objectives(Definition):
    """What recovery has to achieve."""

    rto_seconds: Annotated[Seconds, Field(description="from the fault to the first validated request")]
    rpo_seconds: Annotated[
        float,
        Field(ge=0, le=31_536_000, allow_inf_nan=False, description="how old the oldest lost write may be"),
    ]


class Steps(Definition):
    """The steps, in their order."""

    simulate_failure: Annotated[
        FaultStep | None, Field(description="what is broken; null for a test that breaks nothing")
    ] = None
    verify_failover: Annotated[
        tuple[FailoverCheck, ...], Field(strict=False, description="what must happen by itself")
    ] = ()
    restore_service: Annotated[
        tuple[RestoreAction, ...], Field(strict=False, min_length=1, description="what is done to recover")
    ]
    validate_recovery: Annotated[
        tuple[RecoveryCheck, ...],
        Field(strict=False, min_length=1, description="what must be true afterwards, with evidence"),
    ]


class Scenario(DefinitionFile):
    """A drill."""

    version: Annotated[Literal[1], Field(description="version of this format: 1")]
    title: Annotated[str, Field(min_length=1, max_length=100, description="in a few words, for people")]
    description: Annotated[str, Field(max_length=2000, description="what it proves, for people")] = ""
    environment: Annotated[Name, Field(description="environment that the target itself must name")]
    target: Annotated[
        ServiceTarget | BackupTarget, Field(discriminator="kind", description="what is drilled")
    ]
    blast_radius: Annotated[BlastRadius, Field(description="how much may be hit")] = BlastRadius()
    schedule: Annotated[
        Annotated[str, Field(max_length=100), AfterValidator(_check_cron)] | None,
        Field(description="cron expression in UTC, or null for by hand only"),
    ] = None
    on_full_backup: Annotated[
        bool, Field(description="true: also runs for each full backup that is published")
    ] = False
    window: Annotated[Window | None, Field(description="when it may break anything; null for always")] = None
    approval: Annotated[
        Literal["never", "always"],
        Field(description="whether a person is asked before anything is broken; for production always"),
    ] = "never"
    approval_timeout_minutes: Annotated[
        float, Field(gt=0, le=1440, allow_inf_nan=False, description="after which the answer is no")
    ] = 10
    conditions: Annotated[Conditions, Field(description="what must hold in operations")] = Conditions()
    objectives: Annotated[Objectives, Field(description="what recovery has to achieve")]
    steady_state: Annotated[
        tuple[Probe, ...], Field(strict=False, description="what must hold before, and again at the end")
    ] = ()
    abort_when: Annotated[
        tuple[AbortCondition, ...], Field(strict=False, description="when the drill is broken off")
    ] = ()
    steps: Annotated[Steps, Field(description="the steps")]

    @property
    def name(self) -> str:
        """Its name: that of its file."""
        return self.file.stem

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        breaks = self.steps.simulate_failure is not None
        if breaks and self.target.kind != "service":
            raise ValueError("simulate_failure breaks something, so target has to be of kind service")
        if breaks and not self.steps.verify_failover:
            raise ValueError("verify_failover is empty, so that nothing would show that the fault was there")
        if breaks and not self.steady_state:
            raise ValueError("steady_state is empty, so that what is broken already could be drilled")
        if self.on_full_backup and self.target.kind != "backups":
            raise ValueError("on_full_backup is for targets of kind backups only")
        return self


def scenario_files(include_dir: Path) -> list[Path]:
    """Return the files of scenarios, by name; :func:`load_scenario` refuses those with an odd one.

    :param include_dir: the folder of the definition files
    """
    return sorted((include_dir / SCENARIO_FOLDER).glob("*.y*ml"))


def drill_dag_id(file: Path) -> str:
    """Return the id of the DAG of a file; that of one whose name cannot be a scenario's has a digest in it,
    so that it takes no other's.

    :param file: in ``include/disaster_recovery``
    """
    if _is_named_right(file):
        return f"disaster_recovery_{file.stem}"
    safe = re.sub(r"[^a-z0-9_]", "_", file.stem.lower())[:40]
    return f"disaster_recovery_{safe}_{hashlib.sha256(file.name.encode()).hexdigest()[:6]}"


def load_scenario(file: Path) -> Scenario:
    """Read one scenario.

    :param file: in ``include/disaster_recovery``
    :raises DefinitionError: it cannot be read, is broken, or has a name that cannot be a scenario's
    """
    if not _is_named_right(file):
        raise DefinitionError(
            file,
            [
                Problem(
                    "",
                    "has a name that cannot be a scenario's; expected a lower-case letter, then at most 59"
                    f" lower-case letters, digits and '_', then .yaml; not {', '.join(sorted(RESERVED))}",
                )
            ],
        )
    return read_definition_file(file, Scenario)


def _is_named_right(file: Path) -> bool:
    name = file.stem
    return file.suffix == ".yaml" and bool(re.fullmatch(SCENARIO_PATTERN, name)) and name not in RESERVED
