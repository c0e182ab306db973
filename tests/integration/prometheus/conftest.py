"""A real Prometheus with some months of history, and hooks to it or to another server."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import tests.airflow_home  # noqa: F401 - before anything imports Airflow
from fastvlm_ops.hooks.prometheus import PrometheusHook
from fastvlm_ops.local.metrics_history import SERVICES, Service, write_history
from fastvlm_ops.local.processes import ProcessStartError
from fastvlm_ops.local.prometheus import Prometheus, program
from tests.conftest import ROOT

CONFIG = ROOT / "include" / "observability" / "prometheus" / "prometheus.yml"
STRANGE = 'we"ird\\ größe 模型'
MINUTES = 90 * 24 * 60
# What each promises is in tests/unit/local/test_metrics_history.py.
USED = tuple(service for service in SERVICES if service.name in ("vlm-api", "vlm-video", "vlm-legacy"))


@dataclass(frozen=True)
class Rig:
    """The server, and what it was given.

    :param server: it runs
    :param end: of the history, midnight of today in UTC
    :param services: of the history
    """

    server: Prometheus
    end: datetime
    services: tuple[Service, ...]

    @property
    def start(self) -> datetime:
        """90 days before the end."""
        return self.end - timedelta(days=90)


MakeHook = Callable[..., PrometheusHook]


@pytest.fixture
def make_hook(monkeypatch: pytest.MonkeyPatch) -> MakeHook:
    """Gives a hook to a URL; keywords are fields of the connection, ``extra`` among them."""

    def make(url: str, *, extra: dict[str, Any] | None = None, **fields: Any) -> PrometheusHook:
        connection = {"conn_type": "fastvlm_prometheus", "host": url, **fields, "extra": extra or {}}
        monkeypatch.setenv("AIRFLOW_CONN_FASTVLM_PROMETHEUS", json.dumps(connection))
        return PrometheusHook()

    return make


@pytest.fixture
def hook(rig: Rig, make_hook: MakeHook) -> PrometheusHook:
    """A hook to the real server."""
    return make_hook(rig.server.url, extra={"timeout_seconds": 30})


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped configuration, but that it scrapes every second."""
    folder = tmp_path_factory.mktemp("config")
    text = CONFIG.read_text()
    assert "scrape_interval: 30s" in text
    text = text.replace("scrape_interval: 30s", "scrape_interval: 1s").replace("timeout: 10s", "timeout: 1s")
    (folder / "prometheus.yml").write_text(text)
    for rules in CONFIG.parent.glob("*.rules.yaml"):
        shutil.copy(rules, folder)
    return folder / "prometheus.yml"


@pytest.fixture(scope="session")
def programs() -> None:
    """Skips where Prometheus is not there."""
    try:
        program("prometheus")
        program("promtool")
    except ProcessStartError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def rig(programs: None, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A server with history; one in each test process, started by the first test that wants it."""
    folder = tmp_path_factory.mktemp("prometheus")
    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    file = folder / "history.txt"
    write_history(file, end=end, days=95, services=USED)
    _add(file, end)
    server = Prometheus(folder / "server", config=config, die_with_parent=True)
    server.load(file)
    file.unlink()
    with server:
        yield Rig(server, end, USED)
    shutil.rmtree(folder)  # pytest keeps the folders of three runs


def _add(file: Path, end: datetime) -> None:
    """Add what the tests of the hook need, which no kit has."""
    last = int(end.timestamp())
    first = last - MINUTES * 60
    lines = ["# TYPE minute gauge"]
    lines += [f"minute {number} {first + number * 60}" for number in range(MINUTES + 1)]
    lines.append("# TYPE edge gauge")
    for number in range(13):  # the hour before the end, and the first sample after it
        lines.append(f'edge{{service="a"}} {1000 if number == 12 else 1} {last - 3600 + number * 300}')
    lines.append("# TYPE odd gauge")
    label = STRANGE.replace("\\", "\\\\").replace('"', '\\"')
    for number, value in enumerate(("1", "NaN", "+Inf", "-Inf", "5")):
        lines.append(f'odd{{service="{label}"}} {value} {last - 5 * 300 + number * 300}')
    lines.append("# TYPE twin gauge")
    for replica in (0, 1):
        for number in range(24):
            if number != 5 + replica:  # each misses an hour
                moment = last - 86400 + number * 3600 + 1800
                lines.append(f'twin{{service="a",replica="{replica}"}} {number} {moment}')
    text = file.read_text()
    assert text.endswith("# EOF\n")
    file.write_text(text.removesuffix("# EOF\n") + "\n".join(lines) + "\n# EOF\n")


def almost(one: float, other: float, within: float = 1e-9) -> bool:
    """Whether two numbers are as good as equal; NaN equals NaN."""
    return (math.isnan(one) and math.isnan(other)) or abs(one - other) <= within
