"""Recovery of a cluster from its base backups and WAL, each target replayed by a real server.

One story for the tests of a module: rows a to c on timeline 1 with a base backup before and between them,
then a promotion, and rows on timeline 2.
"""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.backup.errors import RecoveryError, RestoreTargetError, TrialError
from fastvlm_ops.core.backup.postgresql.lsn import Segment, format_lsn
from fastvlm_ops.core.backup.postgresql.recovery import (
    RecoveryTarget,
    check_recovery,
    plan_recovery,
    recover,
)
from fastvlm_ops.core.backup.postgresql.trial import check_recovered
from fastvlm_ops.core.backup.postgresql.wal_store import WalStore
from tests.integration.backup.conftest import PASSPHRASE
from tests.integration.postgresql.recovery_kit import (
    COMPONENT,
    LATER,
    ROWS,
    SETTINGS,
    Original,
    folder_for_servers,
    new_repository,
    server_programs,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]
HOSTILE = "it's \"x\"; $(touch pwned) `touch pwned` \\ %p %% 'c'"


@dataclass
class Story:
    """What happened when."""

    original: Original
    moments: dict[str, datetime]
    places: dict[str, int]

    @property
    def repository(self) -> Any:
        return self.original.repository

    def plan(self, **target: Any) -> Any:
        return plan_recovery(self.repository, self.original.component, RecoveryTarget(**target))

    def refusal(self, **target: Any) -> str:
        with pytest.raises(RecoveryError) as caught:
            self.plan(**target)
        return str(caught.value)


@pytest.fixture(scope="module")
def original(make_server: Any, seaweedfs: Any, s3_client: Any, clients: Any) -> Iterator[Original]:
    with new_repository(seaweedfs, s3_client) as repository:
        yield Original(make_server(settings=SETTINGS), repository, clients)


@pytest.fixture(scope="module")
def story(original: Original) -> Story:
    moments, places = {}, {}
    original.sql("CREATE TABLE item (id serial, text text)")
    original.insert("a")
    moments["before"] = original.now()
    original.base()
    original.insert("b")
    moments["b"] = original.now()
    original.sql(f"SELECT pg_create_restore_point($name${HOSTILE}$name$)")
    # The place at which the record of the commit begins.
    lsn = "BEGIN; INSERT INTO item (text) VALUES ('c'); SELECT pg_current_wal_insert_lsn()::text; COMMIT"
    places["c"] = _last_lsn(original, lsn)
    original.sql("CREATE TABLE later (id int)")
    original.ship()
    original.base()
    original.insert("d")
    original.ship()
    places["d"] = original.lsn()
    original.insert("e")
    original.ship()
    original.promote()
    original.insert("f")
    original.insert("g")
    original.ship()
    return Story(original, moments, places)


def _last_lsn(original: Original, statements: str) -> int:
    import psycopg

    from fastvlm_ops.core.backup.postgresql.lsn import parse_lsn
    from tests.integration.postgresql.conftest import url_of

    url = url_of(original.server).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statements.encode())
        while not cursor.description:
            cursor.nextset()
        return parse_lsn(cursor.fetchall()[0][0])


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where to recover to, with all in its name that a shell would take for something else."""
    with folder_for_servers() as parent:
        yield parent / 'it\'s a "folder" $(touch pwned)'
        assert not list(parent.rglob("pwned"))


def test_to_a_time(story: Story, folder: Path) -> None:
    trial = story.original.recovered(folder, RecoveryTarget(time=story.moments["b"]), ROWS, LATER)
    assert [answer["row"] for answer in trial.queries] == [["ab"], ["None"]]
    assert trial.stopped is not None
    assert trial.stopped.startswith("recovery stopping before commit of transaction")
    assert datetime.fromisoformat(trial.reached_time or "") <= story.moments["b"]
    assert (trial.timeline, trial.page_checksums, trial.unchecked) == (3, True, [])
    assert not (folder / "data" / "recovery.signal").exists()
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("inclusive", "rows"), [pytest.param(True, "abc", marks=pytest.mark.slow), (False, "ab")]
)
def test_to_the_very_time_of_a_commit(story: Story, folder: Path, inclusive: bool, rows: str) -> None:
    moment = story.original.committed_at("c")
    assert story.original.rows(folder, RecoveryTarget(time=moment, inclusive=inclusive)) == rows


@pytest.mark.parametrize(
    ("inclusive", "rows"), [(True, "abc"), pytest.param(False, "ab", marks=pytest.mark.slow)]
)
def test_to_the_very_place_of_a_commit(story: Story, folder: Path, inclusive: bool, rows: str) -> None:
    target = RecoveryTarget(lsn=story.places["c"], inclusive=inclusive)
    assert story.original.rows(folder, target) == rows


def test_to_a_restore_point_whatever_its_name(story: Story, folder: Path) -> None:
    first, second = story.original.bases[:2]
    target = RecoveryTarget(name=HOSTILE)
    assert plan_recovery(story.repository, COMPONENT, target).snapshot_id == second
    assert story.original.rows(folder, target, snapshot_id=first) == "ab"


def test_a_restore_point_that_is_not_there(story: Story, folder: Path) -> None:
    with pytest.raises(
        RecoveryError, match="there is no restore point 'none' in the WAL between base backup"
    ):
        story.original.recovered(folder, RecoveryTarget(name="none"))


def test_to_the_newest_across_a_promotion(story: Story, folder: Path) -> None:
    plan = story.plan()
    assert (plan.timeline, plan.snapshot_id) == (2, story.original.bases[1])
    assert {item.segment.timeline for item in plan.segments} == {1, 2}
    assert story.original.rows(folder, RecoveryTarget()) == "abcdefg"


def test_to_a_place_on_the_timeline_before_the_promotion(story: Story, folder: Path) -> None:
    target = RecoveryTarget(lsn=story.places["d"], timeline=1)
    assert {item.segment.timeline for item in story.plan(lsn=story.places["d"], timeline=1).segments} == {1}
    assert story.original.rows(folder, target) == "abcd"


def test_a_copy_that_pauses_can_be_looked_at(story: Story, folder: Path) -> None:
    target = RecoveryTarget(time=story.moments["b"], action="pause")
    trial = story.original.recovered(folder, target, ROWS)
    assert (trial.paused, trial.timeline, trial.queries[0]["row"]) == (True, 1, ["ab"])
    assert trial.amcheck.startswith("not checked: the server waits, read-only")
    assert trial.unchecked == [f"amcheck: {trial.amcheck}"]
    again = story.original.trial(folder, ROWS)  # it pauses there whenever it is started
    assert (again.paused, again.verified, again.queries) == (True, "passed", trial.queries)
    with pytest.raises(RecoveryError, match="at the end of the WAL a server does not pause"):
        RecoveryTarget(action="pause")


def test_what_is_outside_of_the_window_is_refused_with_it(story: Story) -> None:
    window = "what can be recovered is "
    early = story.refusal(time=story.moments["before"])
    assert f"it is before the end of base backup {story.original.bases[0]}" in early
    late = story.refusal(time=datetime.now(UTC) + timedelta(days=1))
    assert "it is after the end of the WAL that is stored" in late
    place = story.refusal(lsn=1 << 40)
    assert "it is after the end of the WAL that is stored" in place
    assert "it is before the end of base backup" in story.refusal(lsn=1)
    assert all(window in message for message in (early, late, place))


def test_timelines_that_cannot_be_followed(story: Story) -> None:
    message = story.refusal(timeline=7)
    assert "timeline 7 has no history, 00000007.history is not stored" in message
    assert "the timelines that can be followed are 1, 2" in message


def test_a_gap_is_named(story: Story) -> None:
    original = replace(story.original, component="gappy", bases=[])
    original.base()
    original.insert("h")
    moment = original.now()
    original.insert("i")
    first, *_ = original.ship()[-1:]
    original.insert("j")
    original.ship(without=[first.number + 1])
    original.insert("k")
    late = original.now()
    original.insert("l")
    original.ship(without=[first.number + 1])
    gappy = Story(original, {}, {})
    missing = Segment(first.timeline, first.number + 1, first.segment_bytes)
    for target in ({}, {"time": late}, {"lsn": missing.start_lsn}, {"name": "anything"}):
        message = gappy.refusal(**target)
        assert f"WAL segment {missing.name} (LSN {format_lsn(missing.start_lsn)}" in message
        assert "is not stored, though" in message
    assert gappy.plan(time=moment).segments[-1].segment == first


def test_wal_of_another_system_is_refused(story: Story, tmp_path: Path) -> None:
    original = replace(story.original, component="moved", bases=[])
    snapshot_id = original.base()
    segment = story.plan().segments[-1].segment
    theirs = bytearray((original.server.data / "pg_wal" / segment.name).read_bytes())
    struct.pack_into("<Q", theirs, 24, 4711)
    (tmp_path / segment.name).write_bytes(theirs)
    store = WalStore(story.repository, "moved")
    store.put_segment(tmp_path / segment.name, system_id="4711", segment=segment, closed_at=datetime.now(UTC))
    with pytest.raises(RecoveryError) as caught:
        plan_recovery(story.repository, "moved", RecoveryTarget())
    system_id = story.plan().base.system_id
    assert f"no WAL of system {system_id}, which base backup {snapshot_id} is of" in str(caught.value)
    assert "there is only that of another system: 4711" in str(caught.value)


def test_only_a_new_or_an_empty_folder_is_taken(story: Story, folder: Path) -> None:
    plan = story.plan(time=story.moments["b"])
    folder.mkdir()
    assert check_recovery(story.repository, plan, folder).dry_run
    assert not list(folder.iterdir()), "a dry run writes nothing"
    (folder / "PG_VERSION").write_text("18\n")
    for attempt in (check_recovery, recover):
        with pytest.raises(RestoreTargetError, match="is not empty; a cluster is recovered into a new"):
            attempt(story.repository, plan, folder)
    assert [path.name for path in folder.iterdir()] == ["PG_VERSION"]


KILLED = """
import json, os, signal, sys
from pathlib import Path
from fastvlm_ops.core.backup import S3Storage, create_client, open_repository, placing
from fastvlm_ops.core.backup.postgresql import recovery, wal_store
told = json.load(sys.stdin)
client = create_client(**told["client"])
repository = open_repository(S3Storage(client, told["bucket"], "some/prefix"), told["passphrase"])
plan = recovery.plan_recovery(repository, told["component"], recovery.RecoveryTarget.parse(time=told["time"]))
left = told["after"]
def dying(method):
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*arguments, **options)
    return call
if told["in"] == "base":
    placing.TreeWriter._give_name = dying(placing.TreeWriter._give_name)
else:
    wal_store.WalStore.fetch = dying(wal_store.WalStore.fetch)
recovery.recover(repository, plan, Path(told["folder"]))
"""


@pytest.mark.parametrize(("where", "after"), [pytest.param("base", 400, marks=pytest.mark.slow), ("wal", 2)])
def test_killed_and_run_again(story: Story, seaweedfs: Any, folder: Path, where: str, after: int) -> None:
    moment = story.moments["b"]
    client = {"endpoint_url": seaweedfs.endpoint_url}
    client |= {"access_key_id": seaweedfs.access_key_id, "secret_access_key": seaweedfs.secret_access_key}
    told = {"client": client, "bucket": story.repository.storage.bucket, "passphrase": PASSPHRASE}
    told |= {"component": COMPONENT, "time": moment.isoformat(), "folder": str(folder)}
    told |= {"in": where, "after": after}
    done = subprocess.run(
        [sys.executable, "-c", KILLED], input=json.dumps(told), text=True, capture_output=True, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    there = {path: path.stat().st_ino for path in folder.rglob("*") if path.is_file()}
    there = {path: inode for path, inode in there.items() if not path.name.startswith((".", "recovery.json"))}
    assert len(there) >= after
    with pytest.raises(RestoreTargetError, match="is not empty"):
        recover(story.repository, story.plan(), folder)  # another target
    result = recover(story.repository, story.plan(time=moment), folder)
    assert result.kept_files > 0
    again = [path.name for path, inode in there.items() if path.stat().st_ino != inode]
    assert set(again) <= {"postgresql.auto.conf"}, "what was verified stays"
    assert story.original.trial(folder, ROWS).queries[0]["row"] == ["ab"]
    once_more = recover(story.repository, story.plan(time=moment), folder)
    assert once_more == result, "a complete one is left as it is"


def test_a_check_that_fails_and_one_that_writes(story: Story, folder: Path) -> None:
    with pytest.raises(TrialError, match=r'the check .* fails in database .*: relation "nothing" does'):
        story.original.recovered(folder, RecoveryTarget(time=story.moments["b"]), "SELECT * FROM nothing")
    with pytest.raises(TrialError, match="cannot execute DELETE in a read-only transaction"):
        story.original.trial(folder, ROWS, "DELETE FROM item RETURNING 1")
    with pytest.raises(TrialError, match="cannot insert multiple commands"):
        story.original.trial(folder, "ROLLBACK; DELETE FROM item")
    trial = story.original.trial(folder, ROWS)
    assert trial.queries[0]["row"] == ["ab"]
    assert trial.stopped is not None, "noted by the first trial, for a server says it once"


def test_damage_is_found_before_the_server_starts_and_why_it_does_not(story: Story, folder: Path) -> None:
    recover(story.repository, story.plan(time=story.moments["b"]), folder)
    victim = folder / "data" / "base" / "1" / "PG_VERSION"
    victim.write_text("19\n")
    with pytest.raises(TrialError, match="the base backup is not what was backed up"):
        story.original.trial(folder)
    assert not (folder / "trial.log").exists()
    victim.write_text("18\n")
    with (folder / "data" / "postgresql.auto.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")
    with pytest.raises(TrialError, match=r'unrecognized configuration parameter "no_such_setting"'):
        story.original.trial(folder)
    older = replace(server_programs(18), version="17.0")
    with pytest.raises(TrialError, match=r"is a cluster of PostgreSQL 18, which no server of 17\.0 can open"):
        check_recovered(folder, programs=older)
    (folder / "recovery.json").unlink()
    with pytest.raises(RestoreTargetError, match="holds no complete recovery"):
        story.original.trial(folder)
