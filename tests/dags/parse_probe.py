"""Parses each DAG file in a process of its own, without network, and prints what that took.

Run by test_parsing.py. Like Airflow's DAG processor, it imports Airflow once and forks for each file: what a
file costs is what it and our package import beyond that.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

ATTEMPTS = 3


def probe(file: Path) -> dict[str, Any]:
    """Parse one file in this process.

    :param file: a DAG file
    """
    from airflow.dag_processing.dagbag import DagBag

    contacted: list[str] = []

    def refuse(_: socket.socket, address: Any) -> NoReturn:
        contacted.append(str(address))
        raise OSError("no network while DAGs are parsed")

    socket.socket.connect = refuse  # type: ignore[method-assign]
    before = set(sys.modules)
    started = time.process_time()  # what the file costs, not how busy the machine is
    bag = DagBag(dag_folder=file)
    return {
        "seconds": time.process_time() - started,
        "dags": sorted(bag.dags),
        "import_errors": bag.import_errors,
        "contacted": contacted,
        "imported": sorted(set(sys.modules) - before),
    }


def in_child(file: Path) -> dict[str, Any]:
    """Parse one file in a forked process.

    :param file: a DAG file
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with os.fdopen(writer, "w") as pipe:
            json.dump(probe(file), pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        result: dict[str, Any] = json.load(pipe)
    os.waitpid(child, 0)
    return result


def main() -> None:
    """Print the results of all files given, as JSON by file; the quickest of three attempts counts."""
    import airflow.dag_processing.dagbag
    import airflow.sdk

    assert airflow.dag_processing.dagbag
    for name in airflow.sdk.__all__:  # they load lazily, and every DAG processor has them
        getattr(airflow.sdk, name, None)
    gc.freeze()  # as its manager does: else some file pays for looking through all of Airflow's objects
    results = {
        file: min((in_child(Path(file)) for _ in range(ATTEMPTS)), key=lambda result: result["seconds"])
        for file in sys.argv[1:]
    }
    json.dump(results, sys.__stdout__)


if __name__ == "__main__":
    main()
