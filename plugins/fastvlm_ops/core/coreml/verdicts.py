"""What is said of a run: one judgement a metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What is said of one metric."""

    OK = "OK"
    REGRESSION = "REGRESSION"
    IMPROVEMENT = "IMPROVEMENT"
    UNSTABLE = "UNSTABLE"  # the sessions do not agree with each other: nothing can be said
    INSUFFICIENT = "INSUFFICIENT"  # too few sessions, or nothing to compare with
    MISSING = "MISSING"  # the device could not be had
    FAILED = "FAILED"  # the device was there, and the model gave no result


class Metric(StrEnum):
    """What is judged."""

    STATUS = "status"
    LATENCY_P50 = "latency_p50"
    LATENCY_P90 = "latency_p90"
    LATENCY_TREND = "latency_trend"  # over the nightly history, where each step was too small to see
    LATENCY_TURNS = "latency_turns"  # beside the accepted version, in one process
    LOAD_COLD = "load_cold"
    LOAD_WARM = "load_warm"
    PEAK_MEMORY = "peak_memory"
    SIZE = "size"
    FLOPS = "flops"
    PARITY = "parity"
    PLACEMENT = "placement"
    COMPRESSION = "compression"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is said of one metric, wherever it was measured.

    :param verdict: what is said
    :param baseline_value: of the accepted baseline: ms, bytes, operations, dB or a share; None where there is
        none
    :param value: of the run, in the same unit
    :param change: of the value in parts of the baseline's: 0.05 is 5 % more
    :param p_value: chance of a difference like this among unchanged models; None of what is not statistical
    :param confidence: 1 less the p value; 1 of what is exact; None where nothing was compared
    :param reason: one sentence for a person
    :param gate: whether the verdict counts for the release; what only informs does not
    :param details: what else is known: ``low`` and ``high`` of the change, sessions, operations that moved …
    """

    verdict: Verdict
    baseline_value: float | None = None
    value: float | None = None
    change: float | None = None
    p_value: float | None = None
    confidence: float | None = None
    reason: str = ""
    gate: bool = True
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement(Finding):
    """What is said of one metric of a run.

    :param device: as in ``coreml.yaml``
    :param model: likewise
    :param compute_unit: that Core ML was allowed to use
    :param metric: of which
    """

    device: str
    model: str
    compute_unit: str
    metric: Metric

    @property
    def stops_release(self) -> bool:
        """Whether the release stops for it. Whether it also stops for MISSING is a policy, not told here."""
        return self.gate and self.verdict in (Verdict.REGRESSION, Verdict.FAILED)

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "metric": str(self.metric), "verdict": str(self.verdict)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Judgement:
        """From JSON."""
        return cls(
            **{**values, "metric": Metric(values["metric"]), "verdict": Verdict(values["verdict"])},
        )
