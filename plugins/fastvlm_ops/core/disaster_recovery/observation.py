"""What an observer is told, and what it says of itself, in the folder of its drill.

::

    <folder>/probes.csv, writes.csv    the ledger
    <folder>/observation.json          how it is doing; its heartbeat
    <folder>/observer.lock             held as long as it lives
    <folder>/observer.log              what went wrong
    <folder>/rows.json                 the canary's rows, as the service last had them
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from fastvlm_ops.core.disaster_recovery.errors import InconclusiveError
from fastvlm_ops.core.disaster_recovery.fault_types import Recorded
from fastvlm_ops.core.services.instances import ProcessIdentity

OBSERVATION_FILE = "observation.json"
OBSERVER_LOCK = "observer.lock"
OBSERVER_LOG = "observer.log"
ROWS_FILE = "rows.json"

_Interval = Annotated[float, Field(ge=0.01, le=10, allow_inf_nan=False)]


class ObserverConfig(Recorded):
    """What an observer is told, on its standard input.

    :param url: where the service's users reach it
    :param prefix: of the ids of the canary's rows: the fault's id
    :param time_to_live_seconds: after which it ends by itself, whatever became of the drill
    :param request: what is asked: an inference, whose answer has to be that of the steady state, or whether
        the service is ready
    :param probe_seconds: between the beginnings of two requests
    :param write_seconds: between the beginnings of two writes
    :param timeout_seconds: for the whole of a request or a write
    """

    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    time_to_live_seconds: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
    request: Literal["infer", "ready"] = "infer"
    probe_seconds: _Interval = 0.05
    write_seconds: _Interval = 0.05
    timeout_seconds: _Interval = 1.0


class Observation(Recorded):
    """How an observer is doing. Moments are on the machine's monotonic clock.

    :param process: the observer
    :param url: that it watches
    :param prefix: of the ids of the canary's rows
    :param started_ns: when it began
    :param heartbeat_ns: when it last wrote this
    :param ended_ns: None while it runs, and where it was killed
    :param ended_by: ``stopped``: it was told to; ``time_to_live``: nobody told it; ``failed``: see its log
    :param answer: SHA-256 of the right answer, as it was in the steady state; None until there was one
    :param requests: how many were answered, rightly or not
    :param writes: how many have an outcome
    """

    process: ProcessIdentity
    url: str
    prefix: str
    started_ns: int
    heartbeat_ns: int
    ended_ns: int | None = None
    ended_by: Literal["stopped", "time_to_live", "failed"] | None = None
    answer: str | None = None
    requests: int = 0
    writes: int = 0


class CanaryRows(Recorded):
    """The canary's rows as the service had them.

    :param asked_ns: when they were asked for: what was acknowledged before has to be among them
    :param rows: id of each → SHA-256 of its payload
    """

    asked_ns: int
    rows: dict[str, str]


def read_observation(folder: Path) -> Observation | None:
    """Return how a drill's observer is doing; None where there never was one.

    :param folder: of the drill
    :raises InconclusiveError: what it wrote cannot be read
    """
    try:
        return Observation.model_validate_json((folder / OBSERVATION_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise InconclusiveError(f"{OBSERVATION_FILE} of the drill cannot be read: {error}") from error


def write_observation(folder: Path, observation: Observation) -> None:
    """Write how an observer is doing, in one step.

    :param folder: of the drill
    :param observation: of now
    """
    replace_file(folder / OBSERVATION_FILE, observation.model_dump_json())


def record_rows(folder: Path, asked_ns: int, rows: Mapping[str, str]) -> None:
    """Record the canary's rows.

    :param folder: of the drill
    :param asked_ns: when they were asked for, on the machine's monotonic clock
    :param rows: id of each → SHA-256 of its payload
    """
    replace_file(folder / ROWS_FILE, json.dumps({"asked_ns": asked_ns, "rows": dict(rows)}))


def recorded_rows(folder: Path) -> CanaryRows | None:
    """Return the canary's rows as they were last recorded; None where they never were.

    :param folder: of the drill
    :raises InconclusiveError: what was recorded cannot be read
    """
    try:
        return CanaryRows.model_validate_json((folder / ROWS_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise InconclusiveError(f"{ROWS_FILE} of the drill cannot be read: {error}") from error


def replace_file(file: Path, text: str) -> None:
    """Write a file of a drill's folder, in one step.

    :param file: that is replaced
    :param text: of it
    """
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text + "\n")
    temporary.replace(file)
