"""What a month costs by what is known: what is unknown is not counted as nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.backup.costs import (
    GB,
    Recent,
    StoredBytes,
    estimate,
    is_measured,
    recent_usage,
    record_stored,
    stored_history,
)
from fastvlm_ops.core.backup.replica_state import record_replication, replica_state
from fastvlm_ops.core.backup.usage import Usage
from fastvlm_ops.core.backup.usage_rows import record_usage, usage_by_run, usage_since
from fastvlm_ops.core.config import Prices
from fastvlm_ops.core.store import Store, open_store

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
USED = Usage(
    puts=1000, gets=2000, heads=0, lists=10, deletes=5, copies=0, sent_bytes=7, received_bytes=3 * GB
)


def stored(days_ago: float, gigabytes: float) -> StoredBytes:
    size = round(gigabytes * GB)
    return StoredBytes(NOW - timedelta(days=days_ago), 9, {"packs": size}, {"STANDARD": {"0": size}})


def prices(**changed: Any) -> Prices:
    requests = {"put": 0.005, "get": 0.0004, "head": 0.0004, "list": 0.005, "delete": 0, "copy": 0.005}
    content = {
        "currency": "USD",
        "as_of": "2026-11-30",
        "gb_month": {"STANDARD": 0.02},
        "requests_per_1000": requests,
        "out_gb": 0.09,
    }
    return Prices.model_validate({**content, **changed}, strict=False)


def test_all_is_known() -> None:
    found = estimate([stored(0, 10)], Recent(USED, 30), prices())
    expected = 10 * 0.02 + 0.005 + 2 * 0.0004 + 0.01 * 0.005 + 3 * 0.09
    assert found.total == pytest.approx(expected)
    assert found.known == found.total


def test_requests_of_some_days_are_told_for_a_month() -> None:
    found = estimate([], Recent(USED, 10), prices())
    (puts,) = [line for line in found.lines if line.what == "Requests, PUT"]
    assert puts.amount == pytest.approx(3000)
    assert "over 10 days" in puts.basis


@pytest.mark.parametrize(
    ("history", "recent", "given"),
    [
        ([], Recent(USED, 30), prices()),
        ([stored(0, 1)], None, prices()),
        ([stored(0, 1)], Recent(USED, 0.5), prices()),
        ([stored(0, 1)], Recent(USED, 30), None),
        ([stored(0, 1)], Recent(USED, 30), prices(out_gb=None)),
        ([stored(0, 1)], Recent(USED, 30), prices(requests_per_1000={"put": 1})),
        ([StoredBytes(NOW, 1, {"packs": 5}, {"unknown": {"0": 5}})], Recent(USED, 30), prices()),
    ],
    ids=["bytes", "requests", "too few", "prices", "price of reading", "price of a verb", "class"],
)
def test_one_unknown_makes_the_sum_unknown(history: Any, recent: Any, given: Any) -> None:
    found = estimate(history, recent, given)
    assert found.total is None
    assert found.known >= 0
    assert any(line.cost is None for line in found.lines)


def test_nothing_at_an_unknown_price_costs_nothing() -> None:
    found = estimate(
        [stored(0, 1)],
        Recent(USED, 30),
        prices(requests_per_1000={"put": 1, "get": 1, "list": 1, "delete": 0}),
    )
    assert found.total is not None, "there were no HEAD and no COPY"


def test_growth_is_of_thirty_days_or_unknown() -> None:
    assert estimate([stored(20, 1), stored(0, 3)], None, None).growth_bytes is None
    assert estimate([stored(60, 0), stored(30, 1), stored(0, 3)], None, None).growth_bytes == 2 * GB
    assert estimate([stored(60, 9), stored(0, 3)], None, None).growth_bytes == -3 * GB


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with open_store(f"sqlite:///{tmp_path / 'operations.db'}", migrate_first=True) as opened:
        yield opened


def test_a_day_is_measured_once(store: Store) -> None:
    assert stored_history(store, "r") == []
    assert not is_measured(store, "r", NOW)
    assert record_stored(store, "r", stored(0, 1))
    assert not record_stored(store, "r", stored(0.1, 5))
    assert record_stored(store, "r", stored(3, 2))
    assert is_measured(store, "r", NOW)
    assert [round(found.size_bytes / GB) for found in stored_history(store, "r")] == [2, 1]
    assert stored_history(store, "another") == []


def test_rows_are_written_once_and_added_up_by_run_and_place(store: Store) -> None:
    for _ in range(2):
        record_usage(store, "backup_full/1", "create_backup[0]", Usage(puts=3))
    record_usage(store, "backup_full/1", "create_backup[1]", Usage(puts=4, sent_bytes=9))
    record_usage(store, "backup_replicate/1", "replicate_backup", Usage(gets=5))
    record_usage(store, "backup_replicate/1", "replicate_backup@replica", Usage(puts=100))
    assert usage_since(store, datetime(2020, 1, 1, tzinfo=UTC)) == Usage(puts=7, gets=5, sent_bytes=9)
    assert usage_since(store, datetime(2020, 1, 1, tzinfo=UTC), replica=True) == Usage(puts=100)
    assert usage_since(store, datetime(2120, 1, 1, tzinfo=UTC)) is None
    runs = usage_by_run(store, 5)
    assert [(run.run_key, run.dag_id) for run in runs] == [
        ("backup_replicate/1", "backup_replicate"),
        ("backup_full/1", "backup_full"),
    ]
    recent = recent_usage(store)
    assert recent is not None
    assert recent.days < 1


def replication(**changed: Any) -> dict[str, Any]:
    content = {
        "ok": True,
        "repository_id": "r",
        "connection": "fastvlm_s3_replica",
        "sequence": 7,
        "behind_entries": 0,
        "behind_seconds": 0.0,
        "complete_until": "2026-11-30T12:00:00+00:00",
        "objects": 3,
        "size_bytes": 4,
    }
    return {**content, **changed}


def test_how_far_the_second_place_is(store: Store) -> None:
    assert replica_state(store) is None
    bad = replication(ok=False, complete_until=None, behind_entries=2, behind_seconds=5.0)
    assert record_replication(store, "run/1", bad, {"ok": True})
    state = replica_state(store)
    assert state is not None
    assert (state.ok, state.behind_entries, state.complete_until) == (False, 2, None)
    assert record_replication(store, "run/2", replication(), {"ok": True})
    assert not record_replication(store, "run/2", replication(), {"ok": True})
    state = replica_state(store)
    assert state is not None
    assert (state.ok, state.behind_entries, state.behind_seconds) == (True, 0, 0.0)
    assert state.complete_until == NOW
    assert record_replication(store, "run/3", replication(complete_until="2026-12-01T12:00:00+00:00"), None)
    state = replica_state(store)
    assert state is not None
    assert not state.ok, "nobody has verified it"
    assert state.complete_until == NOW, "what was last known to be good"
