"""A recovery by each major version of PostgreSQL that is here, with settings that must not come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.backup import restore_snapshot
from fastvlm_ops.core.backup.postgresql.recovery import RecoveryTarget
from fastvlm_ops.local.postgres import PostgreSQL
from fastvlm_ops.local.postgres_programs import MAJORS
from tests.integration.postgresql.recovery_kit import (
    LATER,
    ROWS,
    SETTINGS,
    Original,
    folder_for_servers,
    new_repository,
)

pytestmark = pytest.mark.integration
ARCHIVED = "/nonexistent/archived"


# The newest is what the other tests of recovery have.
_EACH = [pytest.param(major, marks=[pytest.mark.slow] if major > MAJORS[0] else []) for major in MAJORS]


@pytest.fixture(params=_EACH, ids=lambda major: f"postgresql{major}")
def server(request: pytest.FixtureRequest, make_server: Any) -> PostgreSQL:
    """A server of each major version in turn."""
    return make_server(request.param, settings={**SETTINGS, "synchronous_standby_names": ""})


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_for_servers() as parent:
        yield parent


def test_recovery_to_a_time(server: Any, seaweedfs: Any, s3_client: Any, clients: Any, folder: Path) -> None:
    with new_repository(seaweedfs, s3_client) as repository:
        original = Original(server, repository, clients)
        original.sql("CREATE TABLE item (id serial PRIMARY KEY, text text)")
        for name, value in {
            "archive_command": f"touch {ARCHIVED}",
            "primary_slot_name": "of_the_original",
            "synchronous_standby_names": "nobody",
            "recovery_target_name": "an earlier one",
        }.items():
            original.sql(f"ALTER SYSTEM SET {name} = '{value}'")
        original.insert("a")
        snapshot_id = original.base()
        original.insert("b")
        moment = original.now()
        original.insert("c")
        original.sql("CREATE TABLE later (id int)")
        original.ship()

        trial = original.recovered(folder / "recovered", RecoveryTarget(time=moment), ROWS, LATER)
        assert [answer["row"] for answer in trial.queries] == [["ab"], ["None"]]
        assert (trial.verified, trial.amcheck, trial.timeline) == ("passed", "passed", 2)
        assert trial.version.startswith(f"{server.major}.")
        settings = (folder / "recovered" / "data" / "postgresql.auto.conf").read_text()
        for name in ("archive_command", "primary_slot_name", "synchronous_standby_names"):
            assert settings.rindex(f"{name} = ''") > settings.index(f"{name} = '")
        assert settings.rindex("archive_mode = 'off'")

        # The base backup alone is a cluster too, as it was at its end.
        alone = folder / "alone"
        restore_snapshot(repository, snapshot_id, alone / "data")
        assert not (alone / "data" / "recovery.signal").exists()
        assert original.alone(alone, ROWS) == ["a"]
