"""Real WAL into a real bucket, while everything that takes part in it is killed."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import make_url

from fastvlm_ops.core.backup import S3Storage, initialise_repository
from fastvlm_ops.core.backup.errors import CorruptionError
from fastvlm_ops.core.backup.postgresql import wal_spool
from fastvlm_ops.core.backup.postgresql.lsn import Segment, format_lsn
from fastvlm_ops.core.backup.postgresql.wal_names import object_name
from fastvlm_ops.core.backup.postgresql.wal_server import ask_server, create_slot
from fastvlm_ops.core.backup.postgresql.wal_spool import OtherSystemError, SpoolBusyError
from fastvlm_ops.core.backup.postgresql.wal_watch import WalRules, watch_wal
from fastvlm_ops.local.postgres import PostgreSQL
from tests.integration.backup.wal_place import BUCKET, PASSPHRASE, Place
from tests.wal_kit import (
    MIB,
    Forwarder,
    ReceiverProcess,
    make_segment,
    wait_for,
)

if TYPE_CHECKING:
    from fastvlm_ops.core.backup import Repository
    from fastvlm_ops.local.seaweedfs import SeaweedFS

pytestmark = [pytest.mark.integration, pytest.mark.slow]

COUNTER = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    with PostgreSQL(tmp_path_factory.mktemp("postgres"), segment_mb=1, die_with_parent=True) as server:
        yield server


@pytest.fixture(scope="module")
def repository(seaweedfs: SeaweedFS) -> Repository:
    client = seaweedfs.client()
    client.create_bucket(Bucket=BUCKET)
    return initialise_repository(S3Storage(client, BUCKET, "some/prefix"), PASSPHRASE)


@pytest.fixture
def place(
    server: PostgreSQL, seaweedfs: SeaweedFS, repository: Repository, tmp_path: Path
) -> Iterator[Place]:
    s3_port = int(seaweedfs.endpoint_url.rpartition(":")[2])
    to_server, to_s3 = Forwarder(lambda: server.port), Forwarder(lambda: s3_port)
    component = f"database_{next(COUNTER)}"
    place = Place(server, seaweedfs, repository, tmp_path, component, to_server, to_s3)
    yield place
    for running in place.running:
        if isinstance(running, ReceiverProcess):
            running.kill()
        else:
            running.stop()
    for forwarder in (to_server, to_s3):
        forwarder.close()
    wait_for(lambda: not place.slot()[0])
    if place.has_slot():
        place.sql(f"SELECT pg_drop_replication_slot('{component}')")


def test_nothing_is_lost_when_anything_is_killed(place: Place):
    process = place.start_process()
    place.wait_until_received(process)
    place.base()
    place.wait_until_stored(place.write(2), process)

    process.kill()  # with its pg_receivewal, by the kernel
    wait_for(lambda: not place.slot()[0])
    place.write(3)
    process = place.start_process()
    place.wait_until_stored(place.write(), process)

    os.kill(wait_for(lambda: place.status()["pg_receivewal_pid"]), signal.SIGKILL)
    place.wait_until_stored(place.write(2), process)

    place.server.restart(crash=True)
    place.wait_until_stored(place.write(2), process)

    place.to_s3.cut()
    last = place.write(2)
    wait_for(lambda: place.status()["storing_trouble"], seconds=60, what=process.text)
    process.kill()
    place.to_s3.mend()
    process = place.start_process()
    place.wait_until_stored(last, process)

    assert place.wal_is_whole()
    window = place.window()
    assert (window.gap, window.until_lsn) == (None, last.end_lsn)
    assert process.stop() == 0
    assert len(list((place.folder / "spool" / "segments").glob("0*"))) <= 2  # the newest, and what has begun
    assert not place.slot()[0]


def test_a_slot_keeps_wal_from_the_moment_it_is_made(place: Place):
    """Also where nothing was to be received then, as at the very beginning of a segment."""
    place.write()
    url = make_url(place.url)
    for _ in range(2):
        create_slot(url, place.component)  # the second time it is there
    slot = ask_server(url, place.component).slot
    assert slot is not None
    assert slot.restart_lsn is not None
    last = place.write(3)
    running = place.start(once=True)
    running.join()
    place.wait_until_stored(last, running)
    assert place.wal_is_whole()


def test_once_stores_what_is_finished_and_ends(place: Place):
    place.start(once=True).join()
    last = place.write(3)
    running = place.start(once=True)
    running.join()
    assert running.error is None
    assert place.status()["state"] == "stopped"
    place.wait_until_stored(last, running)
    assert place.wal_is_whole()
    # Another machine, or a spool that was lost: it goes on after the newest segment in the bucket.
    (place.folder / "spool").rename(place.folder / "lost")
    last = place.write(2)
    running = place.start(once=True)
    running.join()
    assert any("the newest segment in the bucket is 0" in line for line in running.lines), running.text()
    place.wait_until_stored(last, running)
    assert place.wal_is_whole()


@pytest.mark.slow
def test_a_full_spool_leaves_wal_on_the_server(place: Place):
    place.limit_bytes = 4 * MIB
    running = place.start()
    place.wait_until_received(running)
    place.wait_until_stored(place.write(), running)
    place.to_s3.cut()
    last = place.write(7)
    wait_for(lambda: running.status()["state"] == "spool full", seconds=30, what=running.text)
    wait_for(lambda: not place.slot()[0], what=running.text)
    assert any("RECEIVING IS STOPPED: " in line for line in running.lines)
    place.to_s3.mend()
    place.wait_until_stored(last, running)
    # All of it may have been received before it stopped: then it is stored before receiving goes on.
    wait_for(lambda: any("receiving goes on" in line for line in running.lines), what=running.text)
    assert place.wal_is_whole()


def test_other_wal_under_a_name_ends_it(place: Place):
    running = place.start()
    place.wait_until_received(running)
    last = place.write()
    place.wait_until_stored(last, running)
    following = last.next()
    path = place.folder / following.name
    path.write_bytes(make_segment(following, place.system_id()))
    place.store.put_segment(
        path, system_id=place.system_id(), segment=following, closed_at=place.sql("SELECT now()")
    )
    place.write()
    running.join()
    assert isinstance(running.error, CorruptionError)
    assert following.name in str(running.error)
    assert running.status()["state"] == "refused"
    assert (place.folder / "spool" / "segments" / following.name).exists()


def test_another_cluster_is_not_mixed_into_the_spool(place: Place):
    place.start(once=True).join()
    file = place.folder / "spool" / "system.json"
    file.write_text(file.read_text().replace(place.system_id(), "42"))
    running = place.start()
    running.join()
    assert isinstance(running.error, OtherSystemError)
    assert "system 42, but the server that answers" in str(running.error)


def test_there_is_one_receiver_a_spool(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wal_spool, "_LOCK_SECONDS", 0.2)
    first = place.start()
    place.wait_until_received(first)
    second = place.start()
    second.join()
    assert isinstance(second.error, SpoolBusyError)
    assert first.error is None


def test_a_promotion_is_followed(place: Place):
    running = place.start()
    place.wait_until_received(running)
    place.base()
    place.wait_until_stored(place.write(2), running)
    timeline = place.timeline()
    (place.server.data / "standby.signal").touch()
    place.server.restart()
    place.sql("SELECT pg_promote()")
    wait_for(lambda: not place.sql("SELECT pg_is_in_recovery()"))
    place.wait_until_stored(place.write(2), running)
    window = place.window()
    assert window.timeline == timeline + 1
    assert (window.gap, window.notes) == (None, ())
    (history,) = place.store.histories(place.system_id())
    assert history.history.timeline == timeline + 1


def test_watching_has_segments_finished_only_where_something_happened(place: Place):
    rules = WalRules(place.component, max_lag_seconds=600, switch_after_seconds=10)
    url = make_url(place.server.url())

    def watch() -> Any:
        return watch_wal(place.repository, place.component, url, rules, patience_seconds=30)

    running = place.start()
    place.wait_until_received(running)
    place.base()
    place.wait_until_stored(place.write(2), running)
    is_over = threading.Event()

    def load() -> None:
        with psycopg.connect(place.server.url().replace("+psycopg", ""), autocommit=True) as connection:
            while not is_over.is_set():
                connection.execute("SELECT pg_logical_emit_message(true, 'test', repeat('x', 500))")

    writer = threading.Thread(target=load)
    writer.start()
    try:
        for _ in range(2):
            before = place.sql("SELECT clock_timestamp()")
            state = watch()
            assert state.switched
            assert state.problems == ()
            assert state.window.gap is None
            assert state.window.recoverable_until >= before
    finally:
        is_over.set()
        writer.join()
    assert watch().switched  # what came after the last of them
    rest = watch()
    assert not rest.switched
    assert rest.lag_seconds == 0
    assert rest.lag_bytes is not None
    assert rest.lag_bytes < MIB
    assert rest.problems == ()
    place.sql("CHECKPOINT")  # WAL, but no transaction
    assert not watch().switched


def test_what_is_wrong_is_named_with_what_to_do(place: Place):
    rules = WalRules(place.component, max_lag_seconds=600, switch_after_seconds=10)
    url = make_url(place.server.url())

    def problems(**changes: Any) -> str:
        asked = WalRules(**{**vars(rules), **changes})
        return "\n".join(
            watch_wal(place.repository, place.component, url, asked, patience_seconds=0).problems
        )

    assert "there is no base backup" in problems()
    assert f"no replication slot {place.component!r}" in problems()
    running = place.start()
    place.wait_until_received(running)
    place.base()
    place.wait_until_stored(place.write(3), running)
    assert problems() == ""
    running.stop()
    last = place.write()
    assert "nobody receives WAL through the slot" in problems()
    assert "others came after it; wal_max_lag_seconds allows 0 s" in problems(max_lag_seconds=0)

    running = place.start()
    place.wait_until_stored(last, running)
    victim = object_name(place.component, place.system_id(), Segment(last.timeline, last.number - 1, MIB))
    storage = place.repository.storage
    storage.client.delete_object(Bucket=storage.bucket, Key=storage.prefix + victim)
    found = problems()
    assert f"segment {victim[-24:]} is missing (LSN {format_lsn(last.start_lsn - MIB)}" in found
    assert "trigger backup_full" in found


@pytest.mark.slow
def test_a_slot_that_lost_wal_is_said_and_never_removed(place: Place):
    rules = WalRules(place.component, max_lag_seconds=600, switch_after_seconds=10)
    url = make_url(place.server.url())
    running = place.start()
    place.wait_until_received(running)
    place.base()
    place.wait_until_stored(place.write(), running)
    running.stop()
    place.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '2MB'", "SELECT pg_reload_conf()")
    try:
        near = place.write()
        found = watch_wal(place.repository, place.component, url, rules, patience_seconds=0).problems
        assert any("about to lose WAL" in problem for problem in found), (near, found)
        place.write(6)
        place.sql("CHECKPOINT")
        wait_for(lambda: place.slot()[1] == "lost")
        found = watch_wal(place.repository, place.component, url, rules, patience_seconds=0).problems
        assert any("has lost WAL (max_slot_wal_keep_size)" in problem for problem in found)
        running = place.start()
        wait_for(lambda: running.status().get("receiving_trouble"), what=running.text)
        running.stop()
        assert place.slot()[1] == "lost"
    finally:
        place.sql("ALTER SYSTEM RESET max_slot_wal_keep_size", "SELECT pg_reload_conf()")


@pytest.mark.slow
def test_the_receiver_goes_on_where_the_server_can_and_the_gap_is_named(place: Place):
    running = place.start()
    place.wait_until_received(running)
    place.base()
    place.wait_until_stored(place.write(), running)
    place.sql("SELECT pg_logical_emit_message(true, 'test', 'x')")
    segments = place.folder / "spool" / "segments"
    wait_for(lambda: list(segments.glob("*.partial")), what=running.text)
    running.stop()
    place.sql(f"SELECT pg_drop_replication_slot('{place.component}')")  # somebody did
    place.write(4)
    place.sql("CHECKPOINT")
    removed = place.write(3)
    place.sql("CHECKPOINT")
    running = place.start()
    wait_for(lambda: place.slot()[0] and running.status()["state"] == "receiving", what=running.text)
    place.wait_until_stored(place.write(2), running)
    window = place.window()
    assert window.is_broken, removed
    assert any("THE SERVER CANNOT GO ON" in line for line in running.lines)
