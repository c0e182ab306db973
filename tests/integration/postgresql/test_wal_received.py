"""WAL as the receiver brings it, of servers of every version, and what is recovered from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastvlm_ops.core.backup.postgresql.lsn import Segment, parse_lsn
from fastvlm_ops.core.backup.postgresql.programs import Programs, find_programs
from fastvlm_ops.core.backup.postgresql.recovery import RecoveryTarget
from fastvlm_ops.core.backup.postgresql.wal_receiver import ReceiverSettings, WalReceiver
from fastvlm_ops.core.backup.postgresql.wal_store import WalStore
from fastvlm_ops.core.backup.postgresql.wal_watch import WalRules, watch_wal
from fastvlm_ops.core.backup.postgresql.window import prove_window
from fastvlm_ops.local.postgres_programs import client_programs
from tests.integration.postgresql.conftest import execute, url_of
from tests.integration.postgresql.recovery_kit import Original, folder_for_servers, new_repository
from tests.wal_kit import MIB, RunningReceiver, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def repository(seaweedfs: Any, s3_client: Any) -> Iterator[Any]:
    with new_repository(seaweedfs, s3_client) as repository:
        yield repository


def receiver(server: Any, repository: Any, component: str, spool: Path) -> Any:
    settings = ReceiverSettings(
        component=component,
        url=url_of(server),
        slot=component,
        spool_folder=spool,
        spool_limit_bytes=1 << 30,
        programs=find_programs(14, folder=client_programs(), needed=("pg_receivewal",)),
    )
    return lambda tell: WalReceiver(settings, lambda: repository, tell)


def test_of_every_version_and_a_lost_spool_leaves_no_gap(
    server: Any, repository: Any, tmp_path: Path
) -> None:
    component = f"database_{server.major}"
    system_id = execute(server, "SELECT system_identifier::text FROM pg_control_system()")[0][0]
    store = WalStore(repository, component)

    def write() -> tuple[Segment, int]:
        (row,) = execute(
            server, "SELECT pg_logical_emit_message(true, 'test', 'x'), txid_current() % 4294967296"
        )
        (switched,) = execute(server, "SELECT pg_switch_wal()::text")
        return Segment.of(1, parse_lsn(switched[0]) - 1, MIB), row[1]

    def receive(spool: str) -> None:
        running = RunningReceiver(receiver(server, repository, component, tmp_path / spool), once=True)
        running.join(60)
        assert running.error is None, running.text()

    try:
        receive("first")
        write()
        receive("lost")  # which begins empty, as on another machine; nor has the bucket anything
        for _ in range(2):
            last, transaction_id = write()
        receive("second")
    finally:
        execute(server, f"SELECT pg_drop_replication_slot('{component}')")
    stored = store.segments(system_id, MIB)
    assert stored[-1].segment == last
    assert [item.segment.number for item in stored] == list(range(stored[0].segment.number, last.number + 1))
    assert len(stored) >= 3
    found = store.header(stored[-1].name).last
    assert found is not None
    assert found.transaction_id == transaction_id


def test_every_moment_of_the_window_can_be_recovered(
    make_server: Any, repository: Any, clients: Programs, tmp_path: Path
) -> None:
    server = make_server(settings={"synchronous_commit": "on", "autovacuum": "off"})
    original = Original(server, repository, clients)
    rules = WalRules(original.component, max_lag_seconds=600, switch_after_seconds=10)
    running = RunningReceiver(receiver(server, repository, original.component, tmp_path / "spool"))
    try:
        wait_for(lambda: any("starting log" in line for line in running.lines), what=running.text)
        original.sql("CREATE TABLE item (id serial, text text)")
        original.base()
        original.insert("a")
        middle = original.now()
        original.insert("b")
        wait_for(lambda: prove_window(repository, original.component).until_lsn, what=running.text)
        state = watch_wal(repository, original.component, url_of(server), rules)
        assert state.problems == ()
        original.insert("c")  # in no finished segment
    finally:
        running.stop()
        wait_for(lambda: execute(server, "SELECT bool_or(active) FROM pg_replication_slots") == [(False,)])
        execute(server, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    window = state.window
    assert window.recoverable_from < middle < window.recoverable_until
    with folder_for_servers() as folder:
        for moment, rows in ((window.recoverable_until, "ab"), (middle, "a")):
            assert original.rows(folder / rows, RecoveryTarget(time=moment)) == rows
