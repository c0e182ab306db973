"""Targets of a recovery: what is refused at the door, and what reaches a server's settings."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.backup.errors import RecoveryError
from fastvlm_ops.core.backup.postgresql.recovery_settings import (
    quote_setting,
    recovery_settings,
    write_recovery,
)
from fastvlm_ops.core.backup.postgresql.recovery_target import RecoveryTarget

MOMENT = "2026-01-04T13:00:00.000001+01:00"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"time": "2026-01-04T12:00:00"}, "has no zone"),
        ({"time": "yesterday"}, "'yesterday' is no time"),
        ({"time": MOMENT, "lsn": "0/1"}, "time and lsn are given; leave one"),
        ({"time": MOMENT, "name": "a"}, "time and name are given"),
        ({"lsn": "16B374D848"}, "'16B374D848' is no LSN"),
        ({"lsn": "0/0"}, "the LSN 0 cannot be"),
        ({"name": "a\nb"}, "characters that cannot be printed"),
        ({"name": "a\0"}, "characters that cannot be printed"),
        ({"name": "\udcff"}, "characters that cannot be printed"),
        ({"name": "é" * 32}, "is 64 bytes long; PostgreSQL has none above 63"),
        ({"name": "a", "inclusive": False}, "only a time or an LSN can be excluded"),
        ({"inclusive": False}, "only a time or an LSN can be excluded"),
        ({"timeline": "0"}, "timeline 0 cannot be"),
        ({"timeline": "newest"}, "'newest' is no timeline"),
        ({"timeline": 1 << 32}, "cannot be; expected latest, or a number from 1 on"),
        ({"action": "pause"}, "at the end of the WAL a server does not pause"),
        ({"lsn": "0/1", "action": "shutdown"}, "the action 'shutdown' cannot be"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecoveryError) as caught:
        RecoveryTarget.parse(**fields)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"time": MOMENT, "inclusive": False, "timeline": "3", "action": "pause"},
        {"lsn": "16/B374D848"},
        {"name": "before the 'great' clean-up"},
        {"time": "", "lsn": None, "name": "", "timeline": ""},
    ],
)
def test_a_target_goes_through_json_and_back(fields: dict[str, Any]) -> None:
    target = RecoveryTarget.parse(**fields)
    assert RecoveryTarget.from_dict(target.as_dict()) == target


def last_values(path: Path) -> dict[str, str]:
    """What counts of a settings file: the last line of each name."""
    lines = [line for line in path.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


@pytest.mark.parametrize(
    ("fields", "setting", "value"),
    [
        ({"time": MOMENT}, "recovery_target_time", "'2026-01-04 12:00:00.000001+00'"),
        ({"lsn": "16/b374d848"}, "recovery_target_lsn", "'16/B374D848'"),
        ({"name": "it's \\ $(x)"}, "recovery_target_name", "'it''s \\\\ $(x)'"),
    ],
)
def test_one_target_is_set_and_all_others_are_empty_before_it(
    tmp_path: Path, fields: dict[str, Any], setting: str, value: str
) -> None:
    (tmp_path / "postgresql.conf").write_text("port = 5432\n")
    (tmp_path / "postgresql.auto.conf").write_text("recovery_target_xid = '7'\nwork_mem = '1MB'")
    target = RecoveryTarget.parse(**fields)
    settings = recovery_settings(target, timeline=3, major=18)
    changes = write_recovery(tmp_path, settings)
    found = last_values(tmp_path / "postgresql.auto.conf")
    targets = {name: text for name, text in found.items() if name.startswith("recovery_target")}
    options = {"recovery_target_timeline", "recovery_target_inclusive", "recovery_target_action"}
    assert {name for name, text in targets.items() if text != "''"} == {setting, *options}
    assert found[setting] == value
    assert list(settings)[-1] == setting, "a server refuses a second target while one is set"
    assert found["work_mem"] == "'1MB'"
    assert "recovery_target_xid overridden" in changes
    assert (tmp_path / "recovery.signal").exists()


def test_the_command_of_a_shell_holds_nothing_of_the_form() -> None:
    targets = [RecoveryTarget(name="$(x) `x` %p '\""), RecoveryTarget(time=datetime(2026, 1, 4, tzinfo=UTC))]
    commands = {recovery_settings(target, timeline=1, major=18)["restore_command"] for target in targets}
    assert commands == {'cp "../wal_restore/%f" "%p"'}


def test_the_settings_are_those_that_the_version_knows() -> None:
    def names(major: int) -> set[str]:
        return set(recovery_settings(RecoveryTarget(), timeline=1, major=major))

    assert names(15) - names(14) == {"archive_library"}
    assert names(17) - names(16) == {"sync_replication_slots", "synchronized_standby_slots"}


def test_a_base_becomes_one_that_leads_nowhere_else_and_again_the_same(tmp_path: Path) -> None:
    (tmp_path / "postgresql.conf").write_bytes(
        b"Data_Directory '/var/lib/original'\nexternal_pid_file='/run/original.pid'\nwork_mem = '\xff'\n"
    )
    (tmp_path / "pg_hba.conf").write_text("local all all peer\n")
    (tmp_path / "postgresql.auto.conf").write_text("archive_mode = 'on'\n")
    for name in ("standby.signal", "postmaster.pid", "postmaster.opts"):
        (tmp_path / name).touch()
    settings = recovery_settings(RecoveryTarget(), timeline=1, major=14)
    changes = write_recovery(tmp_path, settings)
    assert (tmp_path / "postgresql.conf").read_bytes() == (
        b"#Data_Directory '/var/lib/original'\n#external_pid_file='/run/original.pid'\nwork_mem = '\xff'\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "pg_hba.conf",
        "postgresql.auto.conf",
        "postgresql.conf",
        "recovery.signal",
    ]
    assert {"standby.signal removed", "archive_mode overridden"} < set(changes)
    before = (tmp_path / "postgresql.auto.conf").read_bytes()
    write_recovery(tmp_path, settings)  # as an attempt does that follows one that was killed
    assert (tmp_path / "postgresql.auto.conf").read_bytes() == before


def test_settings_that_lie_elsewhere_are_replaced_by_few(tmp_path: Path) -> None:
    changes = write_recovery(tmp_path, recovery_settings(RecoveryTarget(), timeline=1, major=14))
    assert (tmp_path / "pg_hba.conf").read_text() == "local all all peer\n"
    assert (tmp_path / "postgresql.conf").stat().st_mode & 0o777 == 0o600
    assert any("postgresql.conf is not in the backup" in change for change in changes)


def test_quoting() -> None:
    assert quote_setting("a'b\\c") == "'a''b\\\\c'"
