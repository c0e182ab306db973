"""How fast 90 days of 100 services are read from a local Prometheus: `make bench-capacity-fetch`.

The peer is prometheus-api-client as it comes: the samples of five minutes in chunks of 30 days, for the
server refuses more, averaged by hour in pandas. Both end with the same table, which is checked.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.metric_range_df import MetricRangeDataFrame

from benchmarks.figures import RESULTS, Figure, figures_table, write_figures
from benchmarks.running import ROOT
from fastvlm_ops.core.prometheus.client import PrometheusClient
from fastvlm_ops.core.prometheus.session import ServerSettings
from fastvlm_ops.local.metrics_history import Service, write_history
from fastvlm_ops.local.prometheus import Prometheus

DAYS = 90
TARGET_SECONDS = 3.0
TARGET_RATIO = 0.25
METRICS = ("fastvlm_cpu_usage_percent", "fastvlm_memory_usage_percent", "fastvlm_requests")
AVERAGES = (
    "avg by (service) (avg_over_time(fastvlm_cpu_usage_percent[1h]))",
    "avg by (service) (avg_over_time(fastvlm_memory_usage_percent[1h]))",
    "sum by (service) (rate(fastvlm_requests_total[1h]))",
)
PEAKS = (
    "max by (service) (quantile_over_time(0.95, fastvlm_cpu_usage_percent[1h]))",
    "max by (service) (max_over_time(fastvlm_memory_usage_percent[1h]))",
    "max_over_time(sum by (service) (rate(fastvlm_requests_total[15m]))[1h:15m])",
)
CONFIG = ROOT / "include" / "observability" / "prometheus" / "prometheus.yml"


def main() -> int:
    """Load a history, read it several times, and write what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS / "capacity_fetch.json")
    arguments = parser.parse_args()
    scratch = ROOT / ".pytest_cache" / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        server = _loaded(Path(folder), end, arguments.services)
        with server:
            figures = measure(server.url, end, arguments.services, arguments.rounds)
    write_figures(figures, arguments.results)
    print(figures_table(figures))
    return 0


def _loaded(folder: Path, end: datetime, count: int) -> Prometheus:
    services = [Service(f"service-{number:03d}", requests=20 + number) for number in range(count)]
    file = folder / "history.txt"
    write_history(file, end=end, days=DAYS, services=services, metrics=METRICS)
    server = Prometheus(folder / "server", config=CONFIG, die_with_parent=True)
    server.load(file)
    file.unlink()
    return server


def measure(url: str, end: datetime, services: int, rounds: int) -> list[Figure]:
    """Read everything several times, in turns; the first round only warms up.

    :param url: of a Prometheus that holds the history
    :param end: of the history
    :param services: in it
    :param rounds: after the first
    """
    start = end - timedelta(days=DAYS)
    with PrometheusClient(ServerSettings(url)) as client:

        def read(queries: tuple[str, ...]) -> list[pd.DataFrame]:
            return [client.hourly(query, start, end) for query in queries]

        taken: dict[str, list[tuple[float, float]]] = {"averages": [], "peaks": []}
        for number in range(rounds + 1):
            for name, queries in (("averages", AVERAGES), ("peaks", PEAKS)):
                seconds, frames = _timed(lambda queries=queries: read(queries))
                assert all(frame.shape == (DAYS * 24, services) for frame in frames)
                assert not any(frame.iloc[1:].isna().to_numpy().any() for frame in frames)
                if number:
                    taken[name].append(seconds)
        ours_seconds, ours = _timed(lambda: read(AVERAGES[:1]))
        peer_seconds, theirs = _timed(lambda: _peer(url, METRICS[0], start, end))
    np.testing.assert_allclose(ours[0].to_numpy(), theirs.to_numpy(), atol=1e-6)
    what = f"{services} services x 3 metrics x {DAYS} d at 1 h, median of {rounds}"
    wall = {name: statistics.median(seconds for seconds, _ in both) for name, both in taken.items()}
    cpu = statistics.median(cpu for _, cpu in taken["averages"])
    peer = f"prometheus-api-client {version('prometheus-api-client')}, samples of 5 min averaged in pandas"
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"CPU of the reader: {cpu:.2f} s of {wall['averages']:.2f} s; with the peer's {memory_mib:.0f} MiB")
    return [
        Figure(f"averages, {what}", wall["averages"], "s", TARGET_SECONDS),
        Figure(f"peaks, {what}", wall["peaks"], "s", TARGET_SECONDS),
        Figure(
            f"averages of one metric, {services} services x {DAYS} d",
            ours_seconds[0],
            "s",
            TARGET_RATIO,
            peer,
            peer_seconds[0],
        ),
    ]


def _peer(url: str, metric: str, start: datetime, end: datetime) -> pd.DataFrame:
    """What the client library alone gives for the same question."""
    connect = PrometheusConnect(url)
    parts = []
    for days in range(0, DAYS, 30):
        begin = start + timedelta(days=days)
        until = min(begin + timedelta(days=30), end) - timedelta(minutes=5)
        parts.append(MetricRangeDataFrame(connect.custom_query_range(metric, begin, until, "300")))
    frame = pd.concat(parts)
    frame["value"] = frame["value"].astype(float)
    return frame.groupby([frame.index.floor("h"), "service"])["value"].mean().unstack()


def _timed(call: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    """Seconds of the clock and of this process's CPU, and the result."""
    began, cpu = time.perf_counter(), time.process_time()
    result = call()
    return (time.perf_counter() - began, time.process_time() - cpu), result


if __name__ == "__main__":
    sys.exit(main())
