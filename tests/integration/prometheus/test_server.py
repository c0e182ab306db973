"""The Prometheus of demo and tests, as others rely on it."""

from __future__ import annotations

import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fastvlm_ops.hooks.prometheus import PrometheusHook
from fastvlm_ops.local.metrics_history import write_history
from fastvlm_ops.local.ports import HOST, answers
from fastvlm_ops.local.processes import ProcessStartError
from fastvlm_ops.local.prometheus import Prometheus, program
from fastvlm_ops.local.seaweedfs import SeaweedFS
from tests.integration.prometheus.conftest import CONFIG, USED, MakeHook, Rig
from tests.listening import addresses_of

pytestmark = pytest.mark.integration


def wait_for(hook: PrometheusHook, query: str, count: int, seconds: float = 30) -> list[dict[str, str]]:
    """Labels of so many series, once there are."""
    until = time.monotonic() + seconds
    while len(found := hook.instant(query, datetime.now(UTC))) < count:
        assert time.monotonic() < until, f"{query}: {found}"
        time.sleep(0.2)
    return [dict(series.labels) for series in found]


def test_the_shipped_configuration_is_right(programs: None) -> None:
    done = subprocess.run(
        [program("promtool"), "check", "config", CONFIG], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "backup.rules.yaml" in done.stdout


def test_listens_on_loopback_only(rig: Rig) -> None:
    addresses = addresses_of(member.pid for member in rig.server.processes.alive())
    assert {host for host, _ in addresses} == {HOST}
    assert len(addresses) == 1


def test_scrapes_itself(rig: Rig, hook: PrometheusHook) -> None:
    (labels,) = wait_for(hook, 'up{job="prometheus"} == 1', 1)
    assert labels["instance"] == rig.server.url.removeprefix("http://")


def test_reads_the_shipped_rules(hook: PrometheusHook) -> None:
    assert wait_for(hook, "ALERTS_FOR_STATE or prometheus_rule_group_rules", 1)


def test_scrapes_the_s3_server(programs: None, config: Path, tmp_path: Path, make_hook: MakeHook) -> None:
    with SeaweedFS(tmp_path / "s3", die_with_parent=True, metrics=True) as s3:
        targets = s3.metrics_addresses
        assert len(targets) == 4
        addresses = addresses_of(member.pid for member in s3.processes.alive())
        assert {host for host, _ in addresses} == {HOST}
        with Prometheus(
            tmp_path / "prometheus", config=config, targets={"s3": targets}, die_with_parent=True
        ) as server:
            found = wait_for(make_hook(server.url), 'up{job="s3"} == 1', 4)
    assert {labels["instance"] for labels in found} == set(targets)


def test_stops_and_keeps_its_data(programs: None, config: Path, tmp_path: Path, make_hook: MakeHook) -> None:
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    file = tmp_path / "history.txt"
    samples = write_history(file, end=end, days=2, services=USED[:1])
    server = Prometheus(tmp_path / "server", config=config, die_with_parent=True)
    server.load(file)
    query = 'count_over_time(fastvlm_replicas{service="vlm-api"}[3d])'
    for _ in range(2):
        with server:
            (series,) = make_hook(server.url).instant(query, end)
            assert list(series.values) == [samples / 5]
            port = int(server.url.rsplit(":", 1)[1])
            assert answers(port)
        assert not server.processes.alive()
        assert not answers(port)


def test_what_cannot_be_loaded_is_told(programs: None, config: Path, tmp_path: Path) -> None:
    file = tmp_path / "history.txt"
    file.write_text("no metrics\n")
    with pytest.raises(ProcessStartError, match="promtool ended with status 1"):
        Prometheus(tmp_path / "server", config=config).load(file)


def test_a_job_that_is_not_in_the_file_is_named(programs: None, config: Path, tmp_path: Path) -> None:
    server = Prometheus(tmp_path / "server", config=config, targets={"nobody": ["127.0.0.1:1"]})
    with pytest.raises(ProcessStartError, match="has no job 'nobody'; it has prometheus, kit, workers, s3"):
        server.start()


def test_keeps_400_days(rig: Rig, hook: PrometheusHook) -> None:
    text = Path(f"/proc/{rig.server.processes.recorded()[0].id.pid}/cmdline").read_text()
    assert "--storage.tsdb.retention.time=400d" in text.split("\0")
    assert hook.instant("minute", rig.end - timedelta(days=89))
