"""What is known of a run, and of what it is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from statistics import median
from typing import Any

import numpy as np

from fastvlm_ops.core.coreml.devices.interface import Failure, FailureCode, SessionResult
from fastvlm_ops.core.coreml.turns import Turns
from fastvlm_ops.core.coreml.verdicts import Metric

_QUANTILES = {Metric.LATENCY_P50: 0.5, Metric.LATENCY_P90: 0.9}


@dataclass(frozen=True)
class RunRecord:
    """One model version on one device with one compute unit, in one run.

    :param run_key: of the run; the same for all models and devices of it
    :param device: a :class:`Device` as JSON; only ``name`` where it was never found
    :param model: as in ``coreml.yaml``
    :param version: of the package
    :param digest: of the package's bytes
    :param compute_unit: that Core ML was allowed to use
    :param epoch: key of :class:`~fastvlm_ops.core.coreml.epochs.Epoch`
    :param hardware_class: what the device is; results of different classes are never compared
    :param sessions: all of them, in order, those that failed too
    :param confirming_from: index of the first session that was run again to confirm a suspicion; None where
        none was: the verdict of a suspicion comes from these sessions alone
    :param failure: why there are no sessions, or not all; None where the run is whole
    :param parity: a :class:`Parity` as JSON, against the golden outputs; None where there are none
    :param turns: beside the accepted version; None where the device takes none, or there is no other version
    :param inspection: an :class:`Inspection` as JSON
    :param toolchain: versions of what ran the model
    :param started_at: ISO 8601, UTC
    """

    run_key: str
    device: dict[str, Any]
    model: str
    version: str
    digest: str
    compute_unit: str
    epoch: str
    hardware_class: str
    sessions: tuple[SessionResult, ...] = ()
    confirming_from: int | None = None
    failure: Failure | None = None
    parity: dict[str, Any] | None = None
    turns: Turns | None = None
    inspection: dict[str, Any] | None = None
    toolchain: dict[str, str] = field(default_factory=dict)
    started_at: str = ""

    @property
    def device_name(self) -> str:
        """As in ``coreml.yaml``."""
        return str(self.device["name"])

    @property
    def good_sessions(self) -> tuple[SessionResult, ...]:
        """Those that did not fail."""
        return tuple(one for one in self.sessions if one.failure is None)

    def values(self, metric: Metric) -> list[float]:
        """Return one value a session that has one, in the order of the sessions.

        :param metric: latency, load or memory
        """
        return _known(session_value(one, metric) for one in self.good_sessions)

    def values_of_looks(self, metric: Metric) -> tuple[list[float], list[float]]:
        """Return the values of the first look, and of the sessions that were run to confirm it.

        :param metric: latency, load or memory
        """
        looks: tuple[list[SessionResult], list[SessionResult]] = ([], [])
        for one in self.good_sessions:
            looks[self.confirming_from is not None and one.index >= self.confirming_from].append(one)
        first, fresh = (_known(session_value(one, metric) for one in look) for look in looks)
        return first, fresh

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values["sessions"] = [one.as_dict() for one in self.sessions]
        values["failure"] = self.failure.as_dict() if self.failure else None
        values["turns"] = asdict(self.turns) if self.turns else None
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunRecord:
        """From JSON."""
        failure, turns = values["failure"], values.get("turns")
        pairs = tuple((one, other) for one, other in turns["pairs_ms"]) if turns else ()
        return cls(
            **{
                **values,
                "turns": Turns(turns["version"], turns["digest"], pairs) if turns else None,
                "sessions": tuple(SessionResult.from_dict(one) for one in values["sessions"]),
                "failure": Failure(FailureCode(failure["code"]), failure["detail"]) if failure else None,
            }
        )


@dataclass(frozen=True)
class BaselineRecord:
    """What was accepted of one model on one device with one compute unit.

    Runs of all epochs may be in it: only those of the candidate's epoch are compared with it, and where there
    are none, the newest run tells what has changed.

    :param runs: accepted ones, oldest first, at least one. The last sessions of them are compared with; runs
        before those tell how much nights differ by themselves, so a dozen runs serve better than three
    :param accepted_at: when the newest was accepted; ISO 8601, UTC
    :param accepted_by: ``green``, or the user who approved it
    """

    runs: tuple[RunRecord, ...]
    accepted_at: str = ""
    accepted_by: str = "green"

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("a baseline without runs; give None where nothing was accepted")

    @property
    def newest(self) -> RunRecord:
        """The run that was accepted last."""
        return self.runs[-1]

    @property
    def epoch(self) -> str:
        """Of the newest run."""
        return self.newest.epoch

    def of_epoch(self, epoch: str) -> tuple[RunRecord, ...]:
        """Return the runs of an epoch, oldest first.

        :param epoch: its key
        """
        return tuple(run for run in self.runs if run.epoch == epoch)


def session_value(session: SessionResult, metric: Metric) -> float | None:
    """Return what a session says of a metric, or None where it does not tell.

    :param session: that did not fail
    :param metric: latency, load or memory
    """
    if metric in _QUANTILES:
        return float(np.quantile(session.samples_ms, _QUANTILES[metric])) if session.samples_ms else None
    if metric is Metric.LOAD_COLD:
        return session.load_cold_ms
    if metric is Metric.LOAD_WARM:
        return median(session.load_warm_ms) if session.load_warm_ms else None
    if metric is Metric.PEAK_MEMORY:
        return None if session.peak_memory_bytes is None else float(session.peak_memory_bytes)
    raise ValueError(f"{metric} has no value a session")


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
