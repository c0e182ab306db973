"""Windows as rows and metrics, and the alerts upon them, by Prometheus's own tool."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from fastvlm_ops.core.backup.catalogue import Catalogue
from fastvlm_ops.core.backup.metrics import write_metrics
from fastvlm_ops.core.backup.postgresql.cluster import Cluster
from fastvlm_ops.core.backup.postgresql.lsn import Segment
from fastvlm_ops.core.backup.postgresql.wal_server import ServerWal, Slot
from fastvlm_ops.core.backup.postgresql.wal_watch import WalState
from fastvlm_ops.core.backup.postgresql.window import Gap, RecoverableWindow
from fastvlm_ops.core.backup.wal_windows import read_windows, record_window
from fastvlm_ops.core.store import open_store
from fastvlm_ops.local.processes import ProcessStartError
from fastvlm_ops.local.prometheus import program

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "include" / "observability" / "prometheus"
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
MIB = 1 << 20


def state(component: str = "database", **changes: Any) -> WalState:
    """What a run found on a good day."""
    window = RecoverableWindow(
        component,
        "7301234567890123456",
        2,
        recoverable_from=NOON - timedelta(days=7),
        recoverable_until=NOON,
        from_lsn=3 * MIB,
        until_lsn=9 * MIB,
        segments=6,
        stored_bytes=4321,
        gaps=changes.pop("gaps", ()),
    )
    cluster = Cluster("7301234567890123456", "18.0", 18, 2, MIB, 9 * MIB + 40, False, (), NOON)
    server = ServerWal(cluster, Slot(True, 9 * MIB, "reserved", None), 100, None)
    found = {"window": window, "server": server, "lag_bytes": 40, "lag_seconds": 0.0, **changes}
    return WalState(component, NOON, switched=False, **found)


def samples(folder: Path) -> dict[str, float]:
    text = (folder / "fastvlm_backup.prom").read_text()
    return {
        sample.name.removeprefix("fastvlm_backup_"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("component") == "database"
    }


def test_a_window_is_one_row_and_what_is_known_of_it_has_samples(database_url: str, tmp_path: Path):
    with open_store(database_url, migrate_first=True) as store:
        assert record_window(store, state()) is None
        before = record_window(store, state())
        (row,) = read_windows(store)
        assert before == row
        assert (row.from_lsn, row.until_lsn, row.server_lsn) == ("0/300000", "0/900000", "0/900028")
        write_metrics(Catalogue(store), {}, tmp_path)
        assert samples(tmp_path) == {
            "recoverable_from_timestamp_seconds": (NOON - timedelta(days=7)).timestamp(),
            "recoverable_until_timestamp_seconds": NOON.timestamp(),
            "wal_lag_bytes": 40,
            "wal_lag_seconds": 0,
            "wal_gap": 0,
            "wal_stored_bytes": 4321,
            "wal_checked_timestamp_seconds": NOON.timestamp(),
        }
        segment = Segment(1, 5, MIB)
        gap = Gap(segment, segment, ("base",), None, True)
        record_window(store, state(gaps=(gap,), server=None, lag_bytes=None, lag_seconds=None))
        write_metrics(Catalogue(store), {}, tmp_path)
        found = samples(tmp_path)
        assert found["wal_gap"] == 1
        assert not {"wal_lag_bytes", "wal_lag_seconds"} & set(found)
        assert read_windows(store)[0].gap == str(gap)
        empty = RecoverableWindow("database")
        record_window(store, state(window=empty, server=None, lag_bytes=None, lag_seconds=None))
        write_metrics(Catalogue(store), {}, tmp_path)
        assert set(samples(tmp_path)) == {"wal_stored_bytes", "wal_checked_timestamp_seconds"}


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus's own tool."""
    try:
        return str(program("promtool"))
    except ProcessStartError as error:
        pytest.skip(str(error))


RISING = "0+60x120"
WELL = {"checked_timestamp_seconds": RISING, "lag_seconds": "30x120", "gap": "0x120"}


@pytest.mark.parametrize(
    ("series", "alerts"),
    [
        pytest.param(WELL, {}, id="all is well"),
        pytest.param({**WELL, "lag_seconds": "3000x120"}, {"BackupWalLate": "critical"}, id="late"),
        pytest.param({**WELL, "gap": "1x120"}, {"BackupWalGap": "warning"}, id="a gap"),
        pytest.param(
            {"checked_timestamp_seconds": RISING}, {"BackupWalUnknown": "warning"}, id="the lag is unknown"
        ),
        pytest.param(
            {**WELL, "checked_timestamp_seconds": "60x120"}, {"BackupWalNotChecked": "critical"}, id="stopped"
        ),
        pytest.param(
            {**WELL, "gap old": "1x120", "lag_seconds old": "9000x120"},
            {},
            id="an old file on another worker",
        ),
    ],
)
def test_alerts(series: dict[str, str], alerts: dict[str, str], promtool: str, tmp_path: Path):
    given = {
        'fastvlm_backup_catalogue_refreshed_timestamp_seconds{job="node",instance="new"}': RISING,
        'fastvlm_backup_catalogue_refreshed_timestamp_seconds{job="node",instance="old"}': "60x120",
    }
    for name, values in series.items():
        metric, _, worker = name.partition(" ")
        labels = f'component="database",job="node",instance="{worker or "new"}"'
        given[f"fastvlm_backup_wal_{metric}{{{labels}}}"] = values
    fired = [
        {
            "labels": f'ALERTS{{alertname="{alert}",alertstate="firing",component="database",'
            f'severity="{severity}"}}',
            "value": 1,
        }
        for alert, severity in alerts.items()
    ]
    expression = 'ALERTS{alertstate="firing",alertname=~"BackupWal.*"}'
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": "2h", "exp_samples": fired}],
    }
    files = [str(RULES / "backup.rules.yaml"), str(RULES / "backup_wal.rules.yaml")]
    content = {"rule_files": files, "evaluation_interval": "1m", "tests": [test]}
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(content))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alerts_name_metrics_that_are_written_and_a_runbook_that_is_there():
    from fastvlm_ops.core.backup.wal_windows import _TEXTS

    content = yaml.safe_load((RULES / "backup_wal.rules.yaml").read_text())
    rules = [rule for group in content["groups"] for rule in group["rules"]]
    used = {name for rule in rules for name in re.findall(r"fastvlm_backup_(\w+)", rule["expr"])}
    assert used <= set(_TEXTS)
    for rule in rules:
        assert (ROOT / rule["annotations"]["runbook"]).is_file()
