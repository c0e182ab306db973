"""Answers that are lost on the way back, and endpoints that take conditions and ignore them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastvlm_ops.core.backup import (
    Repository,
    S3Storage,
    StorageError,
    UnsafeEndpointError,
    initialise_repository,
    open_repository,
    publish_set,
    restore_snapshot,
)
from fastvlm_ops.core.backup.journal import record_restored
from tests.fault_proxy import Answer, Exchange, Fault, FaultProxy, answer_with, lose_answer, on
from tests.integration.backup.conftest import PASSPHRASE, back_up
from tests.integration.backup.test_network_faults import through
from tests.trees import describe, make_plain_tree

if TYPE_CHECKING:
    from fastvlm_ops.local.seaweedfs import SeaweedFS

COMMIT = "PutObject log/"


def answer_too_late(exchange: Exchange) -> None:
    """The server does it; the client waits for the answer until its time is up."""
    exchange.forward()
    exchange.hang()


LOST = {"connection reset": lose_answer, "time-out": answer_too_late}


@pytest.fixture
def proxy(seaweedfs: SeaweedFS, storage: S3Storage) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs.endpoint_url, storage.prefix) as proxy:
        yield proxy


@pytest.fixture
def remote(proxy: FaultProxy, seaweedfs: SeaweedFS, storage: S3Storage) -> S3Storage:
    return through(proxy, seaweedfs, storage, timeout_seconds=1, attempts=2)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_plain_tree(tmp_path / "source", files=6, large_bytes=200_000)


def contents(storage: S3Storage, *, but: str = "\0") -> dict[str, bytes]:
    """Every object, without those below the prefix ``but``."""
    infos = [info for info in storage.list("") if not info.name.startswith(but)]
    return {info.name: storage.get(info.name, limit_bytes=1 << 26) for info in infos}


def commits(storage: S3Storage) -> int:
    return len(list(storage.list("log/")))


# -- the answer to a commit is lost -----------------------------------------------------------------------


@pytest.mark.parametrize("fault", LOST)
def test_a_commit_whose_answer_is_lost_is_known_by_its_nonce(
    fault: str, repository: Repository, proxy: FaultProxy, remote: S3Storage, storage: S3Storage, tree: Path
) -> None:
    """Not by its run: it is this run's own result, not one that is found to have been made already."""
    with proxy.faults(on(COMMIT, LOST[fault], only=1)) as requests:
        result = back_up(open_repository(remote, PASSPHRASE), tree, "run")
    places = [request.place for request in requests]
    entry = f"log/{1:020d}.json"
    assert places.count(f"PutObject {entry}") == 2
    assert places[-1] == f"GetObject {entry}", "the second was refused, and what is there was looked at"
    assert (result.reused, result.sequence, commits(storage)) == (False, 1, 1)
    assert result.new_bytes > 200_000


def test_other_entries_whose_answers_are_lost_are_there_once(
    repository: Repository, proxy: FaultProxy, remote: S3Storage, storage: S3Storage, tree: Path
) -> None:
    made = back_up(repository, tree, "run")
    opened = open_repository(remote, PASSPHRASE)
    with proxy.faults(on(COMMIT, lose_answer, only=1)):
        published = publish_set(
            opened,
            set_id="set",
            kind="full",
            run_key="run",
            components=["models"],
            timestamp=datetime.now(UTC),
        )
    with proxy.faults(on(COMMIT, lose_answer, only=1)):
        is_new = record_restored(
            opened,
            made.snapshot_id,
            set_id="set",
            run_key="run",
            where="scratch",
            files=1,
            size_bytes=1,
            duration_seconds=1.0,
        )
    assert (published.reused, is_new, commits(storage)) == (False, True, 3)
    assert open_repository(storage, PASSPHRASE).refresh().checkpoint() == opened.log.state.checkpoint()


def test_another_writer_between_the_commit_and_its_repetition(
    repository: Repository, proxy: FaultProxy, remote: S3Storage, storage: S3Storage, tree: Path
) -> None:
    """The entry looked at is that of the place claimed, not the newest one."""

    def overtaken(exchange: Exchange) -> None:
        exchange.forward()
        back_up(open_repository(storage, PASSPHRASE), tree, "of-another")
        exchange.reset()

    with proxy.faults(on(COMMIT, overtaken, only=1)):
        result = back_up(open_repository(remote, PASSPHRASE), tree, "run")
    state = open_repository(storage, PASSPHRASE).refresh()
    assert (result.reused, result.sequence) == (False, 1)
    assert [body["run_key"] for body in state.snapshots.values()] == ["run", "of-another"]


def test_a_commit_that_is_never_answered_fails_and_is_found_by_the_next_attempt(
    repository: Repository,
    proxy: FaultProxy,
    remote: S3Storage,
    storage: S3Storage,
    tree: Path,
    tmp_path: Path,
) -> None:
    with (
        proxy.faults(on(COMMIT, lose_answer)),
        pytest.raises(StorageError, match=r"did not answer PutObject for .*log/0+1\.json") as caught,
    ):
        back_up(open_repository(remote, PASSPHRASE), tree, "run")
    assert caught.value.retryable
    again = back_up(open_repository(remote, PASSPHRASE), tree, "run")
    assert (again.reused, again.new_bytes, commits(storage)) == (True, 0, 1)
    restore_snapshot(repository, again.snapshot_id, tmp_path / "target")
    assert describe(tmp_path / "target") == describe(tree)


@pytest.mark.parametrize("place", ["PutObject probe/", "PutObject config.json", "PutObject keys/"])
def test_a_lost_answer_while_a_repository_is_made(
    place: str, proxy: FaultProxy, remote: S3Storage, storage: S3Storage
) -> None:
    with proxy.faults(on(place, lose_answer, only=1)) as requests:
        made = initialise_repository(remote, PASSPHRASE)
    assert sum(request.place.startswith(place) for request in requests) >= 2
    assert open_repository(storage, PASSPHRASE).repository_id == made.repository_id
    assert len(list(storage.list("keys/"))) == 1


# -- the endpoint ignores If-None-Match -------------------------------------------------------------------


@pytest.fixture
def ignoring(storage: S3Storage) -> Fault:
    """As some servers do: takes the header, says 200, and has overwritten what was there."""

    def ignore(exchange: Exchange) -> None:
        storage.put(exchange.request.name, exchange.body)
        exchange.reply(Answer(200, (("ETag", '"of-it"'),), b"", 0))

    return ignore


def test_no_repository_is_made_where_conditions_are_ignored(
    proxy: FaultProxy, remote: S3Storage, storage: S3Storage, ignoring: Fault
) -> None:
    with (
        proxy.faults(on("PutObject", ignoring)),
        pytest.raises(UnsafeEndpointError, match=r"ignores If-None-Match, .* use a server with conditional"),
    ):
        initialise_repository(remote, PASSPHRASE)
    assert contents(storage, but="probe/") == {}


def actions(tree: Path) -> dict[str, Callable[[Repository], object]]:
    """What writes to the log."""
    when = datetime.now(UTC)
    return {
        "backup": lambda repository: back_up(repository, tree, "later"),
        "restored": lambda repository: record_restored(
            repository,
            next(iter(repository.refresh().snapshots)),
            set_id="",
            run_key="later",
            where="scratch",
            files=1,
            size_bytes=1,
            duration_seconds=1.0,
        ),
        "first of all": lambda repository: (
            repository.require_conditional_writes(),
            publish_set(
                repository, set_id="s", kind="full", run_key="run", components=["models"], timestamp=when
            ),
        ),
    }


@pytest.mark.parametrize("action", ["backup", "restored", "first of all"])
def test_an_endpoint_that_begins_to_ignore_conditions_is_written_to_no_more(
    action: str,
    repository: Repository,
    proxy: FaultProxy,
    remote: S3Storage,
    storage: S3Storage,
    tree: Path,
    ignoring: Fault,
) -> None:
    """A gateway was put before it, or another version of it: each run looks anew."""
    back_up(repository, tree, "run")
    (tree / "new.bin").write_bytes(b"new" * 100_000)
    before = contents(storage)
    with (
        proxy.faults(on("PutObject", ignoring)),
        pytest.raises(UnsafeEndpointError, match="ignores If-None-Match"),
    ):
        actions(tree)[action](open_repository(remote, PASSPHRASE))
    assert contents(storage) == before


def test_an_endpoint_without_conditional_writes_says_so(
    proxy: FaultProxy, remote: S3Storage, storage: S3Storage
) -> None:
    began = time.monotonic()
    with (
        proxy.faults(on("PutObject", answer_with(501, "NotImplemented"))),
        pytest.raises(UnsafeEndpointError, match="does not implement conditional writes"),
    ):
        initialise_repository(remote, PASSPHRASE)
    assert contents(storage) == {}
    assert time.monotonic() - began < 30
