"""Alerts about Core ML models, by promtool's own test of rules."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from fastvlm_ops.core.coreml.verdicts import Verdict
from fastvlm_ops.local.processes import ProcessStartError
from fastvlm_ops.local.prometheus import program

ROOT = Path(__file__).parents[3]
RULES = ROOT / "include" / "observability" / "prometheus" / "coreml.rules.yaml"
WHERE = 'compute_unit="ALL",device="phone",model="m"'
OLD, NEW = 'instance="old",job="workers"', 'instance="new",job="workers"'
#: By the worker that wrote them. The old one says what no longer holds.
MEASURED = {OLD: "0x6000", NEW: "3600x6000"}


@pytest.fixture(scope="module")
def promtool() -> str:
    try:
        return str(program("promtool"))
    except ProcessStartError as error:
        pytest.skip(f"no promtool: {error}")


def verdict(said: str, worker: str) -> str:
    return f'fastvlm_coreml_verdict{{{WHERE},{worker},metric="parity",verdict="{said}"}}'


@pytest.mark.parametrize(
    ("said", "at", "alerts"),
    [
        ({NEW: "OK"}, "2h", []),
        ({NEW: "REGRESSION"}, "2h", [("CoreMLModelWorse", "critical", "REGRESSION")]),
        ({NEW: "FAILED"}, "2h", [("CoreMLModelWorse", "critical", "FAILED")]),
        ({NEW: "MISSING"}, "2h", [("CoreMLDeviceMissing", "warning", "MISSING")]),
        ({NEW: "UNSTABLE"}, "2h", []),
        ({OLD: "REGRESSION", NEW: "OK"}, "2h", []),
        ({NEW: "OK"}, "72h", []),
        ({NEW: "OK"}, "73h2m", [("CoreMLNotMeasured", "warning", "")]),
    ],
)
def test_alerts(
    said: dict[str, str], at: str, alerts: list[tuple[str, str, str]], promtool: str, tmp_path: Path
) -> None:
    series = {f"fastvlm_coreml_run_timestamp_seconds{{{WHERE},{one}}}": MEASURED[one] for one in said}
    series |= {verdict(what, worker): "1x6000" for worker, what in said.items()}
    fired = []
    for name, severity, what in alerts:
        more = f',metric="parity",verdict="{what}"' if what else ""
        labels = f'ALERTS{{alertname="{name}",alertstate="firing",{WHERE},severity="{severity}"{more}}}'
        fired.append({"labels": labels, "value": 1})
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": 'ALERTS{alertstate="firing"}', "eval_time": at, "exp_samples": fired}],
    }
    content = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(content))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_name_verdicts_and_runbooks_that_there_are() -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    text = " ".join(rule["expr"] for rule in rules)
    named = {one for names in re.findall(r'verdict=~?"([A-Z|]+)"', text) for one in names.split("|")}
    assert named == {"REGRESSION", "FAILED", "MISSING"}
    assert named <= {str(one) for one in Verdict}
    for rule in rules:
        if "alert" in rule:
            assert (ROOT / rule["annotations"]["runbook"]).is_file()
