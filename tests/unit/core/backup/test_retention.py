"""What a retention policy keeps, on ordinary and on odd histories."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastvlm_ops.core.backup.retention import RetentionPlan, RetentionPolicy, plan_retention
from fastvlm_ops.core.backup.sets import BackupSet, SetMember

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
COMPONENTS = ("configuration", "data", "models")


def backup(
    sequence: int, timestamp: str, kind: str = "full", components: Sequence[str] = COMPONENTS
) -> BackupSet:
    members = tuple(SetMember(name, f"{name}-{sequence}", 1, 1, 1) for name in components)
    return BackupSet(f"set-{sequence}", kind, timestamp, f"run-{sequence}", sequence, members)


def history(times: Sequence[datetime], kind: str = "full") -> list[BackupSet]:
    return [backup(number, time.isoformat(), kind) for number, time in enumerate(times, 1)]


def kept(plan: RetentionPlan) -> list[str]:
    return [planned.set_id for planned in plan.kept]


def reasons(plan: RetentionPlan) -> dict[str, tuple[str, ...]]:
    return {planned.set_id: planned.reasons for planned in plan.kept}


# -- ordinary -----------------------------------------------------------------------------------------


def test_each_rule_keeps_the_newest_of_its_newest_buckets() -> None:
    sets = history([NOW - timedelta(hours=12 * number) for number in reversed(range(800))])
    policy = RetentionPolicy(keep_last=2, keep_daily=3, keep_weekly=2, keep_monthly=2, keep_yearly=2)
    plan = plan_retention(sets, policy, now=NOW)
    assert reasons(plan) == {
        "set-800": (
            "last 1",
            "daily 2026-11-24",
            "weekly 2026-W48",
            "monthly 2026-11",
            "yearly 2026",
            "newest full of configuration, data, models",
        ),
        "set-799": ("last 2",),
        "set-798": ("daily 2026-11-23",),
        "set-796": ("daily 2026-11-22", "weekly 2026-W47"),
        "set-752": ("monthly 2026-10",),
        "set-144": ("yearly 2025",),
    }
    times = {planned.set_id: planned.timestamp for planned in plan.kept}
    assert times["set-144"].startswith("2025-12-31T12")
    assert times["set-752"].startswith("2026-10-31T12")
    assert len(plan.kept) + len(plan.forgotten) == 800


def test_days_without_a_backup_do_not_count() -> None:
    sets = history([datetime(2020, 1, 5, tzinfo=UTC), datetime(2023, 6, 1, tzinfo=UTC), NOW])
    assert kept(plan_retention(sets, RetentionPolicy(keep_daily=2), now=NOW)) == ["set-3", "set-2"]


def test_the_end_of_a_year_lies_in_one_iso_week() -> None:
    days = [datetime(2026, 12, 30, tzinfo=UTC) + timedelta(days=number) for number in range(6)]
    plan = plan_retention(history(days), RetentionPolicy(keep_weekly=3), now=days[-1])
    assert reasons(plan) == {
        "set-6": ("weekly 2027-W01", "newest full of configuration, data, models"),
        "set-5": ("weekly 2026-W53",),  # Sunday, 3 January 2027
    }
    plan = plan_retention(history(days), RetentionPolicy(keep_yearly=5), now=days[-1])
    assert [planned.timestamp[:10] for planned in plan.kept] == ["2027-01-04", "2026-12-31"]


@pytest.mark.parametrize("switch", [datetime(2026, 3, 29), datetime(2026, 10, 25)])
def test_days_are_utc_when_clocks_change(switch: datetime) -> None:
    """A local hour that comes twice, or never, moves no set to another day."""
    berlin = ZoneInfo("Europe/Berlin")
    start = switch.replace(tzinfo=UTC) - timedelta(days=1)
    moments = [start + timedelta(minutes=30 * number) for number in range(4 * 48)]
    local = history([moment.astimezone(berlin) for moment in moments])
    utc = history(moments)
    policy = RetentionPolicy(keep_daily=9)
    now = moments[-1]
    plan = plan_retention(local, policy, now=now)
    assert (
        kept(plan) == kept(plan_retention(utc, policy, now=now)) == ["set-192", "set-144", "set-96", "set-48"]
    )


def test_an_offset_moves_a_set_into_its_day_of_utc() -> None:
    sets = [backup(1, "2026-11-20T23:30:00-05:00"), backup(2, "2026-11-21T10:00:00+00:00")]
    plan = plan_retention(sets, RetentionPolicy(keep_daily=5), now=NOW)
    assert kept(plan) == ["set-2"]  # both are of the 21st


# -- odd ----------------------------------------------------------------------------------------------


def test_all_in_the_future_are_kept() -> None:
    sets = history([NOW + timedelta(days=number) for number in range(1, 30)])
    plan = plan_retention(sets, RetentionPolicy(keep_last=1), now=NOW)
    assert plan.forgotten == ()
    assert reasons(plan)["set-3"] == ("its timestamp is in the future",)


def test_a_clock_that_ran_ahead_uses_up_no_bucket() -> None:
    days = [NOW - timedelta(days=number) for number in (4, 3, 2, 1)]
    sets = [*history(days), backup(5, "2099-01-01T00:00:00+00:00"), backup(6, NOW.isoformat())]
    plan = plan_retention(sets, RetentionPolicy(keep_daily=2), now=NOW)
    assert kept(plan) == ["set-6", "set-5", "set-4"]


@pytest.mark.parametrize(
    "timestamp",
    ["", "yesterday", "2026-11-31T00:00:00+00:00", "2026-11-20T00:00:00", "0001-01-01T00:00:00+23:59", "1"],
)
def test_a_timestamp_that_cannot_be_read_is_a_reason_to_keep(timestamp: str) -> None:
    sets = [backup(1, timestamp), *history([NOW, NOW])[1:]]
    plan = plan_retention(sets, RetentionPolicy(keep_last=1), now=NOW)
    assert "set-1" in kept(plan)
    assert reasons(plan)["set-1"][0].startswith("its timestamp ")


def test_of_several_in_one_second_the_last_committed_is_kept() -> None:
    sets = history([NOW] * 5)
    random.Random(1).shuffle(sets)
    plan = plan_retention(sets, RetentionPolicy(keep_daily=3), now=NOW)
    assert kept(plan) == ["set-5"]


def test_order_is_the_logs_where_clocks_went_back() -> None:
    sets = history([NOW, NOW - timedelta(days=300), NOW - timedelta(days=301)])
    assert kept(plan_retention(sets, RetentionPolicy(keep_last=1), now=NOW)) == ["set-3"]
    assert kept(plan_retention(sets, RetentionPolicy(keep_daily=2), now=NOW)) == ["set-3", "set-2"]


def test_one_left_and_none_left() -> None:
    (only,) = history([NOW - timedelta(days=4000)])
    assert kept(plan_retention([only], RetentionPolicy(keep_daily=1), now=NOW)) == ["set-1"]
    plan = plan_retention([], RetentionPolicy(keep_daily=1), now=NOW)
    assert (plan.kept, plan.forgotten) == ((), ())
    assert plan.table().endswith("0 kept, 0 forgotten")


def test_the_last_verified_set_is_kept() -> None:
    sets = history([NOW - timedelta(days=number) for number in reversed(range(10))])
    verified = frozenset({"set-2", "set-4", "another"})
    plan = plan_retention(sets, RetentionPolicy(keep_last=1), now=NOW, verified=verified)
    assert kept(plan) == ["set-10", "set-4"]
    assert reasons(plan)["set-4"] == ("last verified",)


def test_the_newest_of_each_kind_with_its_components_is_kept() -> None:
    sets = [
        backup(1, "2026-01-01T00:00:00+00:00"),
        backup(2, "2026-01-02T00:00:00+00:00"),
        backup(3, "2026-01-03T00:00:00+00:00", "incremental", ["data", "models"]),
        backup(4, "2026-01-04T00:00:00+00:00", "incremental"),
        backup(5, "2026-01-05T00:00:00+00:00", "full", ["data", "models"]),
        backup(6, "2026-01-06T00:00:00+00:00", "incremental", ["configuration"]),
    ]
    plan = plan_retention(sets, RetentionPolicy(keep_last=1), now=NOW)
    assert reasons(plan) == {
        "set-6": ("last 1", "newest incremental of configuration"),
        "set-5": ("newest full of data, models",),
        "set-4": ("newest incremental of configuration, data, models",),
        "set-2": ("newest full of configuration, data, models",),
    }


def test_a_snapshot_that_a_kept_set_has_is_not_forgotten() -> None:
    first, second = history([NOW - timedelta(days=1), NOW])
    shared = replace(first.snapshots[0], snapshot_id="shared")
    sets = [replace(each, snapshots=(shared, *each.snapshots[1:])) for each in (first, second)]
    plan = plan_retention(sets, RetentionPolicy(keep_last=1), now=NOW)
    assert plan.forgotten_snapshots == ("data-1", "models-1")


def test_policies_that_keep_nothing_or_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="keeps nothing"):
        RetentionPolicy()
    with pytest.raises(ValueError, match="keep_weekly is -1"):
        RetentionPolicy(keep_last=3, keep_weekly=-1)
    with pytest.raises(ValueError, match="keep_last is True"):
        RetentionPolicy(keep_last=True)
    with pytest.raises(ValueError, match="time zone"):
        plan_retention([], RetentionPolicy(keep_last=1), now=datetime(2026, 1, 1))


def test_the_plan_can_be_read_by_people_and_machines() -> None:
    sets = [
        backup(1, "2026-11-23T12:00:00+00:00", components=["data"]),
        backup(2, "2026-11-24T12:00:00+00:00", components=["data"]),
    ]
    plan = plan_retention(sets, RetentionPolicy(keep_last=1), now=NOW)
    assert plan.table() == (
        "        backup set  kind  time                       reasons\n"
        "keep    set-2       full  2026-11-24T12:00:00+00:00  last 1, newest full of data\n"
        "forget  set-1       full  2026-11-23T12:00:00+00:00  -\n"
        "1 kept, 1 forgotten"
    )
    content = json.loads(json.dumps(plan.as_dict()))
    assert content["policy"]["keep_last"] == 1
    assert content["forgotten"][0]["set_id"] == "set-1"
    assert content["forgotten_snapshots"] == ["data-1"]


# -- properties ---------------------------------------------------------------------------------------

TIMESTAMPS = st.one_of(
    st.integers(-3 * 366 * 24, 30 * 24).map(lambda hours: (NOW + timedelta(hours=hours)).isoformat()),
    st.datetimes(timezones=st.timezones()).map(lambda time: time.isoformat()),
    st.sampled_from(["", "nonsense", "2026-11-20T00:00:00"]),
)
COUNTS = st.integers(0, 6)


@st.composite
def histories(draw: st.DrawFn) -> list[BackupSet]:
    count = draw(st.integers(1, 25))
    return [
        backup(
            3 * number + 1,
            draw(TIMESTAMPS),
            draw(st.sampled_from(["full", "incremental"])),
            sorted(draw(st.sets(st.sampled_from(COMPONENTS), min_size=1))),
        )
        for number in range(count)
    ]


@st.composite
def policies(draw: st.DrawFn) -> RetentionPolicy:
    counts = draw(st.lists(COUNTS, min_size=5, max_size=5).filter(any))
    return RetentionPolicy(*counts)


@given(histories(), policies(), st.sets(st.integers(0, 80)))
def test_planning_over_what_is_kept_keeps_it_all(
    sets: list[BackupSet], policy: RetentionPolicy, numbers: set[int]
) -> None:
    verified = frozenset(f"set-{number}" for number in numbers)
    plan = plan_retention(sets, policy, now=NOW, verified=verified)
    left = [each for each in sets if each.set_id in kept(plan)]
    again = plan_retention(left, policy, now=NOW, verified=verified)
    assert again.forgotten == ()
    assert reasons(again) == reasons(plan)


@given(histories(), policies(), st.lists(COUNTS, min_size=5, max_size=5))
def test_a_policy_that_keeps_more_forgets_nothing_that_was_kept(
    sets: list[BackupSet], policy: RetentionPolicy, more: list[int]
) -> None:
    fields = ("keep_last", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")
    larger = RetentionPolicy(
        *(getattr(policy, name) + extra for name, extra in zip(fields, more, strict=True))
    )
    assert set(kept(plan_retention(sets, policy, now=NOW))) <= set(
        kept(plan_retention(sets, larger, now=NOW))
    )


@given(histories(), policies(), st.randoms())
def test_something_is_always_kept_and_order_of_input_does_not_matter(
    sets: list[BackupSet], policy: RetentionPolicy, rng: random.Random
) -> None:
    plan = plan_retention(sets, policy, now=NOW)
    newest = max(sets, key=lambda each: each.sequence)
    assert newest.set_id in kept(plan)
    for kind in {each.kind for each in sets}:
        for component in COMPONENTS:
            having = [
                each
                for each in sets
                if each.kind == kind and component in {member.component for member in each.snapshots}
            ]
            assert not having or any(each.set_id in kept(plan) for each in having)
    shuffled = list(sets)
    rng.shuffle(shuffled)
    assert plan_retention(shuffled, policy, now=NOW) == plan


@given(histories(), policies(), st.sets(st.integers(0, 80), min_size=1))
def test_the_last_verified_is_never_forgotten(
    sets: list[BackupSet], policy: RetentionPolicy, numbers: set[int]
) -> None:
    verified = frozenset(f"set-{number}" for number in numbers)
    there = [each for each in sets if each.set_id in verified]
    plan = plan_retention(sets, policy, now=NOW, verified=verified)
    if there:
        assert max(there, key=lambda each: each.sequence).set_id in kept(plan)


@given(histories(), policies())
def test_no_rule_keeps_more_than_its_count(sets: list[BackupSet], policy: RetentionPolicy) -> None:
    plan = plan_retention(sets, policy, now=NOW)
    for rule in ("last", "daily", "weekly", "monthly", "yearly"):
        times = [why for why_all in reasons(plan).values() for why in why_all if why.startswith(f"{rule} ")]
        found = [why for why in times if why != "last verified"]
        assert len(found) == len(set(found)) <= getattr(policy, f"keep_{rule}")
