"""Which backups are forgotten, on ordinary and odd histories; a log of entries alone is enough for that."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from fastvlm_ops.core.backup import Repository, RetentionPolicy, S3Storage, open_repository
from fastvlm_ops.core.backup.errors import PruningRefusedError
from fastvlm_ops.core.backup.forgetting import ForgetPlan, forget, plan_forgetting
from tests.integration.backup.conftest import PASSPHRASE
from tests.integration.backup.pruning import NOW

DAY = timedelta(days=1)
LAST_ONE = RetentionPolicy(keep_last=1)


def add_snapshot(repository: Repository, name: str, component: str = "models") -> str:
    body = {"snapshot_id": name, "component": component, "kind": "full", "run_key": name, "parent": None}
    repository.refresh()
    contents = {"manifest": f"snapshots/{component}/{name}", "sha256": "0" * 64, "files": 1, "size_bytes": 1}
    repository.log.append("snapshot", {**body, **contents, "warnings": [], "finished": NOW.isoformat()})
    return name


def add_set(repository: Repository, name: str, timestamp: datetime | str = NOW, kind: str = "full") -> str:
    snapshot = add_snapshot(repository, f"of-{name}")
    moment = timestamp if isinstance(timestamp, str) else timestamp.isoformat()
    body = {"set_id": name, "kind": kind, "run_key": name, "timestamp": moment}
    repository.log.append("backup-set", {**body, "snapshots": {"models": snapshot}})
    return name


def add_check(repository: Repository, *sets: str, damaged: Sequence[str] = ()) -> None:
    covered = [f"of-{name}" for name in (*sets, *damaged)]
    body = {"level": "full", "share": None, "ok": not damaged, "snapshots": covered, "run_key": "run"}
    found = [f"of-{name}" for name in damaged]
    repository.refresh()
    repository.log.append("verified", {**body, "damaged": found, "key": f"{sets}{damaged}"})


def plan(
    repository: Repository,
    policy: RetentionPolicy = LAST_ONE,
    share: float = 1.0,
    spared: timedelta = DAY,
    lost: Sequence[str] = (),
) -> ForgetPlan:
    return plan_forgetting(repository, policy, now=NOW, max_share=share, keep_unpublished=spared, lost=lost)


def ids(found: ForgetPlan) -> list[str]:
    return [planned.set_id for planned in found.sets]


def test_one_entry_forgets_what_was_planned_once(repository: Repository, storage: S3Storage) -> None:
    for number in range(4):
        add_set(repository, f"set-{number}", NOW - (9 - number) * DAY)
    add_set(repository, "settings-1", NOW - 8 * DAY, kind="configuration")
    found = plan(repository)
    assert ids(found) == ["set-2", "set-1", "set-0"]
    assert [one.snapshot_id for one in found.snapshots] == ["of-set-2", "of-set-1", "of-set-0"]
    assert "forget" in found.table()
    seq = repository.refresh().seq
    result = forget(repository, found, run_key="run-1")
    assert (result.sets, result.sequence) == (("set-2", "set-1", "set-0"), seq + 1)
    again = forget(open_repository(storage, PASSPHRASE), found, run_key="run-1")
    assert (again.sets, again.snapshots, again.reused) == (result.sets, result.snapshots, True)
    state = open_repository(storage, PASSPHRASE).refresh()
    assert (list(state.sets), state.seq) == (["set-3", "settings-1"], seq + 1)
    assert plan(repository).does_nothing
    assert forget(repository, plan(repository), run_key="run-2").sequence is None


def test_what_was_verified_last_stays(repository: Repository) -> None:
    """Whether its set is old, or nobody ever published it."""
    for number in range(4):
        add_set(repository, f"set-{number}", NOW - (9 - number) * DAY)
    add_check(repository, "set-0", "set-1", "set-2")
    assert ids(plan(repository)) == ["set-1", "set-0"]
    add_check(repository, damaged=["set-2"])
    assert ids(plan(repository)) == ["set-2", "set-0"], "what was found damaged since is not verified"
    found = plan(repository)
    add_check(repository, damaged=["set-1"])
    result = forget(repository, found, run_key="run-1")
    assert result.sets == ("set-2",), "set-0 has become the last verified meanwhile"


def test_a_lost_snapshot_goes_with_its_set_though_the_policy_keeps_it(repository: Repository) -> None:
    """Another set stands for its day then; what is not known to be damaged, or is the newest, stays."""
    keep_days = RetentionPolicy(keep_daily=3)
    for number, moment in enumerate((NOW - 3 * DAY, NOW - DAY, NOW - DAY + timedelta(hours=1), NOW)):
        add_set(repository, f"set-{number}", moment)
    assert ids(plan(repository, keep_days)) == ["set-1"]
    refusal = plan(repository, keep_days, lost=["of-set-2"]).refusal or ""
    assert "snapshot of-set-2 is not known to be damaged" in refusal
    add_check(repository, "set-0", "set-1", damaged=["set-2", "set-3"])
    assert "is the newest of models" in (plan(repository, keep_days, lost=["of-set-3"]).refusal or "")
    found = plan(repository, keep_days, lost=["of-set-2"])
    assert ids(found) == ["set-2"]
    assert [planned.set_id for planned in found.kept] == ["set-3", "set-1", "set-0"]
    assert [(one.snapshot_id, one.reason) for one in found.snapshots] == [
        ("of-set-2", "damaged, and given up as lost")
    ]
    assert "of-set-2 is lost" in found.table()
    assert "at most 10%" in (plan(repository, keep_days, share=0.1, lost=["of-set-2"]).refusal or "")
    assert forget(repository, found, run_key="run-1").snapshots == ("of-set-2",)
    assert list(repository.refresh().sets) == ["set-0", "set-1", "set-3"]
    assert forget(repository, found, run_key="run-1").reused
    assert plan(repository, keep_days, lost=["of-set-2"]).does_nothing


def test_unpublished_snapshots_go_when_they_are_old_by_the_clock_of_s3(repository: Repository) -> None:
    """Their own times say nothing, and the newest of a component is what the next incremental builds on."""
    for name in ("lost-1", "lost-2"):
        add_snapshot(repository, name)
    add_snapshot(repository, "other", component="data")
    assert plan(repository).does_nothing
    found = plan(repository, spared=timedelta(0))
    assert [one.snapshot_id for one in found.snapshots] == ["lost-1"]
    add_set(repository, "set-1")
    found = plan(repository, spared=timedelta(0))
    assert [one.snapshot_id for one in found.snapshots] == ["lost-2", "lost-1"]
    assert forget(repository, found, run_key="run-1").snapshots == ("lost-2", "lost-1")
    assert list(repository.refresh().snapshots) == ["other", "of-set-1"]


def test_too_much_at_once_is_refused(repository: Repository) -> None:
    for number in range(10):
        add_set(repository, f"set-{number}", NOW - (19 - number) * DAY)
    refused = plan(repository, share=0.8)
    assert "9 of 10 backup sets would be forgotten, which is 90%; at most 80%" in (refused.refusal or "")
    with pytest.raises(PruningRefusedError, match="max_share"):
        forget(repository, refused, run_key="run-1")
    assert len(repository.refresh().sets) == 10
    assert len(forget(repository, plan(repository, share=0.9), run_key="run-1").sets) == 9


SUMMER = datetime(2025, 10, 26, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))  # twice that night
ODD: dict[str, tuple[list[datetime | str], list[int]]] = {
    "all in future": ([NOW + DAY, NOW + 2 * DAY], []),
    "all the same": ([NOW, NOW, NOW], [1, 0]),
    "one left": ([NOW - 400 * DAY], []),
    "none": ([], []),
    "unreadable": (["yesterday", "", "2026-01-01T00:00:00"], []),
    "backwards": ([NOW - 1 * DAY, NOW - 2 * DAY, NOW - 3 * DAY], [1, 0]),
    "the hour that comes twice": ([SUMMER.replace(fold=0), SUMMER.replace(fold=1)], [0]),
    "far away": (["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"], []),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("verified", [False, True])
def test_odd_histories_keep_the_newest_and_the_last_verified(
    repository: Repository, name: str, verified: bool
) -> None:
    times, gone = ODD[name]
    for number, time in enumerate(times):
        add_set(repository, f"set-{number}", time)
    if verified and times:
        add_check(repository, "set-0")
        gone = [number for number in gone if number != 0]
    found = plan(repository)
    assert ids(found) == [f"set-{number}" for number in gone]
    forget(repository, found, run_key="run-1")
    state = repository.refresh()
    assert len(state.sets) == len(times) - len(gone)
    assert len(state.snapshots) == len(state.sets)


@pytest.mark.parametrize(
    "wrong", [{"max_share": 1.1}, {"keep_unpublished": -DAY}, {"now": datetime(2026, 1, 1)}]
)
def test_impossible_limits_are_refused(repository: Repository, wrong: dict[str, object]) -> None:
    add_set(repository, "set-1")
    limits: dict[str, object] = {"now": datetime.now(UTC), "max_share": 1.0, "keep_unpublished": DAY}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        plan_forgetting(repository, LAST_ONE, **{**limits, **wrong})  # type: ignore[arg-type]
