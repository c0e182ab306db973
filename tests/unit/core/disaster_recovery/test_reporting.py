"""Pictures, improvements and words of drills."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from fastvlm_ops.core.disaster_recovery.evidence import make_evidence
from fastvlm_ops.core.disaster_recovery.reporting import words
from fastvlm_ops.core.disaster_recovery.reporting.axes import Scale, place_flags
from fastvlm_ops.core.disaster_recovery.reporting.drill_picture import drill_picture
from fastvlm_ops.core.disaster_recovery.reporting.hit import describe_hit
from fastvlm_ops.core.disaster_recovery.reporting.improvements import Improvement, find_improvements
from fastvlm_ops.core.disaster_recovery.reporting.overdue import allowed_age, allowed_ages
from fastvlm_ops.core.disaster_recovery.reporting.record import Earlier, read_record
from fastvlm_ops.core.disaster_recovery.reporting.timeline import Timeline
from fastvlm_ops.core.disaster_recovery.reporting.trend import Figure, gauge, trend_picture
from fastvlm_ops.core.disaster_recovery.reporting.users_picture import users_picture
from fastvlm_ops.core.store import Store, open_store
from tests import drill_kit as kit


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/operations.db", migrate_first=True) as opened:
        yield opened


def timeline_of(store: Store, story: kit.Story, folder: Path) -> Timeline:
    key, measures, fault_ns = kit.run(store, story, kit.NOW, folder)
    record = read_record(store, key)
    return make_evidence(record, folder=folder, measures=measures, fault_ns=fault_ns).timeline


def improvements_of(store: Store, story: kit.Story, folder: Path, *before: float) -> list[Improvement]:
    key, measures, _ = kit.run(store, story, kit.NOW, folder)
    earlier = tuple(Earlier("k", kit.NOW, "PASS", rto, 0.0) for rto in before)
    record = replace(read_record(store, key), earlier=earlier)
    return list(find_improvements(record, measures.unknowns if measures else ()))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not measured"),
        (0.0, "0 s"),
        (0.004, "0 s"),
        (0.41, "0.41 s"),
        (9.996, "10 s"),
        (61.35, "61.4 s"),
        (119.96, "2 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (93_600, "1 d 2 h"),
        (-1.608, "\u22121.61 s"),
    ],
)
def test_seconds(value: float | None, text: str) -> None:
    assert words.seconds(value) == text


@pytest.mark.parametrize("span", [0.7, 3.0, 47.0, 130.0, 4000.0, 100_000.0])
def test_a_scale_has_some_ticks_and_none_over_another(span: float) -> None:
    ticks = Scale(-0.1 * span, span).ticks
    assert 3 <= len(ticks) <= 13
    assert len({tick.text for tick in ticks}) == len(ticks)
    places = [tick.at for tick in ticks]
    assert min(later - before for before, later in pairwise(places)) >= 60
    assert "0 s" in {tick.text for tick in ticks}


def test_texts_of_marks_do_not_cover_each_other() -> None:
    flags = place_flags([(130.0, "fault", "fault"), (131.0, "detected", "noticed 0.1 s")], 1000)
    flags += place_flags([(990.0, "recovered", "recovered 61.4 s")], 1000)
    assert flags[0].y != flags[1].y
    assert flags[2].anchor == "end"


def test_the_picture_is_of_the_outage_and_no_longer_than_it_needs(store: Store, tmp_path: Path) -> None:
    timeline = timeline_of(store, kit.KILLED, tmp_path)
    picture = users_picture(timeline, 60.0)
    assert picture is not None
    assert picture.objective_x is None  # far to the right: only written
    assert picture.objective == "objective 60 s →"
    assert {flag.kind for flag in picture.flags} == {"fault", "detected", "recovered"}
    outage = picture.outages[0]
    by_kind = {flag.kind: flag.x for flag in picture.flags}
    assert by_kind["fault"] <= outage.x < by_kind["detected"] + 1 < by_kind["recovered"]
    assert outage.x + outage.width == pytest.approx(by_kind["recovered"], abs=0.2)


def test_a_service_that_never_came_back_has_an_outage_to_the_end(store: Store, tmp_path: Path) -> None:
    timeline = timeline_of(store, kit.CONFIGURATION, tmp_path)
    picture = users_picture(timeline, 60.0)
    assert picture is not None
    assert picture.outages[0].x + picture.outages[0].width == picture.right
    assert "recovered" not in {flag.kind for flag in picture.flags}
    assert "never" in picture.summary


def test_an_outage_begins_when_its_first_request_was_sent(store: Store, tmp_path: Path) -> None:
    """A time-out makes it known a second later, when users may be served again."""
    timeline = timeline_of(store, kit.HUNG, tmp_path)
    (outage,) = timeline.outages
    assert outage.end is not None
    assert outage.start < outage.end < outage.known
    picture = users_picture(timeline, 60.0)
    assert picture is not None
    assert "detected" not in {flag.kind for flag in picture.flags}
    assert picture.has_writes
    assert picture.writes == {}


def test_without_a_fault_there_is_nothing_that_users_saw(store: Store, tmp_path: Path) -> None:
    timeline = timeline_of(store, kit.RESTORE, tmp_path)
    assert users_picture(timeline, 60.0) is None
    picture = drill_picture(timeline)
    assert picture is not None
    assert [row.title for row in picture.rows] == ["restore service", "validate recovery"]


def test_the_whole_drill_shows_the_fault_until_it_was_undone(store: Store, tmp_path: Path) -> None:
    picture = drill_picture(timeline_of(store, kit.PRIMARY, tmp_path / "1"))
    assert picture is not None
    fault = next(row for row in picture.rows if row.title == "fault").boxes[0]
    assert fault.text == "92 s"
    assert fault.x == picture.zero_x
    left = drill_picture(timeline_of(store, replace(kit.LEFT, scenario="left"), tmp_path / "2"))
    assert left is not None
    still = next(row for row in left.rows if row.title == "fault").boxes[0]
    assert (still.text, round(still.x + still.width)) == ("still there", left.right)
    assert drill_picture(timeline_of(store, kit.REFUSED, tmp_path / "3")) is None


def test_a_long_drill_is_thinned_and_loses_no_failure(store: Store, tmp_path: Path) -> None:
    timeline = timeline_of(store, replace(kit.KILLED, ended=200.0, restored=150.0, undone=190.0), tmp_path)
    assert len(timeline.requests) <= 1201
    assert len(timeline.writes) <= 601
    assert any(not one.ok for one in timeline.requests)
    assert {one.outcome for one in timeline.writes} >= {"acknowledged", "failed"}


def test_a_lost_write_is_seen_among_many(store: Store, tmp_path: Path) -> None:
    story = replace(kit.KILLED, ended=200.0, restored=150.0, undone=190.0, lost=1)
    timeline = timeline_of(store, story, tmp_path)
    assert sum(one.outcome == "lost" for one in timeline.writes) == 1


def test_a_figure_over_time_is_drawn_to_scale_beside_its_objective() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    figures = [Figure(at, 30.0, "PASS"), Figure(at, None, "INCONCLUSIVE"), Figure(at, 61.4, "FAIL")]
    picture = trend_picture("RTO", figures, 60.0)
    assert [bar.tone for bar in picture.bars] == ["good", "warn", "bad"]
    assert picture.bars[1].height == 0
    assert picture.bars[0].height / picture.bars[2].height == pytest.approx(30 / 61.4, abs=0.01)
    assert picture.objective_y is not None
    assert picture.base - picture.bars[2].height < picture.objective_y
    far = trend_picture("RTO", figures[:1], 900.0)
    assert (far.objective_y, far.objective) == (None, "objective 15 min ↑")


def test_a_gauge_of_nothing_is_empty() -> None:
    assert gauge(None, 60.0).parts == ()
    assert gauge(0.0, 0.0).parts == ()
    assert gauge(61.0, 60.0).is_over
    assert not gauge(60.0, 60.0).is_over


@pytest.mark.parametrize("story", [kit.KILLED, kit.STORAGE], ids=["killed", "storage"])
def test_nothing_is_to_improve_where_nothing_was_found(
    store: Store, tmp_path: Path, story: kit.Story
) -> None:
    assert improvements_of(store, story, tmp_path) == []


def test_what_is_to_improve_is_named_with_its_remedy(store: Store, tmp_path: Path) -> None:
    found = improvements_of(store, kit.PRIMARY, tmp_path / "1")
    assert [one.urgency for one in found] == ["now"] * 3
    text = " ".join(one.what for one in found)
    assert "32 acknowledged rows are missing" in text
    assert "Recovery took 61.4 s of 60 s, which is too long" in text
    assert "1.6 s of data were lost, and at most 1 s may be" in text
    assert all(one.remedy for one in found)


def test_a_fault_that_the_drill_did_not_take_back_is_named(store: Store, tmp_path: Path) -> None:
    left = improvements_of(store, replace(kit.LEFT, scenario="a"), tmp_path / "1")
    assert left[0].urgency == "now"
    assert "the control socket did not answer" in left[0].what
    late = improvements_of(store, replace(kit.KILLED, undone_by="time_to_live"), tmp_path / "2")
    assert [(one.urgency, "time to live" in one.what) for one in late] == [("soon", True)]


def test_slower_than_before_is_named_and_much_room_too(store: Store, tmp_path: Path) -> None:
    slow = replace(kit.KILLED, served=7.0)
    found = improvements_of(store, slow, tmp_path / "1", 2.0, 2.1, 2.2)
    assert [one.urgency for one in found] == ["soon"]
    assert "2.1 s in the median of 3 drills before" in found[0].what
    quick = improvements_of(store, replace(kit.KILLED, scenario="b"), tmp_path / "2", 0.4, 0.5, 0.6)
    assert [one.urgency for one in quick] == ["consider"]
    assert improvements_of(store, replace(slow, scenario="c"), tmp_path / "3", 2.0, 2.1) == []


def test_a_dry_run_improves_nothing(store: Store, tmp_path: Path) -> None:
    assert improvements_of(store, replace(kit.PRIMARY, dry_run=True), tmp_path) == []


def test_what_was_hit_is_said_in_words() -> None:
    assert describe_hit(kit.REPLICA_HUNG) == "process of replica-2 stopped (SIGSTOP)"
    assert describe_hit(kit.MODELS_DELETED) == "all of model_store deleted"
    assert describe_hit(kit.STORAGE_GONE) == "link object_store refuses connections"
    assert describe_hit(None) == "nothing is broken"


@pytest.mark.parametrize(
    ("schedule", "age"),
    [
        ("0 11 * * 2", timedelta(days=8)),
        ("0 6 * * *", timedelta(days=2)),
        ("0 6 1 * *", timedelta(days=32)),
        ("0 6 * * 1-5", timedelta(days=4)),
    ],
)
def test_how_old_a_drill_may_be_is_what_its_schedule_says(schedule: str, age: timedelta) -> None:
    assert allowed_age(schedule, kit.NOW) == age


def test_a_broken_scenario_harms_no_other_age(tmp_path: Path) -> None:
    folder = tmp_path / "disaster_recovery"
    folder.mkdir()
    shipped = Path(__file__).resolve().parents[4] / "include" / "disaster_recovery"
    (folder / "service_hung.yaml").write_text((shipped / "service_hung.yaml").read_text())
    (folder / "broken.yaml").write_text("version: 1\n")
    assert set(allowed_ages(tmp_path, kit.NOW)) == {"service_hung"}
