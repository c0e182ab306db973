"""Processes that hammer one database, some of them killed.

What a worker claims to have done stands in its own file, written as it happens, so that it outlives the
worker and is no part of what is tested.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from fastvlm_ops.core.store import Store, leases, migrate, open_store, outbox
from fastvlm_ops.core.store.errors import ClaimLostError, LeaseLostError
from fastvlm_ops.core.store.events import append_event

# Workers are forked from a process that has imported everything, and has no thread and no connection.
_CONTEXT: Any = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])
COUNT = 8
LEASE_TIME = timedelta(seconds=0.4)
VISIBILITY = timedelta(seconds=0.5)


class Evidence:
    """The file of one worker: lines that are in the system's hands before the worker goes on."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, *words: object) -> None:
        """Add a line."""
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


def count_under_a_lease(store: Store, evidence: Evidence, goal: int) -> None:
    """Count to a goal in steps of one, each under a lease, read and written in different transactions."""
    while True:
        lease = leases.acquire(store, "counter", holder=str(os.getpid()), time_to_live=LEASE_TIME)
        if lease is None:
            time.sleep(0.005)
            continue
        evidence.write("acquired", lease.token)
        try:
            with store.write() as connection:
                leases.require(connection, lease)
                value = connection.execute(text("SELECT value FROM test_counter")).scalar_one()
            if value >= goal:
                leases.release(store, lease)
                return
            if lease.token % 10 == 0:  # a long pause: the lease goes to somebody else meanwhile
                time.sleep(LEASE_TIME.total_seconds() * 2)
            with store.write() as connection:
                leases.require(connection, lease)
                step = {"value": value + 1, "token": lease.token}
                connection.execute(text("UPDATE test_counter SET value = :value"), step)
                connection.execute(text("INSERT INTO test_hold (value, token) VALUES (:value, :token)"), step)
        except LeaseLostError:
            evidence.write("fenced", lease.token)
            continue
        leases.release(store, lease)


def record_once(store: Store, evidence: Evidence, goal: int) -> None:
    """Record and announce so many things that all other workers record and announce too."""
    for number in range(goal):
        with store.write() as connection:
            new = append_event(
                connection, stream="test", dedup_key=f"key-{number}", subject="thing", kind="seen"
            )
            enqueued = outbox.enqueue(connection, topic="test", dedup_key=f"key-{number}", payload={})
            if new != enqueued:
                raise AssertionError(f"key-{number}: event new: {new}, message new: {enqueued}")
            if new:
                statement = text("INSERT INTO test_won (number, pid) VALUES (:number, :pid)")
                connection.execute(statement, {"number": number, "pid": os.getpid()})
        evidence.write("recorded", number)


def handle_messages(store: Store, evidence: Evidence, goal: int) -> None:
    """Handle messages until all are acknowledged."""
    while True:
        claimed = outbox.claim(store, "test", limit=3, visibility=VISIBILITY)
        if not claimed:
            with store.read() as connection:
                if outbox.backlog(connection, "test").acknowledged >= goal:
                    return
            time.sleep(0.02)
        for message in claimed:
            evidence.write("handled", message.dedup_key)
            _settle(store, evidence, message)


def _settle(store: Store, evidence: Evidence, message: outbox.Message) -> None:
    chance = random.random()
    # The first attempts at one message all pause, so that some do after the last worker was killed.
    if chance < 0.03 or (message.dedup_key == "key-0" and message.attempt <= 5):  # others claim it meanwhile
        time.sleep(VISIBILITY.total_seconds() * 2)
    try:
        with store.write() as connection:
            if chance > 0.95 and message.attempt < 5:
                outbox.fail(connection, message, "unlucky", first_delay=timedelta(seconds=0.05))
                return
            statement = text("INSERT INTO test_done (key, pid) VALUES (:key, :pid)")
            connection.execute(statement, {"key": message.dedup_key, "pid": os.getpid()})
            outbox.acknowledge(connection, message)
    except ClaimLostError:
        evidence.write("late", message.dedup_key)


ROLES: dict[str, Callable[[Store, Evidence, int], None]] = {
    "count": count_under_a_lease,
    "record": record_once,
    "handle": handle_messages,
}


class Crew:
    """Workers with one role.

    :param role: of all of them
    :param url: of the database
    :param folder: for their files
    :param goal: what they work up to
    """

    def __init__(self, role: str, url: str, folder: Path, goal: int = 0) -> None:
        self.role, self.url, self.folder, self.goal = role, url, folder, goal
        self.killed = 0
        self._started = 0
        self._running: list[Any] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._running:
            worker.kill()
            worker.join()

    def start(self, count: int = COUNT) -> None:
        """Start so many workers."""
        for _ in range(count):
            self._started += 1
            file = self.folder / f"{self.role}-{self._started}"
            worker = _CONTEXT.Process(target=work, args=(self.role, self.url, file, self.goal), daemon=True)
            worker.start()
            self._running.append(worker)

    def kill_some(self, kills: int) -> None:
        """Kill -9 random workers that are at work, a new one in place of each."""
        self.wait_until_at_work()
        for _ in range(kills):
            time.sleep(random.uniform(0.02, 0.25))
            alive = [worker for worker in self._running if worker.is_alive()]
            if not alive:
                return
            victim = random.choice(alive)
            victim.kill()
            victim.join()
            if victim.exitcode == -signal.SIGKILL:
                self.killed += 1
                self._running.remove(victim)
                self.start(1)

    def wait_until_at_work(self) -> None:
        """Wait until half of the workers that were started have written something, or all have ended."""
        deadline = time.monotonic() + 20
        while sum(bool(file.stat().st_size) for file in self._files()) < self._started // 2:
            if time.monotonic() > deadline or not any(worker.is_alive() for worker in self._running):
                return
            time.sleep(0.01)

    def finish(self, *, timeout_seconds: float = 25) -> list[list[str]]:
        """Wait for all workers, each of which must succeed; return the lines of all, as words."""
        deadline = time.monotonic() + timeout_seconds
        for worker in self._running:
            worker.join(max(0.1, deadline - time.monotonic()))
            assert worker.exitcode == 0, f"exit code {worker.exitcode}\n{self._errors()}"
        return [line.split() for file in self._files() for line in file.read_text().splitlines()]

    def _files(self) -> list[Path]:
        return [file for file in self.folder.glob(f"{self.role}-*") if file.suffix != ".error"]

    def _errors(self) -> str:
        return "\n".join(file.read_text() for file in self.folder.glob(f"{self.role}-*.error"))


def work(role: str, url: str, file: Path, goal: int) -> None:
    """Be one worker."""
    try:
        if role == "migrate":
            _migrate_with_the_others(url, file)
            return
        with open_store(url) as store:
            ROLES[role](store, Evidence(file), goal)
    except BaseException:
        file.with_suffix(".error").write_text(traceback.format_exc())
        raise


def _migrate_with_the_others(url: str, file: Path) -> None:
    Evidence(file).write("ready")
    while not (file.parent / "start").exists():
        time.sleep(0.001)
    migrate(url)
