"""Backup and restore beside other programs: the same tree, the same S3 server, the same run, interleaved.

    make bench-backup                   about ten minutes
    make bench-backup ARGS=--quick      a small tree and one round, to see that it works

Each round starts from fresh buckets on one SeaweedFS. For each operation the programs run one after the
other, each as a process of its own, the first to run changing from round to round; figures are medians over
the rounds. Before each run all that it will read is read into memory, and what others left to be written is
written. Every restore is compared with the tree. Set-up of the repositories is not measured.

The targets are for restic, the program to beat. rclone sync and aws s3 sync stand in the table beside it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.backup_results import OPERATIONS, Samples, costs_rows, describe_run, make_figures
from benchmarks.backup_tools import NOTE, OURS, Place, Tool, find_peers, our_tool
from benchmarks.backup_worker import DATABASE
from benchmarks.backup_workload import QUICK, Scale, Workload
from benchmarks.figures import RESULTS, Figure, figures_table, table, write_figures, write_json
from benchmarks.measuring import Cost, MeasuredCommandError, measure
from benchmarks.running import (
    ROOT,
    in_words,
    load_average,
    say,
    settle,
    warn_of_load,
    work_folder,
)
from fastvlm_ops.core.backup import format_bytes
from fastvlm_ops.local.compare import Difference, compare_trees
from fastvlm_ops.local.seaweedfs import SeaweedFS

_ROUNDS = 3
# Counters in an SQLite file's header (change counter, schema cookie, version-valid-for) that its own backup
# interface sets anew in the copy.
_SQLITE_COUNTERS = (range(24, 28), range(40, 44), range(92, 96))


class WrongRestoreError(Exception):
    """A restored tree is not the one that was backed up."""


# -- one run ---------------------------------------------------------------------------------------


class Benchmark:
    """Runs the rounds.

    :param place: where they run
    :param workload: that is backed up
    :param tools: programs to run
    """

    def __init__(self, place: Place, workload: Workload, tools: list[Tool]) -> None:
        self._place = place
        self._client = place.server.client()
        self._workload = workload
        self._tools = tools
        self._logs = place.work / "logs"
        self._logs.mkdir()
        self.samples = Samples()

    def run(self, rounds: int) -> Samples:
        """Run all rounds.

        :raises MeasuredCommandError: a command failed
        :raises WrongRestoreError: something else came back than was backed up
        """
        for number in range(rounds):
            first = number % len(self._tools)
            self._round(number + 1, self._tools[first:] + self._tools[:first], f"{number + 1} of {rounds}")
        return self.samples

    def _round(self, number: int, tools: list[Tool], label: str) -> None:
        self._workload.first_day()
        if number > 1:  # anew: it gets slower with all that has been asked of it
            self._place.server.stop()
            self._place.server.start()
            self._client = self._place.server.client()
        buckets = {tool.name: self._make_bucket(tool, number) for tool in tools}
        for operation in OPERATIONS:
            if operation == "incremental":
                self._workload.second_day()
            for tool in tools:
                say(f"round {label}: {operation}, {tool.name} {tool.version} ...", end=" ")
                cost = self._measure(tool, operation, buckets[tool.name])
                self.samples.add(operation, tool.name, cost)
                print(in_words(cost), flush=True)
                if operation == "restore":
                    self._verify(tool)
        # Not before: a file system that has just lost thousands of files makes the next ones slowly.
        shutil.rmtree(self._place.work / "restored")
        for tool in tools:
            stored = sum(size for size, _ in self._stored(buckets[tool.name]).values())
            self.samples.stored_bytes.setdefault(tool.name, []).append(stored)

    def _make_bucket(self, tool: Tool, number: int) -> str:
        """A bucket that the server has set storage aside for, and a repository in it where there is one."""
        name = f"{tool.name.replace(' ', '-')}-{number}"
        bucket = self._place.server.make_bucket(name, locks=tool.locks)
        self._client.put_object(Bucket=bucket, Key="first", Body=bytes(1))
        self._client.delete_object(Bucket=bucket, Key="first")
        if tool.commands("initialise", bucket) is not None:
            self._measure(tool, "initialise", bucket)
        return bucket

    def _measure(self, tool: Tool, operation: str, bucket: str) -> Cost:
        command = tool.commands(operation, bucket)
        assert command is not None
        before = self._stored(bucket)
        folder = self._place.work / "seaweedfs" if operation == "restore" else self._workload.tree
        settle(folder)
        cost = measure(
            command,
            environment=tool.environment(bucket),
            folder=tool.folder,
            log=self._logs / f"{bucket}-{operation}.log",
        )
        after = self._stored(bucket)
        sent = sum(state[0] for name, state in after.items() if before.get(name) != state)
        return replace(cost, sent_bytes=sent)

    def _stored(self, bucket: str) -> dict[str, tuple[int, str]]:
        """Size of each object, and what changes when it is stored again."""
        found = {}
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for item in page.get("Contents", []):
                found[item["Key"]] = item["Size"], f"{item['ETag']} {item['LastModified']}"
        return found

    def _verify(self, tool: Tool) -> None:
        tree = self._workload.tree
        differences = [
            difference
            for difference in compare_trees(tree, tool.target).differences
            if tool.must_restore(difference) and not _is_copy_of_database(difference, tool, tree)
        ]
        if differences:
            raise WrongRestoreError(
                f"{tool.name} restored {len(differences)} things wrongly, as in: {differences[0]}"
            )


def _is_copy_of_database(difference: Difference, tool: Tool, tree: Path) -> bool:
    """Whether it is the counters of the database, which we copy as SQLite wants it."""
    return (tool.name, difference.path, difference.what) == (
        OURS,
        str(DATABASE),
        "contents",
    ) and _same_database(tree / DATABASE, tool.target / DATABASE)


def _same_database(expected: Path, found: Path) -> bool:
    """Whether two SQLite files differ in nothing but the counters that making a copy sets."""
    contents = [bytearray(path.read_bytes()) for path in (expected, found)]
    for content in contents:
        for counter in _SQLITE_COUNTERS:
            content[counter.start : counter.stop] = bytes(len(counter))
    return contents[0] == contents[1]


# -- command line ----------------------------------------------------------------------------------


def run(work: Path, scale: Scale, rounds: int) -> tuple[list[Figure], dict[str, Any], Samples]:
    """Run the benchmark below a folder."""
    load = load_average()
    warn_of_load(load)
    say("making the tree that is backed up")
    workload = Workload(work, scale)
    workload.build()
    sizes = {"day_1": workload.size_bytes()}
    workload.second_day()
    sizes["day_2"] = workload.size_bytes()
    say(f"first day {format_bytes(sizes['day_1'])}, second day {format_bytes(sizes['day_2'])}")
    with SeaweedFS(work / "seaweedfs", die_with_parent=True) as server:
        place = Place(server, work, workload.tree)
        tools, peers = find_peers(place)
        say(f"peers: {'; '.join(peers.values())}")
        samples = Benchmark(place, workload, [our_tool(place, locks=True), *tools]).run(rounds)
    return make_figures(samples, peers), describe_run(samples, peers, sizes, load), samples


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
    print(f"\n{table(costs_rows(samples))}\n{textwrap.fill(NOTE, 100)}\n")
    for name, described in details["peers"].items():
        if name not in samples.costs["full"]:
            print(described)
    print(figures_table(figures))
    print(f"Medians of {len(samples.costs['full'][OURS])} round(s). Written to {output / 'backup.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
