"""Alerts about drills, by promtool's own test of rules, and the metrics that they are made of."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from fastvlm_ops.core.disaster_recovery.metrics import METRICS_FILE, write_metrics
from fastvlm_ops.core.disaster_recovery.plan import Verdict
from fastvlm_ops.core.store import open_store
from fastvlm_ops.local.processes import ProcessStartError
from fastvlm_ops.local.prometheus import program
from tests import drill_kit as kit

ROOT = Path(__file__).parents[3]
RULES = ROOT / "include" / "observability" / "prometheus" / "disaster_recovery.rules.yaml"
OLD, NEW = 'instance="old",job="workers"', 'instance="new",job="workers"'
DAY = 86_400
WEEKLY = f"{8 * DAY}x500"


@pytest.fixture(scope="module")
def promtool() -> str:
    try:
        return str(program("promtool"))
    except ProcessStartError as error:
        pytest.skip(f"no promtool: {error}")


def drill(verdict: str, worker: str = NEW, written: str = "3600x500") -> dict[str, str]:
    """Metrics of a drill at the second 0, as a worker's file has them."""
    where = f'scenario="s",{worker}'
    return {
        f'fastvlm_drill_verdict{{verdict="{verdict}",{where}}}': "1x500",
        f"fastvlm_drill_last_timestamp_seconds{{{where}}}": "0x500",
        f"fastvlm_drill_allowed_age_seconds{{{where}}}": WEEKLY,
        f"fastvlm_drill_written_timestamp_seconds{{{worker}}}": written,
    }


def reaper(overdue: int = 0, unreadable: int = 0, looked: str = "0+60x500") -> dict[str, str]:
    """Metrics of a reaper, which looks each minute."""
    return {
        f"fastvlm_drill_faults_overdue{{{NEW}}}": f"{overdue}x500",
        f"fastvlm_drill_fault_entries_unreadable{{{NEW}}}": f"{unreadable}x500",
        f"fastvlm_drill_reaper_timestamp_seconds{{{NEW}}}": looked,
    }


NEVER = {name: values for name, values in drill("PASS").items() if "allowed" in name or "written" in name}


@pytest.mark.parametrize(
    ("series", "at", "alerts"),
    [
        (drill("PASS"), "2h", []),
        (drill("FAIL"), "2h", ['alertname="DrillFailed",scenario="s",severity="critical"']),
        *(
            (
                drill(verdict),
                "2h",
                [f'alertname="DrillWithoutResult",scenario="s",severity="warning",verdict="{verdict}"'],
            )
            for verdict in ("INCONCLUSIVE", "ABORTED", "REFUSED")
        ),
        (drill("FAIL", OLD, "0x500") | drill("PASS"), "2h", []),
        (drill("PASS"), "191h", []),
        (drill("PASS"), "193h", ['alertname="DrillOverdue",scenario="s",severity="warning"']),
        (NEVER, "191h", []),
        (NEVER, "193h", ['alertname="DrillNeverRun",scenario="s",severity="warning"']),
        (reaper(), "2h", []),
        (reaper(overdue=1), "2h", ['alertname="DrillFaultLeft",instance="new",severity="critical"']),
        (reaper(unreadable=1), "2h", ['alertname="DrillFaultUnreadable",instance="new",severity="critical"']),
        (
            reaper(looked="0+60x60 3600x500"),
            "2h",
            ['alertname="DrillReaperStopped",instance="new",severity="critical"'],
        ),
    ],
)
def test_alerts(series: dict[str, str], at: str, alerts: list[str], promtool: str, tmp_path: Path) -> None:
    fired = [{"labels": f'ALERTS{{alertstate="firing",{labels}}}', "value": 1} for labels in alerts]
    # Days are told as well by a sample each half-hour.
    interval = "1m" if at == "2h" else "30m"
    test = {
        "interval": interval,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": 'ALERTS{alertstate="firing"}', "eval_time": at, "exp_samples": fired}],
    }
    content = {"rule_files": [str(RULES)], "evaluation_interval": interval, "tests": [test]}
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(content))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def samples(file: Path) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix("fastvlm_drill_"), *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(file.read_text())
        for sample in family.samples
    }


def test_metrics_are_of_the_newest_real_drill_and_unknown_is_absent(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/operations.db", migrate_first=True) as store:
        earlier, now = kit.NOW - timedelta(days=7), kit.NOW
        kit.run(store, replace(kit.HUNG, verdict="PASS", canary=True), earlier, tmp_path / "1")
        kit.run(store, kit.HUNG, now, tmp_path / "2")
        kit.run(store, replace(kit.HUNG, dry_run=True), now + timedelta(hours=1), tmp_path / "3")
        kit.run(store, replace(kit.HUNG, verdict=None), now + timedelta(hours=2), tmp_path / "4")
        kit.run(store, kit.PRIMARY, now, tmp_path / "5")
        written = write_metrics(store, {"service_hung": timedelta(days=8)}, tmp_path)
    assert written == tmp_path / METRICS_FILE
    found = samples(written)
    assert found["verdict", "INCONCLUSIVE", "service_hung"] == 1
    assert found["last_timestamp_seconds", "service_hung"] == now.timestamp()
    assert found["last_passed_timestamp_seconds", "service_hung"] == earlier.timestamp()
    assert found["allowed_age_seconds", "service_hung"] == 8 * DAY
    assert ("rpo_seconds", "service_hung") not in found
    assert found["verdict", "FAIL", "primary_database_lost"] == 1
    assert ("last_passed_timestamp_seconds", "primary_database_lost") not in found
    assert found["rto_seconds", "primary_database_lost"] == pytest.approx(61.35, abs=0.05)
    assert found["lost_writes", "primary_database_lost"] == 32
    age = datetime.now(UTC).timestamp() - found["written_timestamp_seconds",]
    assert 0 <= age < 600


def test_rules_name_verdicts_metrics_and_runbooks_that_there_are(tmp_path: Path) -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    text = " ".join(rule["expr"] for rule in rules)
    named = {one for names in re.findall(r'verdict=~?"([A-Z|]+)"', text) for one in names.split("|")}
    assert named == set(get_args(Verdict)) - {"PASS"}
    with open_store(f"sqlite:///{tmp_path}/operations.db", migrate_first=True) as store:
        kit.run(store, kit.KILLED, kit.NOW, tmp_path / "1")
        ours = {name for name, *_ in samples(write_metrics(store, {"a": timedelta(days=1)}, tmp_path))}
    package = ROOT / "plugins" / "fastvlm_ops" / "core" / "disaster_recovery"
    reapers = set(re.findall(r'"fastvlm_drill_(\w+)": \(', (package / "reaping.py").read_text()))
    assert set(re.findall(r"\bfastvlm_drill_(\w+)", text)) <= ours | reapers
    for rule in rules:
        if "alert" in rule:
            assert (ROOT / rule["annotations"]["runbook"]).is_file()
