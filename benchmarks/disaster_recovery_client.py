"""A client of a drilled service that shares nothing with the observer but the machine's clock.

    python -m benchmarks.disaster_recovery_client URL PREFIX FILE

Asks for inferences and writes rows, a thread each, and adds a line of JSON for each to the file, until it is
told to end by SIGTERM. Standard library only.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

INTERVAL_SECONDS = 0.02
TIMEOUT_SECONDS = 1.0
#: An outage is over with a right answer, unless something fails that was asked for this soon after.
QUIET_NS = 1_000_000_000
_THREADS = 128


def main(arguments: list[str]) -> int:
    """Ask until told to end."""
    url, prefix, file = urlsplit(arguments[0]), arguments[1], Path(arguments[2])
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    lock = threading.Lock()
    with file.open("a", buffering=1) as output, ThreadPoolExecutor(_THREADS) as pool:

        def note(**event: Any) -> None:
            with lock:
                output.write(json.dumps(event) + "\n")

        def ask(number: int) -> None:
            sent = time.monotonic_ns()
            status, body = _post(url.netloc, "/v1/infer", {"text": "an independent client"})
            answer = hashlib.sha256(body).hexdigest() if status == 200 else None
            note(what="request", sent=sent, answered=time.monotonic_ns(), answer=answer)

        def write(number: int) -> None:
            row, payload = f"{prefix}-{number}", f"{number:08d}" * 8
            sent = time.monotonic_ns()
            status, _ = _post(url.netloc, "/v1/records", {"id": row, "payload": payload})
            note(
                what="write",
                id=row,
                payload=payload,
                sent=sent,
                answered=time.monotonic_ns(),
                acknowledged=status == 201,
            )

        pacing = [threading.Thread(target=_pace, args=(pool, one, end)) for one in (ask, write)]
        for thread in pacing:
            thread.start()
        for thread in pacing:
            thread.join()
    return 0


def _pace(pool: ThreadPoolExecutor, one: Callable[[int], None], end: threading.Event) -> None:
    began, number = time.monotonic(), 0
    while not end.wait(max(0.0, began + number * INTERVAL_SECONDS - time.monotonic())):
        pool.submit(one, number)
        number += 1


def _post(address: str, path: str, content: dict[str, str]) -> tuple[int | None, bytes]:
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("POST", path, json.dumps(content), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()


@dataclass(frozen=True)
class Seen:
    """What the client has written down.

    :param asked: of requests and of writes: when it was sent, when answered, and whether rightly
    :param written: acknowledged rows: when sent, when acknowledged, and the payload
    """

    asked: dict[str, list[tuple[int, int, bool]]] = field(default_factory=dict)
    written: dict[str, tuple[int, int, str]] = field(default_factory=dict)

    def rto_seconds(self, fault_ns: int) -> float | None:
        """From the fault to the first right answer after the outage; the later one of both kinds."""
        ends = [_end(events, fault_ns) for events in self.asked.values()]
        known = [end for end in ends if end is not None]
        if len(known) < len(ends) or not known:
            return None
        troubled = [end for end, failed in known if failed]
        return (max(troubled or [end for end, _ in known]) - fault_ns) / 1e9

    def lost(self, injected_ns: int, rows: dict[str, str]) -> dict[str, int]:
        """Rows acknowledged before the fault and not there as they were written: when each was sent."""
        return {
            row: sent
            for row, (sent, acknowledged, payload) in self.written.items()
            if acknowledged <= injected_ns and rows.get(row) != payload
        }


def read_seen(file: Path) -> Seen:
    """Return what a client has written down; a line cut short is left out."""
    seen = Seen({"request": [], "write": []})
    right: str | None = None
    for line in file.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            continue
        event = json.loads(line)
        if event["what"] == "request":
            right = right or event["answer"]
            ok = event["answer"] is not None and event["answer"] == right
        else:
            ok = event["acknowledged"]
            if ok:
                seen.written[event["id"]] = (event["sent"], event["answered"], event["payload"])
        seen.asked[event["what"]].append((event["sent"], event["answered"], ok))
    for events in seen.asked.values():
        events.sort()
    return seen


def _end(events: list[tuple[int, int, bool]], fault_ns: int) -> tuple[int, bool] | None:
    """When the first right answer after the outage was there, and whether anything failed; None: never."""
    right: tuple[int, int] | None = None
    failed = False
    for sent, answered, ok in events:
        if not ok and answered >= fault_ns:
            if right and sent - right[0] >= QUIET_NS:
                break  # another outage
            right, failed = None, True
        elif ok and sent >= fault_ns and right is None:
            right = (sent, answered)
    return (right[1], failed) if right else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
