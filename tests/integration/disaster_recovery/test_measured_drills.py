"""Drills of the demo service: what was lost is exactly what an independent client and the database say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.disaster_recovery_drills import DrillRun, Drills, allowing_loss, shipped
from fastvlm_ops.core.store import open_store
from fastvlm_ops.local.service.demo_service import DemoService

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def drills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drills]:
    folder = tmp_path_factory.mktemp("drills")
    with (
        open_store(f"sqlite:///{folder}/operations.db", migrate_first=True) as store,
        DemoService(folder / "service", die_with_parent=True) as service,
    ):
        yield Drills(service, store, folder, print)


def test_a_killed_replica(drills: Drills) -> None:
    _passed(drills.run(shipped("service_process_killed")))


def test_a_replica_that_hangs(drills: Drills) -> None:
    found = _passed(drills.run(shipped("service_hung")))
    assert found.measures.rpo_seconds == 0


def test_a_primary_whose_standby_lags_behind_loses_rows_that_are_named(
    drills: Drills, tmp_path: Path
) -> None:
    found = _passed(drills.run(allowing_loss(tmp_path), lag=True))
    assert found.lost_by_client > 0
    assert found.measures.lost
    assert found.measures.rpo_seconds is not None
    assert found.measures.rpo_seconds > 1
    assert not found.measures.lost_later


def _passed(found: DrillRun) -> DrillRun:
    assert (found.verdict, found.reason) == ("PASS", found.reason)
    assert found.rows_wrong == 0
    assert found.measures.rto_seconds is not None
    assert found.client_rto_seconds is not None
    assert found.measures.acknowledged > 0
    return found
