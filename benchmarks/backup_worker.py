"""One operation of the backup engine in a process of its own, so that start-up and imports count.

A backup takes the components that the tree has and publishes them as a set, and a restore restores the
newest set, as the DAGs do. It can count its requests and what
they carry. Credentials and passphrase come from the environment.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core import backup

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from fastvlm_ops.core.backup import Progress, Repository, Source

PASSPHRASE_VARIABLE = "FASTVLM_BENCHMARK_PASSPHRASE"  # noqa: S105 - the name of a variable
DATABASE = Path("database") / "operations.db"


def _sources(tree: Path, scratch: Path) -> dict[str, Source]:
    sources: dict[str, Source] = {
        "models": backup.FolderSource(tree / "models"),
        "configuration": backup.FolderSource(tree / "configuration"),
        "database": backup.SQLiteSource(tree / DATABASE, scratch_dir=scratch),
    }
    return {name: source for name, source in sources.items() if (tree / name).exists()}


class Traffic:
    """Counts requests by operation, retries too, and the bytes of their bodies and of the answers'.

    :param client: whose requests are counted from now on
    """

    def __init__(self, client: S3Client) -> None:
        self._lock = threading.Lock()
        self.begin()
        client.meta.events.register("before-send.s3", self._before_send)
        client.meta.events.register("response-received.s3", self._response_received)

    def begin(self) -> None:
        """Count from zero."""
        self._requests: Counter[str] = Counter()
        self._sent_bytes = 0
        self._received_bytes = 0

    def add(self, counted: dict[str, Any]) -> None:
        """Add what another process counted."""
        self._requests.update(counted["requests"])
        self._sent_bytes += counted["sent_bytes"]
        self._received_bytes += counted["received_bytes"]

    def _before_send(self, request: Any, event_name: str, **_: Any) -> None:
        with self._lock:
            self._requests[event_name.rpartition(".")[2]] += 1
            self._sent_bytes += int(request.headers.get("Content-Length", 0))

    def _response_received(self, response_dict: Any, event_name: str, **_: Any) -> None:
        if response_dict is None or event_name.rpartition(".")[2].startswith("Head"):
            return
        with self._lock:
            self._received_bytes += int(response_dict["headers"].get("content-length", 0))

    def as_dict(self) -> dict[str, Any]:
        """Everything that was counted."""
        return {
            "requests": dict(sorted(self._requests.items())),
            "sent_bytes": self._sent_bytes,
            "received_bytes": self._received_bytes,
        }


def _show(progress: Progress) -> None:
    print(progress.line(), file=sys.stderr, flush=True)


def _side_by_side(
    repository: Repository,
    work: Callable[[Repository, str], None],
    names: list[str],
    traffic: Traffic | None,
) -> None:
    """The components beside each other, in a process each, as Airflow runs the mapped tasks.

    :raises SystemExit: one of them failed
    """
    processes = multiprocessing.get_context("fork")
    counted = processes.SimpleQueue()

    def run(clone: Repository, name: str) -> None:
        if traffic:
            traffic.begin()
        work(clone, name)
        if traffic:
            counted.put(traffic.as_dict())

    clones = repository.beside(len(names))
    repository.storage.client.close()  # each process has connections of its own
    gc.freeze()  # or the children's collectors would copy every page of what they share
    started = [processes.Process(target=run, args=task) for task in zip(clones, names, strict=True)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    if failed := [name for name, process in zip(names, started, strict=True) if process.exitcode]:
        sys.exit(f"failed: {', '.join(failed)}")
    while traffic and not counted.empty():
        traffic.add(counted.get())


def _back_up(repository: Repository, arguments: argparse.Namespace, traffic: Traffic | None) -> None:
    sources = _sources(arguments.tree, arguments.scratch)

    def back_up(repository: Repository, component: str) -> None:
        result = backup.create_snapshot(
            repository,
            sources[component],
            component=component,
            kind=arguments.kind,
            run_key=arguments.run_key,
            progress=_show,
        )
        print(result.as_dict())

    repository.require_conditional_writes()
    _ = backup.create_snapshot  # is imported now, and not by each process
    _side_by_side(repository, back_up, list(sources), traffic)
    backup.publish_set(
        repository,
        set_id=arguments.run_key,
        kind=arguments.kind,
        run_key=arguments.run_key,
        components=list(sources),
        timestamp=datetime.now(UTC),
    )


def _restore(repository: Repository, arguments: argparse.Namespace, traffic: Traffic | None) -> None:
    snapshots = {
        member.component: member.snapshot_id for member in backup.select_set(repository, "latest").snapshots
    }

    def restore(repository: Repository, component: str) -> None:
        target = arguments.target / component
        print(backup.restore_snapshot(repository, snapshots[component], target, progress=_show).as_dict())

    _side_by_side(repository, restore, list(snapshots), traffic)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint-url", required=True)
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--traffic", type=Path, help="JSON file for the number of requests and their bytes")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("initialise")
    create = actions.add_parser("create")
    create.add_argument("--kind", choices=["full", "incremental"], required=True)
    create.add_argument("--run-key", required=True)
    create.add_argument("--tree", type=Path, required=True)
    create.add_argument("--scratch", type=Path, required=True)
    restore = actions.add_parser("restore")
    restore.add_argument("--target", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Do what the command line says."""
    arguments = _arguments()
    client = backup.create_client(endpoint_url=arguments.endpoint_url)
    traffic = Traffic(client) if arguments.traffic else None
    storage = backup.S3Storage(client, arguments.bucket)
    passphrase = os.environ[PASSPHRASE_VARIABLE]
    if arguments.action == "initialise":
        backup.initialise_repository(storage, passphrase)
    elif arguments.action == "create":
        _back_up(backup.open_repository(storage, passphrase, chunks=True), arguments, traffic)
    else:
        _restore(backup.open_repository(storage, passphrase, chunks=True), arguments, traffic)
    if traffic:
        arguments.traffic.write_text(json.dumps(traffic.as_dict()))


if __name__ == "__main__":
    main()
