"""Where a model stands on a device with a compute unit: its newest run, and what was said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from fastvlm_ops.core.coreml.devices.interface import HardwareClass
from fastvlm_ops.core.coreml.verdicts import Metric, Verdict
from fastvlm_ops.ui import addresses, formats
from fastvlm_ops.ui.rows import Row

STALE_AFTER = timedelta(days=3)
"""Benchmarks run every night: what was not measured for longer may have changed without anybody noticing."""
NOT_JUDGED, NOT_MEASURED, STALE = "not judged", "not measured", "stale"
IDENTICAL_DB = 200.0
"""What stands for the PSNR of outputs that do not differ at all."""

_ORDER = (
    *(Verdict.REGRESSION, Verdict.FAILED, Verdict.MISSING, Verdict.UNSTABLE, Verdict.INSUFFICIENT),
    *(NOT_JUDGED, NOT_MEASURED, STALE, Verdict.IMPROVEMENT, Verdict.OK),
)
"""Worst first. What is not known to be good stands before what is."""
_TONES: Mapping[str, str] = {
    **dict.fromkeys((Verdict.REGRESSION, Verdict.FAILED, Verdict.MISSING), "bad"),
    **dict.fromkeys((Verdict.UNSTABLE, Verdict.INSUFFICIENT, NOT_JUDGED, NOT_MEASURED, STALE), "warn"),
    **dict.fromkeys((Verdict.IMPROVEMENT, Verdict.OK), "good"),
}
CLASS_TITLES: Mapping[str, str] = {
    HardwareClass.IPHONE: "iPhone",
    HardwareClass.IPAD: "iPad",
    HardwareClass.MAC: "Mac",
    HardwareClass.LINUX_REFERENCE: "not Apple hardware",
}
METRIC_TITLES: Mapping[str, str] = {
    Metric.STATUS: "run",
    Metric.LATENCY_P50: "latency, median",
    Metric.LATENCY_P90: "latency, p90",
    Metric.LATENCY_TREND: "latency, trend",
    Metric.LATENCY_TURNS: "latency, in turns",
    Metric.LOAD_COLD: "first load",
    Metric.LOAD_WARM: "later loads",
    Metric.PEAK_MEMORY: "peak memory",
    Metric.SIZE: "size",
    Metric.FLOPS: "operations",
    Metric.PARITY: "parity",
    Metric.PLACEMENT: "placement",
    Metric.COMPRESSION: "compression",
}
_MOVED = ("operation", "kind", "before", "after", "cost_share", "is_new")
UNITS_OF_COST = (("ane", "Neural Engine"), ("gpu", "GPU"), ("cpu", "CPU"), ("unknown", "unknown"))


def write_ms(value: float | None) -> str:
    """Return a time for people."""
    return formats.amount(value, "ms")


def write_db(value: float | None) -> str:
    """Return a PSNR for people."""
    if value is not None and value >= IDENTICAL_DB:
        return "identical"
    return formats.amount(value, "dB")


def _write_bytes(value: float | None) -> str:
    return formats.size(None if value is None else round(value))


def _write_difference(decibels: float) -> str:
    text = f"{decibels:+.1f} dB".replace("-", "\u2212")
    return "±0.0 dB" if text[1:] == "0.0 dB" else text


def _write_elsewhere(value: float | None) -> str:
    # What is judged is the share of the cost beside the unit that has most of it.
    return formats.UNKNOWN if value is None else f"{formats.share(value)} elsewhere"


_WRITTEN: Mapping[str, Callable[[float | None], str]] = {
    **dict.fromkeys((Metric.LATENCY_P50, Metric.LATENCY_P90, Metric.LATENCY_TREND), write_ms),
    **dict.fromkeys((Metric.LATENCY_TURNS, Metric.LOAD_COLD, Metric.LOAD_WARM), write_ms),
    **dict.fromkeys((Metric.PEAK_MEMORY, Metric.SIZE), _write_bytes),
    Metric.FLOPS: formats.amount,
    Metric.PARITY: write_db,
    Metric.PLACEMENT: _write_elsewhere,
    Metric.COMPRESSION: formats.share,
}


class Subject(NamedTuple):
    """What is measured."""

    model: str
    device: str
    compute_unit: str

    def address(self, run_key: str = "") -> str:
        """Return its page, below the pages' root.

        :param run_key: whose verdicts are shown; empty for the newest
        """
        return addresses.coreml_detail(*self, run_key)


def rank(verdict: str) -> int:
    """Return how bad a verdict is, 0 the worst; one that is not known here is as bad as that."""
    return _ORDER.index(verdict) if verdict in _ORDER else 0


def tone(verdict: str) -> str:
    """Return the colour of a verdict: ``good``, ``warn`` or ``bad``."""
    return _TONES.get(verdict, "bad")


@dataclass(frozen=True)
class Judged(Row):
    """One metric of a run, as a row of ``coreml_verdict`` has it."""

    @property
    def title(self) -> str:
        return METRIC_TITLES.get(self.row["metric"], self.row["metric"])

    @property
    def tone(self) -> str:
        return tone(self.row["verdict"])

    @property
    def low(self) -> float | None:
        """Lower end of the change's interval; None where it has none."""
        return _number(self.row["details"], "low")

    @property
    def high(self) -> float | None:
        """Upper end."""
        return _number(self.row["details"], "high")

    @property
    def moved_operations(self) -> list[dict[str, Any]]:
        """Operations that are planned elsewhere than before: name, kind, units and share of the cost."""
        moved = self.row["details"].get("moved") if isinstance(self.row["details"], Mapping) else None
        found = [one for one in moved if isinstance(one, Mapping)] if isinstance(moved, list) else []
        return [{name: one.get(name) for name in _MOVED} for one in found]

    @property
    def written_change(self) -> str:
        """The change for people; of decibels and shares the difference, since they are no amounts."""
        before, now = self.row["baseline_value"], self.row["value"]
        if self.row["metric"] in (Metric.PLACEMENT, Metric.COMPRESSION, Metric.PARITY):
            if before is None or now is None:
                return ""
            if self.row["metric"] == Metric.PARITY:
                return _write_difference(now - before)
            return formats.change(now - before).removesuffix("%") + "points"
        return "" if self.row["change"] is None else formats.change(self.row["change"])

    def write(self, value: float | None) -> str:
        """Return a value of this metric for people; nothing where the metric has none.

        :param value: of the run, or of its baseline
        """
        write = _WRITTEN.get(self.row["metric"])
        return write(value) if write is not None else ""

    @property
    def order(self) -> tuple[bool, int, int]:
        """What comes first: what stops a release, then what is worst, then as metrics are listed."""
        names = list(METRIC_TITLES)
        place = names.index(self.row["metric"]) if self.row["metric"] in names else len(names)
        return not self.row["gate"], rank(self.row["verdict"]), place


@dataclass(frozen=True)
class Standing:
    """A subject, and what is known of it.

    :param run: its row of ``coreml_run``; None where it was never measured
    :param judged: of that run, what stops a release and is worst first
    :param hardware_class: of the device, also where its newest run did not find it; None where it never was
    :param declared: whether ``coreml.yaml`` has it; None where that cannot be read
    :param is_newest: whether no later run has measured it
    :param now: what its newest run is too old by
    :param recent: median latency of the last runs in ms, oldest first; None where a run gave none
    """

    subject: Subject
    run: Mapping[str, Any] | None = None
    judged: Sequence[Judged] = ()
    hardware_class: str | None = None
    declared: bool | None = None
    is_newest: bool = True
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    recent: Sequence[tuple[datetime, float | None]] = field(default=())

    @property
    def gating(self) -> list[Judged]:
        """What counts for a release."""
        return [one for one in self.judged if one.gate]

    @property
    def said(self) -> str:
        """The worst of what counts for a release, when it was said."""
        return min((one.verdict for one in self.gating), key=rank, default=NOT_JUDGED)

    @property
    def verdict(self) -> str:
        """The same, as long as it is no older than benchmarks should ever be."""
        if self.run is None:
            return NOT_MEASURED
        return STALE if self.is_stale and tone(self.said) == "good" else self.said

    @property
    def is_stale(self) -> bool:
        """Whether it should have been measured again since."""
        if self.run is None or self.declared is False or not self.is_newest:
            return False
        return bool(self.now - self.run["measured_at"] > STALE_AFTER)

    @property
    def tone(self) -> str:
        return tone(self.verdict)

    @property
    def worst(self) -> list[Judged]:
        """What its verdict comes from."""
        return [one for one in self.gating if one.verdict == self.verdict]

    @property
    def reason(self) -> str:
        """Why it is not good; empty where it is."""
        if self.run is None:
            return "coreml.yaml has it, and no run has measured it yet"
        if self.verdict == NOT_JUDGED:
            return self.run["failure_detail"] or "it was measured, and not compared with anything"
        if self.verdict == STALE:
            return (
                f"it was {self.said} {formats.ago(self.run['measured_at'], self.now)}, and not measured since"
            )
        return "" if self.tone == "good" and self.verdict != Verdict.IMPROVEMENT else self.worst[0].reason

    @property
    def is_apple(self) -> bool:
        return self.hardware_class != HardwareClass.LINUX_REFERENCE

    @property
    def urgency(self) -> tuple[bool, int, bool, Subject]:
        """What comes first on the list. What nobody wants to know any more comes last."""
        return self.declared is False, rank(self.verdict), not self.is_apple, self.subject

    def of(self, metric: str) -> Judged | None:
        """Return what was said of one metric."""
        return next((one for one in self.judged if one.metric == metric), None)

    @property
    def shares(self) -> list[tuple[str, str, float]]:
        """Unit, its name and its share of the planned cost; empty where no plan is known."""
        return cost_shares(self.run or {})


def cost_shares(run: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """Return which unit is planned for which share of a model's cost; empty where that is unknown.

    :param run: a row of ``coreml_run``
    """
    found = [(unit, title, run.get(f"cost_share_{unit}")) for unit, title in UNITS_OF_COST]
    return [(unit, title, float(share)) for unit, title, share in found if share]


def worst_first(rows: Iterable[Mapping[str, Any]]) -> list[Judged]:
    """Return rows of ``coreml_verdict`` in the order in which people want them."""
    return sorted((Judged(row) for row in rows), key=lambda one: one.order)


def _number(details: Any, name: str) -> float | None:
    value = details.get(name) if isinstance(details, Mapping) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
