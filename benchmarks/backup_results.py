"""What came of the benchmark of backups: all costs, the figures that have targets, both as rows of tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from importlib import metadata
from statistics import median
from typing import Any

from benchmarks.backup_tools import NOTE, OURS, RESTIC
from benchmarks.backup_workload import MIB
from benchmarks.figures import Figure
from benchmarks.measuring import Cost
from benchmarks.running import load_average, machine, versions

OPERATIONS = ("full", "incremental", "unchanged", "restore")

_SCALES = {"s": 1, "B": 1, "MiB": MIB}


@dataclass
class Samples:
    """What was measured: operation → program → cost of each round; and repository sizes at the end."""

    costs: dict[str, dict[str, list[Cost]]] = field(default_factory=dict)
    stored_bytes: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def from_details(cls, details: dict[str, Any]) -> Samples:
        """Read back what ``describe_run`` described."""
        samples = cls(stored_bytes=details["stored_bytes"])
        for operation, tools in details["runs"].items():
            for tool, costs in tools.items():
                for cost in costs:
                    samples.add(operation, tool, Cost(**cost))
        return samples

    def add(self, operation: str, tool: str, cost: Cost) -> None:
        """Add a run."""
        self.costs.setdefault(operation, {}).setdefault(tool, []).append(cost)

    def median(self, operation: str, tool: str, what: str) -> float | None:
        """Median over the rounds; None where the program was not run."""
        costs = self.costs.get(operation, {}).get(tool)
        return float(median(getattr(cost, what) for cost in costs)) if costs else None


@dataclass(frozen=True)
class Quantity:
    """Something that is compared, and how it is found in the samples.

    :param name: of it
    :param unit: of the figure
    :param target: for the ratio to restic's; for the value itself where ``absolute``
    :param what: field of a cost; or ``stored_bytes``, in the repository at the end
    :param operations: whose median it is; of several, the largest
    :param absolute: whether the target is for the value itself
    """

    name: str
    unit: str
    target: float
    what: str
    operations: tuple[str, ...] = ()
    absolute: bool = False

    def value(self, samples: Samples, tool: str) -> float | None:
        """Of a program, in the figure's unit; None where it was not run."""
        if self.what == "stored_bytes":
            sizes = samples.stored_bytes.get(tool)
            return median(sizes) / MIB if sizes else None
        medians = [samples.median(operation, tool, self.what) for operation in self.operations]
        found = [value for value in medians if value is not None]
        return max(found) / _SCALES[self.unit] if found else None


QUANTITIES = (
    Quantity("incremental backup, bytes sent", "MiB", 0.45, "sent_bytes", ("incremental",)),
    Quantity("incremental backup, wall time", "s", 0.40, "wall_seconds", ("incremental",)),
    Quantity("peak memory of any operation", "MiB", 256, "memory_bytes", OPERATIONS, absolute=True),
    Quantity("full backup, wall time", "s", 0.65, "wall_seconds", ("full",)),
    Quantity("full backup, CPU time", "s", 0.45, "cpu_seconds", ("full",)),
    Quantity("stored after both backups", "MiB", 0.88, "stored_bytes"),
    Quantity("restore, wall time", "s", 0.80, "wall_seconds", ("restore",)),
    Quantity("nothing changed, wall time", "s", 0.90, "wall_seconds", ("unchanged",)),
    Quantity("nothing changed, bytes sent", "B", 2048, "sent_bytes", ("unchanged",), absolute=True),
)


def make_figures(samples: Samples, peers: dict[str, str]) -> list[Figure]:
    """The figures, each beside restic's.

    :param samples: of all rounds
    :param peers: of each peer its name and version, or why it was not run
    """
    figures = []
    for quantity in QUANTITIES:
        ours = quantity.value(samples, OURS)
        assert ours is not None  # ours is always run
        beside = () if quantity.absolute else (peers[RESTIC], quantity.value(samples, RESTIC))
        figures.append(Figure(quantity.name, ours, quantity.unit, quantity.target, *beside))
    return figures


def costs_rows(samples: Samples) -> list[tuple[str, ...]]:
    """All medians as rows of a table, a head first."""
    rows: list[tuple[str, ...]] = [("operation", "program", "wall s", "CPU s", "memory MiB", "sent MiB")]
    for operation, tools in samples.costs.items():
        for tool, costs in tools.items():
            wall = [cost.wall_seconds for cost in costs]
            middle = {what: samples.median(operation, tool, what) or 0 for what in asdict(costs[0])}
            rows.append(
                (
                    operation,
                    tool,
                    f"{middle['wall_seconds']:.2f} ({min(wall):.2f} to {max(wall):.2f})",
                    f"{middle['cpu_seconds']:.2f}",
                    f"{middle['memory_bytes'] / MIB:.0f}",
                    f"{middle['sent_bytes'] / MIB:.3f}",
                )
            )
    return rows


def beside_rows(samples: Samples, peers: dict[str, str], versions: dict[str, str]) -> list[tuple[str, ...]]:
    """The figures with every program beside them, as rows of a table, a head first.

    :param versions: of what was run
    """
    names = [name for name in peers if name in samples.costs["full"]]
    head = ("", f"{OURS} {versions[OURS]}", *(peers[name] for name in names), "of restic's", "target", "")
    rows: list[tuple[str, ...]] = [head]
    for quantity, figure in zip(QUANTITIES, make_figures(samples, peers), strict=True):
        values = [quantity.value(samples, tool) for tool in (OURS, *names)]
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        rows.append(
            (
                figure.name,
                *(_in_unit(value, quantity.unit) for value in values),
                ratio,
                figure.target_in_words,
                "met" if figure.met else "missed",
            )
        )
    return rows


def _in_unit(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = {"s": 2, "B": 0, "MiB": 1}[unit]
    return f"{value:,.{digits}f} {unit}"


def describe_run(
    samples: Samples, peers: dict[str, str], workload: dict[str, int], load: list[float]
) -> dict[str, Any]:
    """Everything that is needed to judge the figures: machine, versions, workload and each single run."""
    return {
        "machine": machine(),
        "versions": {OURS: metadata.version("fastvlm-ops"), **versions()},
        "peers": peers,
        "note": NOTE,
        "workload_bytes": workload,
        "load_average": {"before": load, "after": load_average()},
        "runs": {
            operation: {tool: [asdict(cost) for cost in costs] for tool, costs in tools.items()}
            for operation, tools in samples.costs.items()
        },
        "stored_bytes": samples.stored_bytes,
    }
