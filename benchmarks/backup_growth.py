"""How backup and restore grow: from 1 to 10 GiB in one file, and from 1,000 to 200,000 small files.

    make bench-backup-growth                 about fifteen minutes, up to 30 GB of disk
    make bench-backup-growth ARGS=--quick    small ones, to see that it works

Each step has a tree and a bucket of its own: a full backup, an incremental one of what has not changed, and a
restore that is compared with the tree; then all of it is removed. Each runs once, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.backup_tools import OURS, Place, Tool, our_tool
from benchmarks.backup_workload import MIB
from benchmarks.figures import RESULTS, Figure, figures_table, table, write_figures, write_json
from benchmarks.measuring import Cost, MeasuredCommandError, measure
from benchmarks.running import (
    ROOT,
    in_words,
    load_average,
    machine,
    say,
    settle,
    versions,
    warn_of_load,
    work_folder,
)
from fastvlm_ops.core.backup import format_bytes
from fastvlm_ops.local.compare import compare_trees
from fastvlm_ops.local.seaweedfs import SeaweedFS

OPERATIONS = ("full", "unchanged", "restore")
BIG_FILE_MIB = 6 * 1024

_BLOCK_BYTES = 32 * MIB
_DISTINCT_BLOCKS = 1 << 10  # one for each way to flip the ten bits of an fp16's fraction
_FILE_BYTES = (200, 2048)
_FILES_IN_FOLDER = 500
_TIMEOUT_SECONDS = 1800


@dataclass(frozen=True)
class Step:
    """A tree of one size.

    :param name: for people
    :param file_mib: size of the one file it consists of; 0 where it consists of small ones
    :param files: number of small files
    """

    name: str
    file_mib: int = 0
    files: int = 0

    @property
    def disk_bytes(self) -> int:
        """Needed for the tree, what is stored of it, and what is restored from that."""
        return int(2.9 * self.file_mib * MIB) + self.files * 3 * 4096 + 512 * MIB


STEPS = (
    Step("1 GiB", file_mib=1024),
    Step("2 GiB", file_mib=2048),
    Step("5 GiB", file_mib=5120),
    Step("6 GiB", file_mib=BIG_FILE_MIB),
    Step("10 GiB", file_mib=10240),
    Step("1,000 files", files=1_000),
    Step("10,000 files", files=10_000),
    Step("50,000 files", files=50_000),
    Step("200,000 files", files=200_000),
)
QUICK_STEPS = (Step("33 MiB", file_mib=33), Step("200 files", files=200))


class GrowthError(Exception):
    """A step could not be run, or restored something else than was backed up."""


@dataclass(frozen=True)
class Measurement:
    """One operation of one step.

    :param cost: of its process
    :param requests: to S3, by verb, repeated ones too
    :param received_bytes: in the bodies of the answers; what was sent is in the cost
    """

    cost: Cost
    requests: dict[str, int]
    received_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """For the details."""
        return {**asdict(self.cost), "received_bytes": self.received_bytes, "requests": self.requests}


@dataclass
class Growth:
    """What was measured: step → operation → measurement."""

    measured: dict[str, dict[str, Measurement]] = field(default_factory=dict)

    def most_memory(self, steps: Sequence[Step], operations: Sequence[str] = OPERATIONS) -> float:
        """The most memory, in MiB, that any of the operations held in any of the steps."""
        return max(
            self.measured[step.name][operation].cost.memory_bytes / MIB
            for step in steps
            for operation in operations
        )

    def as_dict(self) -> dict[str, Any]:
        """For the details."""
        return {
            step: {operation: measurement.as_dict() for operation, measurement in operations.items()}
            for step, operations in self.measured.items()
        }


# -- trees -----------------------------------------------------------------------------------------


def make_tree(step: Step, tree: Path, seed: int = 7) -> None:
    """Make the tree of a step.

    :param tree: folder that is made
    """
    if step.file_mib:
        _make_weights(tree / "models" / "weights.bin", step.file_mib * MIB, seed)
    else:
        _make_files(tree / "configuration", step.files, seed)


def _make_weights(file: Path, size_bytes: int, seed: int) -> None:
    """Weights that never repeat: copies of a random block, each with other bits of the fractions flipped."""
    if size_bytes > _DISTINCT_BLOCKS * _BLOCK_BYTES:
        raise ValueError(f"at most {format_bytes(_DISTINCT_BLOCKS * _BLOCK_BYTES)} differ")
    chance = np.random.Generator(np.random.SFC64(seed))
    values = chance.standard_normal(_BLOCK_BYTES // 2, dtype=np.float32) * np.float32(0.02)
    block = values.astype(np.float16).view(np.uint16)
    file.parent.mkdir(parents=True)
    with file.open("wb") as output:
        for number in range(-(-size_bytes // _BLOCK_BYTES)):
            part = (block ^ np.uint16(number)).tobytes()
            output.write(part[: size_bytes - output.tell()])


def _make_files(folder: Path, count: int, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(count):
        parent = folder / f"group-{number // _FILES_IN_FOLDER:04d}"
        if number % _FILES_IN_FOLDER == 0:
            parent.mkdir(parents=True)
        content = chance.randbytes(chance.randint(*_FILE_BYTES) // 2).hex()
        (parent / f"device-{number:06d}.yaml").write_text(f"value: {content}\n")


# -- steps -----------------------------------------------------------------------------------------


def run_step(step: Step, work: Path, server: SeaweedFS) -> dict[str, Measurement]:
    """Measure all operations of a step.

    :param work: empty folder, removed afterwards
    :raises GrowthError: the disk is too full, or the wrong tree came back
    :raises MeasuredCommandError: an operation failed
    """
    free = shutil.disk_usage(work.parent).free
    if free < step.disk_bytes:
        raise GrowthError(f"{step.name}: {format_bytes(step.disk_bytes)} needed, {format_bytes(free)} free")
    work.mkdir()
    place = Place(server, work, work / "tree")
    bucket = server.make_bucket(work.name)
    try:
        say(f"{step.name}: making the tree")
        make_tree(step, place.tree)
        tool = our_tool(place, locks=False)
        _measure(tool, "initialise", bucket, place)
        found = {}
        for operation in OPERATIONS:
            say(f"{step.name}: {operation} ...", end=" ")
            found[operation] = _measure(tool, operation, bucket, place)
            print(f"{in_words(found[operation].cost)}, {sum(found[operation].requests.values())} requests")
        _verify(step, place.tree, tool.target)
    finally:
        server.client().delete_bucket(Bucket=bucket)  # this server removes what is in it too
        shutil.rmtree(work)
    return found


def _measure(tool: Tool, operation: str, bucket: str, place: Place) -> Measurement:
    traffic = place.work / f"{operation}-traffic.json"
    command = tool.commands(operation, bucket)
    assert command is not None
    at = command.index("--bucket")
    settle(place.tree if operation == "full" else None)
    cost = measure(
        [*command[:at], "--traffic", traffic, *command[at:]],
        environment=tool.environment(bucket),
        folder=tool.folder,
        log=place.work / f"{operation}.log",
        timeout_seconds=_TIMEOUT_SECONDS,
    )
    used = json.loads(traffic.read_text())
    sent_bytes, received_bytes = used.pop("sent_bytes"), used.pop("received_bytes")
    return Measurement(replace(cost, sent_bytes=sent_bytes), used, received_bytes)


def _verify(step: Step, tree: Path, target: Path) -> None:
    if differences := compare_trees(tree, target).differences:
        raise GrowthError(f"{step.name}: restored {len(differences)} things wrongly, as in: {differences[0]}")


def make_figures(growth: Growth, steps: Sequence[Step]) -> list[Figure]:
    """The figures that have targets: memory, where one file is large."""
    single = [step for step in steps if step.file_mib]
    large = next((step for step in single if step.file_mib == BIG_FILE_MIB), single[-1])
    span = f"{single[0].name} to {single[-1].name}"
    back_up, restore = OPERATIONS[:2], OPERATIONS[2:]
    return [
        Figure(f"backup of a file of {large.name}, memory", growth.most_memory([large], back_up), "MiB", 256),
        Figure(
            f"restore of a file of {large.name}, memory", growth.most_memory([large], restore), "MiB", 256
        ),
        Figure(f"any operation on one file of {span}, memory", growth.most_memory(single), "MiB", 256),
    ]


def growth_rows(measured: dict[str, dict[str, dict[str, Any]]]) -> list[tuple[str, ...]]:
    """Rows of the table, a head first.

    :param measured: as in the details
    """
    head = ("tree", "operation", "wall s", "CPU s", "memory MiB", "requests", "sent MiB", "received MiB")
    rows: list[tuple[str, ...]] = [head]
    for step, operations in measured.items():
        for operation, found in operations.items():
            rows.append(
                (
                    step,
                    operation,
                    f"{found['wall_seconds']:.1f}",
                    f"{found['cpu_seconds']:.1f}",
                    f"{found['memory_bytes'] / MIB:.0f}",
                    f"{sum(found['requests'].values()):,}",
                    f"{found['sent_bytes'] / MIB:,.3f}",
                    f"{found['received_bytes'] / MIB:,.3f}",
                )
            )
    return rows


# -- command line ----------------------------------------------------------------------------------


def run(work: Path, steps: Sequence[Step]) -> tuple[Growth, dict[str, Any]]:
    """Run all steps below a folder."""
    load = load_average()
    warn_of_load(load)
    growth = Growth()
    for number, step in enumerate(steps, 1):
        folder = work / f"step-{number}"
        # A server for each, so that nothing of a larger step before it is left in its memory or on its disk.
        with SeaweedFS(work / f"seaweedfs-{number}", die_with_parent=True) as server:
            growth.measured[step.name] = run_step(step, folder, server)
        shutil.rmtree(work / f"seaweedfs-{number}")
    return growth, {
        "machine": machine(),
        "versions": {OURS: metadata.version("fastvlm-ops"), **versions()},
        "load_average": {"before": load, "after": load_average()},
        "runs": growth.as_dict(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark, write its results and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small trees; shows no growth")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "bench-backup-growth", help="folder to work in"
    )
    parser.add_argument("--output", type=Path, help="folder for the results (benchmarks/results)")
    options = parser.parse_args(arguments)
    output = options.output or (ROOT / "build" / "bench-quick" if options.quick else RESULTS)
    steps = QUICK_STEPS if options.quick else STEPS
    try:
        with work_folder(options.work.resolve()) as work:
            growth, details = run(work, steps)
    except (MeasuredCommandError, GrowthError) as error:
        print(f"\nbench-backup-growth: {error}", file=sys.stderr)
        return 1
    figures = make_figures(growth, steps)
    write_figures(figures, output / "backup_growth.json")
    write_json(details, output / "details" / "backup_growth.json")
    print(f"\n{table(growth_rows(details['runs']))}\n\n{figures_table(figures)}")
    print(f"Written to {output / 'backup_growth.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
