"""One operation of the backup engine in a process of its own, so that start-up and imports count.

A backup takes the components that the tree has and publishes them as a set, and a restore restores the
newest set, as the DAGs do. It can count its requests and what they
carry. Credentials and passphrase come from the environment.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fastvlm_ops.core import backup
from fastvlm_ops.core.backup.object_policy import ObjectPolicy
from fastvlm_ops.core.backup.usage import Usage

if TYPE_CHECKING:
    from fastvlm_ops.core.backup import Progress, Repository, Source

PASSPHRASE_VARIABLE = "FASTVLM_BENCHMARK_PASSPHRASE"  # noqa: S105 - the name of a variable
_POLICY = ObjectPolicy("GOVERNANCE", 30)
DATABASE = Path("database") / "operations.db"


def _sources(tree: Path, scratch: Path) -> dict[str, Source]:
    sources: dict[str, Source] = {
        "models": backup.FolderSource(tree / "models"),
        "configuration": backup.FolderSource(tree / "configuration"),
        "database": backup.SQLiteSource(tree / DATABASE, scratch_dir=scratch),
    }
    return {name: source for name, source in sources.items() if (tree / name).exists()}


def _show(progress: Progress) -> None:
    print(progress.line(), file=sys.stderr, flush=True)


def _side_by_side(
    repository: Repository,
    work: Callable[[Repository, str], None],
    names: list[str],
) -> Usage:
    """The components beside each other, in a process each, as Airflow runs the mapped tasks.

    :returns: what they have asked of S3
    :raises SystemExit: one of them failed
    """
    processes = multiprocessing.get_context("fork")
    used = processes.SimpleQueue()

    def run(clone: Repository, name: str) -> None:
        before = clone.storage.usage
        work(clone, name)
        used.put(clone.storage.usage.since(before))

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
    return sum((used.get() for _ in names), Usage())


def _back_up(repository: Repository, arguments: argparse.Namespace) -> Usage:
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
    used = _side_by_side(repository, back_up, list(sources))
    backup.publish_set(
        repository,
        set_id=arguments.run_key,
        kind=arguments.kind,
        run_key=arguments.run_key,
        components=list(sources),
        timestamp=datetime.now(UTC),
    )
    return used


def _restore(repository: Repository, arguments: argparse.Namespace) -> Usage:
    snapshots = {
        member.component: member.snapshot_id for member in backup.select_set(repository, "latest").snapshots
    }

    def restore(repository: Repository, component: str) -> None:
        target = arguments.target / component
        print(backup.restore_snapshot(repository, snapshots[component], target, progress=_show).as_dict())

    return _side_by_side(repository, restore, list(snapshots))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint-url", required=True)
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--locks", action="store_true", help="lock what is stored, as object_lock does")
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
    storage = backup.S3Storage(client, arguments.bucket, policy=_POLICY if arguments.locks else None)
    passphrase = os.environ[PASSPHRASE_VARIABLE]
    used = Usage()
    if arguments.action == "initialise":
        backup.initialise_repository(storage, passphrase)
    elif arguments.action == "create":
        used = _back_up(backup.open_repository(storage, passphrase, chunks=True), arguments)
    else:
        used = _restore(backup.open_repository(storage, passphrase, chunks=True), arguments)
    if arguments.traffic:
        arguments.traffic.write_text(json.dumps((used + storage.usage).as_dict()))


if __name__ == "__main__":
    main()
