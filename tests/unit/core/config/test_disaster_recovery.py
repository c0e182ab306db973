"""Scenarios that cannot be meant are refused, with file and key; those that are shipped are not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastvlm_ops.core.config.disaster_recovery import load_scenario, scenario_files
from fastvlm_ops.core.config.disaster_recovery_policy import load_policy
from fastvlm_ops.core.config.errors import DefinitionError
from tests.conftest import ROOT

SHIPPED = scenario_files(ROOT / "include")
KILLED = yaml.safe_load((ROOT / "include" / "disaster_recovery" / "service_process_killed.yaml").read_text())
TEST = yaml.safe_load((ROOT / "include" / "disaster_recovery" / "restore_test.yaml").read_text())


def changed(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A scenario with one key changed; a value of ``...`` takes it away."""
    data = copy.deepcopy(base)
    *parents, last = path.split(".")
    inner: Any = data
    for part in parents:
        inner = inner[int(part) if part.isdigit() else part]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return data


def load(folder: Path, data: dict[str, Any], name: str = "a_drill.yaml") -> Any:
    file = folder / name
    file.write_text(yaml.safe_dump(data))
    return load_scenario(file)


def test_seven_are_shipped_and_right() -> None:
    assert [load_scenario(file).name for file in SHIPPED] == [
        "configuration_corrupted",
        "model_store_lost",
        "object_store_unreachable",
        "primary_database_lost",
        "restore_test",
        "service_hung",
        "service_process_killed",
    ]


FAULT = "steps.simulate_failure"


@pytest.mark.parametrize(
    ("base", "path", "value", "message"),
    [
        (KILLED, "blast_radios", {"instances": 1}, "blast_radios"),
        (KILLED, f"{FAULT}.fault", "rm_rf", "fault"),
        (KILLED, f"{FAULT}.command", "reboot", "command"),
        (KILLED, f"{FAULT}.instance", "--help", "instance"),
        (KILLED, f"{FAULT}.instance", "replica-1; rm -rf /", "instance"),
        (KILLED, f"{FAULT}.instance", "r\N{CYRILLIC SMALL LETTER IE}plica", "instance"),
        (KILLED, f"{FAULT}.time_to_live_seconds", 0, "time_to_live_seconds"),
        (KILLED, f"{FAULT}.time_to_live_seconds", 3601, "time_to_live_seconds"),
        (KILLED, f"{FAULT}.time_to_live_seconds", float("inf"), "time_to_live_seconds"),
        (KILLED, f"{FAULT}.time_to_live_seconds", ..., "time_to_live_seconds"),
        (
            KILLED,
            FAULT,
            {"fault": "delete_path", "place": "scratch", "path": "../etc", "time_to_live_seconds": 9},
            "may not have",
        ),
        (
            KILLED,
            FAULT,
            {"fault": "delete_path", "place": "scratch", "path": "/etc", "time_to_live_seconds": 9},
            "path",
        ),
        (KILLED, "steps.verify_failover", [], "nothing would show that the fault was there"),
        (KILLED, "steps.validate_recovery", [], "validate_recovery"),
        (KILLED, "steps.verify_failover.0.check", "looks_fine", "check"),
        (KILLED, "steady_state", [], "what is broken already could be drilled"),
        (KILLED, "target.kind", "backups", "target"),
        (KILLED, "target", {"kind": "backups"}, "target has to be of kind service"),
        (KILLED, "environment", "Demo!", "environment"),
        (KILLED, "objectives", ..., "objectives"),
        (KILLED, "objectives.rto_seconds", "soon", "rto_seconds"),
        (KILLED, "approval", "sometimes", "approval"),
        (KILLED, "version", 2, "version"),
        (KILLED, "schedule", "every tuesday", "is no cron expression"),
        (KILLED, "schedule", "0 25 * * *", "cannot be the hour"),
        (KILLED, "schedule", "0 9 * * mon", "cannot be the weekday"),
        (KILLED, "schedule", "5-1 9 * * *", "cannot be the minute"),
        (KILLED, "window", {"days": ["monday"], "start": "16:00", "end": "09:00"}, "is not before end"),
        (
            KILLED,
            "window",
            {"days": ["monday"], "start": "09:00", "end": "16:00", "timezone": "Mars/Olympus"},
            "is no time zone",
        ),
        (KILLED, "on_full_backup", True, "for targets of kind backups only"),
        (TEST, FAULT, KILLED["steps"]["simulate_failure"], "target has to be of kind service"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, base: dict[str, Any], path: str, value: Any, message: str
) -> None:
    load(tmp_path, base)
    with pytest.raises(DefinitionError) as caught:
        load(tmp_path, changed(base, path, value))
    assert "a_drill.yaml" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("schedule", ["0 9 * * 2", "*/5 0-6,12 1 1-12/2 0", None])
def test_cron_expressions(tmp_path: Path, schedule: str | None) -> None:
    assert load(tmp_path, changed(KILLED, "schedule", schedule)).schedule == schedule


@pytest.mark.parametrize("name", ["reaper.yaml", "A.yaml", "a-b.yaml", "a.yml", f"{'a' * 61}.yaml", "1.yaml"])
def test_names_that_can_be_no_dag(tmp_path: Path, name: str) -> None:
    with pytest.raises(DefinitionError, match="cannot be a scenario's"):
        load(tmp_path, KILLED, name)


def test_a_policy_that_is_absent_allows_nothing_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    assert load_policy(tmp_path).production == ()
    assert load_policy(ROOT / "include").production == ()
    (tmp_path / "disaster_recovery_policy.yaml").write_text("version: 1\nproduction: all\n")
    with pytest.raises(DefinitionError, match="production"):
        load_policy(tmp_path)
