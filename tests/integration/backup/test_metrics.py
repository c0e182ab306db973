"""Metrics of the backups as Prometheus reads them, and the alerts made of them."""

from __future__ import annotations

import re
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from fastvlm_ops.core.backup import FolderSource, Repository, create_snapshot
from fastvlm_ops.core.backup.catalogue import Catalogue, refresh_catalogue
from fastvlm_ops.core.backup.journal import (
    RestoreTest,
    record_restore_tested,
    record_restored,
    record_verified,
)
from fastvlm_ops.core.backup.metrics import METRICS_FILE, write_metrics
from fastvlm_ops.core.backup.verify import verify_repository
from fastvlm_ops.core.store import Store, open_store
from fastvlm_ops.local.processes import ProcessStartError
from fastvlm_ops.local.prometheus import program
from tests.conftest import ROOT
from tests.integration.backup.test_catalogue import back_up, outcome

RULES = ROOT / "include" / "observability" / "prometheus" / "backup.rules.yaml"
OBJECTIVES = {"models": timedelta(hours=26), "uploads": timedelta(hours=1)}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty operations database."""
    with open_store(f"sqlite:///{tmp_path / 'operations.db'}", migrate_first=True) as opened:
        yield opened


@pytest.fixture
def models(tmp_path: Path) -> dict[str, FolderSource]:
    """The only component that is backed up."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "file").write_bytes(b"x" * 1000)
    return {"models": FolderSource(tmp_path / "models")}


def samples(path: Path) -> dict[tuple[str, str | None], float]:
    """Values by name without its beginning, and component, level or status."""
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        assert family.type == "gauge"
        assert family.documentation
        for sample in family.samples:
            name = sample.name.removeprefix("fastvlm_backup_")
            found[name, next(iter(sample.labels.values()), None)] = sample.value
    return found


def test_unknown_has_no_value(store: Store, tmp_path: Path) -> None:
    path = write_metrics(Catalogue(store), OBJECTIVES, tmp_path)
    assert path == tmp_path / METRICS_FILE
    assert samples(path) == {
        ("age_objective_seconds", "models"): 26 * 3600,
        ("age_objective_seconds", "uploads"): 3600,
    }


def test_what_is_known_is_there(
    store: Store, repository: Repository, models: dict[str, FolderSource], tmp_path: Path
) -> None:
    back_up(repository, models, "1")
    refresh_catalogue(store, repository)
    catalogue = Catalogue(store)
    found = samples(write_metrics(catalogue, OBJECTIVES, tmp_path))
    member = catalogue.history("models")[0]
    refreshed_at = catalogue.refreshed_at()
    assert refreshed_at is not None
    moment = found.pop(("last_success_timestamp_seconds", "models"))
    assert member.finished_at.timestamp() - 2 < moment <= member.finished_at.timestamp()
    assert found == {
        ("age_objective_seconds", "models"): 26 * 3600,
        ("age_objective_seconds", "uploads"): 3600,
        ("size_bytes", "models"): 1000,
        ("new_bytes", "models"): member.new_bytes,
        ("duration_seconds", "models"): member.duration_seconds,
        ("files", "models"): 1,
        ("damaged_snapshots", "models"): 0,
        ("damaged_snapshots", "uploads"): 0,
        ("restore_failed_snapshots", "models"): 0,
        ("restore_failed_snapshots", "uploads"): 0,
        ("sets", None): 1,
        ("catalogue_refreshed_timestamp_seconds", None): refreshed_at.timestamp(),
    }, "what was never verified or planned has no value"

    snapshot_ids = list(repository.refresh().snapshots)
    record_verified(repository, verify_repository(repository, level="full"), snapshot_ids, run_key="verify")
    record_restored(
        repository,
        snapshot_ids[0],
        set_id="full-1",
        run_key="restore",
        where="scratch",
        files=1,
        size_bytes=1000,
        duration_seconds=1,
    )
    tested = RestoreTest(ok=True, files=1, size_bytes=1000, duration_seconds=1)
    record_restore_tested(repository, "full-1", {snapshot_ids[0]: tested}, run_key="drill")
    refresh_catalogue(store, repository)
    found = samples(write_metrics(catalogue, OBJECTIVES, tmp_path))
    for name in ("last_verified", "last_restored", "last_restore_tested"):
        assert abs(found[f"{name}_timestamp_seconds", "models"] - refreshed_at.timestamp()) < 60
    assert found["restore_failed_snapshots", "models"] == 0
    record_restore_tested(repository, "full-1", {snapshot_ids[0]: replace(tested, ok=False)}, run_key="drill")
    refresh_catalogue(store, repository)
    found = samples(write_metrics(catalogue, OBJECTIVES, tmp_path))
    assert found["restore_failed_snapshots", "models"] == 1

    assert found["damaged_objects", None] == 0
    assert abs(found["verification_timestamp_seconds", "full"] - refreshed_at.timestamp()) < 60

    record_verified(repository, outcome("full", snapshot_ids), snapshot_ids, run_key="damage")
    refresh_catalogue(store, repository)
    found = samples(write_metrics(catalogue, OBJECTIVES, tmp_path))
    assert found["damaged_snapshots", "models"] == 1
    assert found["damaged_objects", None] >= 1
    for name in ("last_success_timestamp_seconds", "last_verified_timestamp_seconds", "size_bytes"):
        assert (name, "models") not in found


def test_a_name_that_nobody_would_give_breaks_no_line(
    store: Store, repository: Repository, models: dict[str, FolderSource], tmp_path: Path
) -> None:
    hostile = 'a"} 1\nfastvlm_backup_sets 99\n\\'
    repository.log.append("snapshot", _like(repository, models, hostile))
    snapshots = {hostile: "hostile"}
    body = {"set_id": "s", "kind": "full", "run_key": "r", "timestamp": "2026-01-01T00:00:00+00:00"}
    repository.log.append("backup-set", {**body, "snapshots": snapshots})
    refresh_catalogue(store, repository)
    found = samples(write_metrics(Catalogue(store), {}, tmp_path))
    assert found["sets", None] == 1
    assert found["size_bytes", hostile] == 1000


def _like(repository: Repository, models: dict[str, FolderSource], component: str) -> dict[str, object]:
    made = create_snapshot(repository, models["models"], component="models", kind="full", run_key="1")
    body = dict(repository.refresh().snapshots[made.snapshot_id])
    del body["seq"]
    return {**body, "snapshot_id": "hostile", "component": component, "run_key": "2"}


def test_a_reader_never_sees_half_a_file(store: Store, tmp_path: Path) -> None:
    before = write_metrics(Catalogue(store), OBJECTIVES, tmp_path).stat().st_ino
    path = write_metrics(Catalogue(store), OBJECTIVES, tmp_path)
    assert path.stat().st_ino != before, "another file took its name"
    assert [file.name for file in tmp_path.glob("*.prom*")] == [METRICS_FILE]
    assert stat.S_IMODE(path.stat().st_mode) & stat.S_IRUSR


def test_alerts_use_only_metrics_that_are_written(
    store: Store, repository: Repository, models: dict[str, FolderSource], tmp_path: Path
) -> None:
    text = write_metrics(Catalogue(store), OBJECTIVES, tmp_path).read_text()
    written = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    used = {
        name for rule in rules for name in re.findall(r"(?<![:\w])fastvlm_backup_\w+\b(?!:)", rule["expr"])
    }
    assert len(used) >= 5
    assert used <= written
    for rule in rules:
        if "alert" in rule:
            assert (ROOT / rule["annotations"]["runbook"]).is_file()


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus's own tool."""
    try:
        return str(program("promtool"))
    except ProcessStartError as error:
        pytest.skip(str(error))


HOUR = 3600
RISING, AT_10_H, AT_20_H = "0+60x2400", f"{10 * HOUR}x2400", f"{20 * HOUR}x2400"  # each minute of 40 hours
LIMIT = {"age_objective_seconds": f"{26 * HOUR}x2400"}
FRESH = {"catalogue_refreshed_timestamp_seconds": RISING}
GOOD = {"last_success_timestamp_seconds": RISING, "last_verified_timestamp_seconds": RISING}


@pytest.mark.parametrize(
    ("series", "alerts"),
    [
        pytest.param({**LIMIT, **FRESH, **GOOD, "damaged_snapshots": "0x2400"}, [], id="all is well"),
        pytest.param(
            {
                **LIMIT,
                **FRESH,
                **GOOD,
                "last_success_timestamp_seconds": AT_10_H,
                "damaged_snapshots": "2x2400",
            },
            ["BackupDamaged", "BackupOverdue"],
            id="too old and damaged",
        ),
        pytest.param(
            {**LIMIT, **FRESH, **GOOD, "restore_failed_snapshots": "1x2400"},
            ["BackupRestoreTestFailed"],
            id="a restore test failed",
        ),
        pytest.param(
            {**LIMIT, **FRESH, "damaged_snapshots": "0x2400"},
            ["BackupNeverMade", "BackupNotVerified"],
            id="never made",
        ),
        pytest.param({"sets": "1x2400"}, ["BackupMetricsMissing"], id="no metrics"),
        pytest.param(
            {**LIMIT, **GOOD, "catalogue_refreshed_timestamp_seconds": AT_10_H},
            ["BackupCatalogueStale"],
            id="a stale catalogue",
        ),
        pytest.param(
            {
                **GOOD,
                **LIMIT,
                **FRESH,
                "damaged_snapshots": "0x2400",
                # What another worker wrote long ago: an older backup, damage, a shorter limit.
                "catalogue_refreshed_timestamp_seconds old": AT_10_H,
                "last_success_timestamp_seconds old": "0x2400",
                "damaged_snapshots old": "3x2400",
                "age_objective_seconds old": "1x2400",
            },
            [],
            id="an old file on another worker",
        ),
    ],
)
def test_alerts(series: dict[str, str], alerts: list[str], promtool: str, tmp_path: Path) -> None:
    fired = [{"labels": _firing(alert), "value": 1} for alert in alerts]
    test = {
        "interval": "1m",
        "input_series": [{"series": _labelled(name), "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": 'ALERTS{alertstate="firing"}', "eval_time": "40h", "exp_samples": fired}
        ],
    }
    content = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(content))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


DAY = 24 * HOUR


@pytest.mark.parametrize(
    ("series", "alerts"),
    [
        pytest.param({}, ["BackupNotReadInFull"], id="never read in full"),
        pytest.param({"share": "0x500"}, ["BackupNotReadInFull"], id="not for two weeks"),
        pytest.param(
            {"share": "0x500", "full": f"{10 * DAY}x500"}, [], id="the newest of both levels counts"
        ),
        pytest.param({"members": f"{19 * DAY}x500"}, ["BackupNotReadInFull"], id="members are a few files"),
        pytest.param(
            {"share": f"{19 * DAY}x500", "refused": "20x500", "done": "10x500"},
            ["BackupPruningStopped"],
            id="the newest plan was refused",
        ),
        pytest.param(
            {"share": f"{19 * DAY}x500", "refused": "20x500", "planned": "30x500"},
            [],
            id="a newer plan is well",
        ),
    ],
)
def test_alerts_about_maintenance(
    series: dict[str, str], alerts: list[str], promtool: str, tmp_path: Path
) -> None:
    given = {"fastvlm_backup_catalogue_refreshed_timestamp_seconds": f"0+{HOUR}x500"}
    given |= {"fastvlm_backup_age_objective_seconds": "0x500"}
    for name, values in series.items():
        if name in ("share", "full", "members"):
            given[f'fastvlm_backup_verification_timestamp_seconds{{level="{name}"}}'] = values
        else:
            given[f'fastvlm_backup_pruning_timestamp_seconds{{status="{name}"}}'] = values
    fired = [
        {"labels": f'ALERTS{{alertname="{alert}",alertstate="firing",severity="warning"}}', "value": 1}
        for alert in alerts
    ]
    names = "BackupNotReadInFull|BackupPruningStopped"
    expression = f'ALERTS{{alertstate="firing",alertname=~"{names}"}}'
    test = {
        "interval": "1h",
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": "20d", "exp_samples": fired}],
    }
    content = {"rule_files": [str(RULES)], "evaluation_interval": "1h", "tests": [test]}
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(content))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("series", "alerts"),
    [
        pytest.param({}, [], id="no second place"),
        pytest.param(
            {"last_success_timestamp_seconds": f"0+{HOUR}x100", "lag_entries": "0x100"}, [], id="well"
        ),
        pytest.param(
            {"last_success_timestamp_seconds": "0x100", "lag_entries": "5x100"},
            ["BackupReplicaStale"],
            id="not for a day",
        ),
        pytest.param({"lag_entries": "5x100"}, ["BackupReplicaNeverComplete"], id="never complete"),
    ],
)
def test_alerts_about_the_second_place(
    series: dict[str, str], alerts: list[str], promtool: str, tmp_path: Path
) -> None:
    given = [
        {"series": f"fastvlm_backup_replica_{name}", "values": values} for name, values in series.items()
    ]
    fired = [
        {"labels": f'ALERTS{{alertname="{alert}",alertstate="firing",severity="critical"}}', "value": 1}
        for alert in alerts
    ]
    expression = 'ALERTS{alertstate="firing",alertname=~"BackupReplica.*"}'
    test = {
        "interval": "1h",
        "input_series": given,
        "promql_expr_test": [{"expr": expression, "eval_time": "60h", "exp_samples": fired}],
    }
    content = {"rule_files": [str(RULES)], "evaluation_interval": "1h", "tests": [test]}
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(content))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _labelled(name: str) -> str:
    metric, _, worker = name.partition(" ")
    component = "" if metric in ("sets", "catalogue_refreshed_timestamp_seconds") else 'component="m",'
    return f'fastvlm_backup_{metric}{{{component}job="node",instance="{worker or "new"}"}}'


def _firing(alert: str) -> str:
    severity = "warning" if alert in ("BackupCatalogueStale", "BackupNotVerified") else "critical"
    component = "" if alert in ("BackupMetricsMissing", "BackupCatalogueStale") else 'component="m",'
    return f'ALERTS{{alertname="{alert}",alertstate="firing",{component}severity="{severity}"}}'
