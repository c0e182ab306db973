"""Watches a drilled service: ``python -m fastvlm_ops.core.disaster_recovery.observer <folder of the drill>``.

It asks the service what its users ask, checks the answers, and writes rows into it, all on the machine's
monotonic clock, and writes each down at once. A request that hangs holds up none of those behind it. It reads
an :class:`ObserverConfig` from its standard input, is nobody's child, and ends when it is told to by SIGTERM,
or when its time to live is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import fcntl
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import httpx
from pydantic import ValidationError

from fastvlm_ops.core.disaster_recovery.detached import leave
from fastvlm_ops.core.disaster_recovery.ledger import (
    PROBE_COLUMNS,
    PROBES_FILE,
    WRITE_COLUMNS,
    WRITES_FILE,
    ProbeRecord,
    WriteOutcome,
    WriteRecord,
    probe_row,
    read_probes,
    read_writes,
    write_row,
)
from fastvlm_ops.core.disaster_recovery.observation import (
    OBSERVER_LOCK,
    Observation,
    ObserverConfig,
    read_observation,
    write_observation,
)
from fastvlm_ops.core.disaster_recovery.service_requests import (
    INFER_CONTENT,
    INFER_PATH,
    READY_PATH,
    RECORDS_PATH,
    answer_hash,
    authorities,
    payload_hash,
    payload_of,
    write_outcome,
)
from fastvlm_ops.core.programs.proc import process_id
from fastvlm_ops.core.services.instances import ProcessIdentity

_HEARTBEAT_SECONDS = 0.25
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(arguments: Sequence[str]) -> int:
    """Watch one drill.

    :param arguments: folder of the drill
    :returns: 0 when it was stopped, or its time was over; 1 when another one watches, or nothing works
    """
    if len(arguments) != 1:
        sys.stderr.write("expected the folder of one drill\n")
        return 2
    folder = Path(arguments[0])
    try:
        config = ObserverConfig.model_validate_json(sys.stdin.read())
    except ValidationError as error:
        sys.stderr.write(f"the observer is told what it does not understand: {error}\n")
        return 2
    leave()
    with (folder / OBSERVER_LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.stderr.write("another observer watches this drill\n")
            return 1
        asyncio.run(_Observer(folder, config).run())
    return 0


class _Lines:
    """A file of the ledger: a line is in it, whole, once :meth:`add` has returned.

    :param file: that is added to; what a killed observer left of its last line is removed
    :param columns: names of its columns
    """

    def __init__(self, file: Path, columns: Sequence[str]) -> None:
        self._file: IO[bytes] = file.open("ab", buffering=0)
        content = file.read_bytes()
        self._file.truncate(content.rfind(b"\n") + 1)
        if b"\n" not in content:
            self.add(columns)

    def add(self, row: Sequence[str]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(row)
        self._file.write(text.getvalue().encode())


class _Observer:
    """Prober and canary.

    :param folder: of the drill
    :param config: what it is told
    """

    def __init__(self, folder: Path, config: ObserverConfig) -> None:
        self._folder, self._config = folder, config
        self._probes = _Lines(folder / PROBES_FILE, PROBE_COLUMNS)
        self._writes = _Lines(folder / WRITES_FILE, WRITE_COLUMNS)
        # After another one was killed: no id is used again, and the right answer is still that of before.
        self._next_probe = 1 + max((one.number for one in read_probes(folder)), default=-1)
        self._next_write = 1 + max((one.number for one in read_writes(folder)), default=-1)
        before = read_observation(folder)
        me = process_id(os.getpid())
        assert me is not None  # noqa: S101 - this process is there
        now = time.monotonic_ns()
        self._observation = Observation(
            process=ProcessIdentity.of(me),
            url=config.url,
            prefix=config.prefix,
            started_ns=now,
            heartbeat_ns=now,
            answer=before.answer if before else None,
        )
        self._ended_by: Literal["stopped", "time_to_live", "failed"] = "stopped"
        self._stop = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Watch until it is told to end, or its time is over."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._stop.set)
        loop.call_later(self._config.time_to_live_seconds, self._end, "time_to_live")
        # Each request is a user of its own: no connection is used twice.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        timeout = httpx.Timeout(self._config.timeout_seconds)
        async with httpx.AsyncClient(
            base_url=self._config.url,
            limits=limits,
            timeout=timeout,
            verify=authorities(self._config.url),
            trust_env=False,
        ) as client:
            try:
                await asyncio.gather(
                    self._every(self._config.probe_seconds, lambda: self._probe(client)),
                    self._every(self._config.write_seconds, lambda: self._write(client)),
                    self._beat(),
                )
                if self._under_way:
                    await asyncio.wait(self._under_way, timeout=2 * self._config.timeout_seconds)
            except BaseException:
                self._ended_by = "failed"
                raise
            finally:
                self._note(ended_ns=time.monotonic_ns(), ended_by=self._ended_by)

    def _end(self, by: Literal["time_to_live", "failed"]) -> None:
        if not self._stop.is_set():
            self._ended_by = by
            self._stop.set()

    async def _every(self, seconds: float, begin: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin something time and again; what was missed on a busy machine is not made up for."""
        begun, count = time.monotonic(), 0
        while not self._stop.is_set():
            task = asyncio.create_task(begin())
            self._under_way.add(task)
            task.add_done_callback(self._finished)
            count = max(count + 1, int((time.monotonic() - begun) / seconds))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._stop.wait(), max(0.0, begun + count * seconds - time.monotonic())
                )

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()):
            # What cannot be written down is not observed: it ends, and that it did is seen.
            sys.stderr.write(f"the observer cannot go on: {type(error).__name__}: {error}\n")
            self._end("failed")

    async def _beat(self) -> None:
        while not self._stop.is_set():
            self._note()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _HEARTBEAT_SECONDS)

    def _note(self, **changes: Any) -> None:
        changes |= {"heartbeat_ns": time.monotonic_ns()}
        self._observation = self._observation.model_copy(update=changes)
        write_observation(self._folder, self._observation)

    async def _probe(self, client: httpx.AsyncClient) -> None:
        number, self._next_probe = self._next_probe, self._next_probe + 1
        sent = time.monotonic_ns()
        response, problem, _ = await self._ask(
            client.get(READY_PATH)
            if self._config.request == "ready"
            else client.post(INFER_PATH, json=INFER_CONTENT)
        )
        problem = problem if response is None else self._wrong(response)
        status = None if response is None else response.status_code
        record = ProbeRecord(number, sent, time.monotonic_ns(), not problem, status, problem)
        self._probes.add(probe_row(record))
        self._count("requests")

    def _wrong(self, response: httpx.Response) -> str:
        """What is wrong with an answer; nothing where it is right. The first inference says what is right."""
        if response.status_code != httpx.codes.OK:
            return f"answered {response.status_code}: {response.text[:100]}"
        if self._config.request == "ready":
            return ""
        found = answer_hash(response)
        if found is None:
            return f"answered no JSON object: {response.text[:100]}"
        if self._observation.answer is None:
            self._note(answer=found)
        return "" if found == self._observation.answer else f"answered otherwise: {response.text[:100]}"

    async def _write(self, client: httpx.AsyncClient) -> None:
        number, self._next_write = self._next_write, self._next_write + 1
        row_id = f"{self._config.prefix}-{number}"
        payload = payload_of(row_id)
        sent = time.monotonic_ns()
        write = WriteRecord(number, row_id, payload_hash(payload), sent, "in_flight")
        self._writes.add(write_row(write))
        response, problem, reached = await self._ask(
            client.post(RECORDS_PATH, json={"id": row_id, "payload": payload})
        )
        outcome: WriteOutcome = "in_flight" if reached else "failed"
        if response is not None:
            outcome = write_outcome(response)
            stored = outcome == "acknowledged"
            problem = "" if stored else f"answered {response.status_code}: {response.text[:100]}"
        now = time.monotonic_ns()
        self._writes.add(write_row(WriteRecord(number, row_id, write.sha256, sent, outcome, now, problem)))
        self._count("writes")

    async def _ask(
        self, asking: Coroutine[Any, Any, httpx.Response]
    ) -> tuple[httpx.Response | None, str, bool]:
        """The answer; or none, why, and whether the service may have got what it was asked."""
        try:
            async with asyncio.timeout(self._config.timeout_seconds):
                return await asking, "", True
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return None, f"no connection: {error}", False
        except (TimeoutError, httpx.TimeoutException):
            return None, f"no answer in {self._config.timeout_seconds:g} s", True
        except httpx.HTTPError as error:
            return None, f"{type(error).__name__}: {error}", True

    def _count(self, what: str) -> None:
        now = getattr(self._observation, what) + 1
        self._observation = self._observation.model_copy(update={what: now})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
