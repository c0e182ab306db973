"""Fixtures of tests that run the capacity DAGs: a real Prometheus with some weeks of generated history."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.local.metrics_history import write_history
from fastvlm_ops.local.processes import ProcessStartError
from fastvlm_ops.local.prometheus import Prometheus, program
from tests.airflow_home import ROOT
from tests.airflow_kit import Kit

CONFIG = ROOT / "include" / "observability" / "prometheus" / "prometheus.yml"
#: Has CPU, but neither memory nor requests.
LONELY = "lonely"
DAYS = 42
HISTORY_DAYS, HORIZON_DAYS, HORIZONS = 28, 4, (2, 4)
_CPU = "# HELP fastvlm_cpu_usage_percent"


@dataclass(frozen=True)
class Metrics:
    """A server, and the end of its history.

    :param url: of the server
    :param end: midnight of today, in UTC
    :param file: what it was given, in OpenMetrics' text format
    """

    url: str
    end: datetime
    file: Path

    def as_of(self, days: int) -> datetime:
        """So many days before the end."""
        return self.end - timedelta(days=days)


def write_samples(file: Path, end: datetime) -> None:
    """Write the history: the kit's services, and one that has CPU alone."""
    write_history(file, end=end, days=DAYS)
    last = int(end.timestamp())
    lines = [
        f'fastvlm_cpu_usage_percent{{service="{LONELY}"}} 12.5 {moment}'
        for moment in range(last - DAYS * 86400, last, 300)
    ]
    text = file.read_text()
    head = re.search(f"{_CPU}.*\n", text)
    assert head is not None
    file.write_text(text[: head.end()] + "\n".join(lines) + "\n" + text[head.end() :])


def samples_changed_from(text: str, moment: datetime) -> str:
    """Every sample at or after a moment has another value."""
    first = int(moment.timestamp())

    def change(line: str) -> str:
        if line.startswith("#"):
            return line
        head, value, time = line.rsplit(" ", 2)
        return f"{head} {float(value) * 7 + 1000} {time}" if int(time) >= first else line

    return "\n".join(map(change, text.splitlines())) + "\n"


def serve(file: Path, folder: Path) -> Prometheus:
    """A server, not started yet, with the samples of a file."""
    try:
        program("prometheus")
        program("promtool")
    except ProcessStartError as error:
        pytest.skip(str(error))
    server = Prometheus(folder, config=CONFIG, die_with_parent=True)
    server.load(file)
    return server


@pytest.fixture(scope="session")
def metrics_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metrics]:
    """One in each test process, started by the first test that wants it."""
    folder = tmp_path_factory.mktemp("metrics")
    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    file = folder / "history.txt"
    write_samples(file, end)
    with serve(file, folder / "server") as server:
        yield Metrics(server.url, end, file)
    shutil.rmtree(folder)  # pytest keeps the folders of three runs


def connect(monkeypatch: pytest.MonkeyPatch, url: str, **extra: Any) -> None:
    """Define the connection ``fastvlm_prometheus``."""
    fields = {"conn_type": "fastvlm_prometheus", "host": url, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_PROMETHEUS", json.dumps(fields))


@pytest.fixture
def metrics(
    metrics_server: Metrics,
    kit: Kit,
    connection: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Metrics:
    """The server with its connection, an operations database of the test's own, and short horizons."""
    connect(monkeypatch, metrics_server.url)
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__DATABASE_PATH", str(tmp_path / "operations.db"))
    include = Path(shutil.copytree(ROOT / "include", tmp_path / "include"))
    text = (include / "capacity.yaml").read_text()
    for key, value in {
        "history_days": HISTORY_DAYS,
        "horizon_days": HORIZON_DAYS,
        "series_per_shard": 9,
        "  horizons_days": list(HORIZONS),
    }.items():
        text, count = re.subn(rf"^{key}: .*$", f"{key}: {value}", text, flags=re.M)
        assert count == 1, key
    (include / "capacity.yaml").write_text(text)
    monkeypatch.setenv("AIRFLOW__FASTVLM_OPS__INCLUDE_DIR", str(include))
    return metrics_server
