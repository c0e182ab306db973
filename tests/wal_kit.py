"""What tests of WAL share: segments made by hand, base backups by their evidence, and a receiver to kill.

As a program, ``python -m tests.wal_kit``, it is that receiver; standard input says what it works with.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvlm_ops.core.backup import FolderSource, Repository, S3Storage, create_snapshot, open_repository
from fastvlm_ops.core.backup.postgresql.lsn import Segment, format_lsn
from fastvlm_ops.core.backup.sources import SourceView

if TYPE_CHECKING:
    from fastvlm_ops.core.backup.postgresql.wal_receiver import WalReceiver

ROOT = Path(__file__).resolve().parents[1]
SYSTEM_ID = "7301234567890123456"
MIB = 1 << 20
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def commit_record(ended_at: datetime, transaction_id: int, *, data: bytes = b"", info: int = 0) -> bytes:
    """A commit as PostgreSQL writes it: a header, the header of its data, a time and more."""
    body = struct.pack("<q", (ended_at - EPOCH) // timedelta(microseconds=1)) + data
    header = struct.pack("<BB", 255, len(body)) if len(body) < 256 else struct.pack("<BI", 254, len(body))
    length = 24 + len(header) + len(body)
    return struct.pack("<IIQBBxxI", length, transaction_id, 0, info, 1, 0) + header + body


def make_segment(
    segment: Segment,
    system_id: str = SYSTEM_ID,
    *,
    records: tuple[bytes, ...] = (),
    rest: int = 0,
    timeline: int | None = None,
) -> bytes:
    """A segment with records, zeros after them, and PostgreSQL's page headers.

    :param rest: bytes with which a record of the segment before goes on
    """
    stream = b"".join(
        record + bytes(-len(record) % 8) for record in (*([b"\xff" * rest] if rest else []), *records)
    )
    pages = []
    for at in range(0, segment.segment_bytes, 8192):
        address = segment.start_lsn + at
        first = at == 0
        info = (2 if first else 0) | (1 if first and rest else 0)
        left = timeline if timeline is not None else segment.timeline
        page = struct.pack("<HHIQIxxxx", 0xD118, info, left, address, rest if first else 0)
        if first:
            page += struct.pack("<QII", int(system_id), segment.segment_bytes, 8192)
        body, stream = stream[: 8192 - len(page)], stream[8192 - len(page) :]
        pages.append((page + body).ljust(8192, b"\0"))
    return b"".join(pages)


class BaseBackup(FolderSource):
    """A folder whose manifest says that it is a base backup."""

    def __init__(self, path: Path, evidence: Mapping[str, Any]) -> None:
        super().__init__(path)
        self._evidence = dict(evidence)

    @contextlib.contextmanager
    def open(self) -> Iterator[SourceView]:
        with super().open() as view:
            view.evidence = {"postgresql": self._evidence}
            yield view


def evidence_of_base(
    *,
    start_lsn: int,
    stop_lsn: int | None = None,
    timeline: int = 1,
    system_id: str = SYSTEM_ID,
    segment_bytes: int = MIB,
    stopped_at: datetime | None = None,
) -> dict[str, Any]:
    """What a manifest says of a base backup."""
    stopped_at = stopped_at or datetime.now(UTC)
    return {
        "system_id": system_id,
        "version": "18.0",
        "major": 18,
        "timeline": timeline,
        "start_lsn": format_lsn(start_lsn),
        "stop_lsn": format_lsn(start_lsn + 256 if stop_lsn is None else stop_lsn),
        "segment_bytes": segment_bytes,
        "started_at": (stopped_at - timedelta(seconds=1)).isoformat(),
        "stopped_at": stopped_at.isoformat(),
    }


def add_base(
    repository: Repository, folder: Path, run_key: str, *, component: str = "database", **described: Any
) -> str:
    """Commit a base backup as its evidence describes it; returns the snapshot's id.

    :param described: see :func:`evidence_of_base`
    """
    folder.mkdir(exist_ok=True)
    (folder / "PG_VERSION").write_text("18\n")
    evidence = evidence_of_base(**described)
    source = BaseBackup(folder, evidence)
    return create_snapshot(repository, source, component=component, kind="full", run_key=run_key).snapshot_id


def wait_for(condition: Callable[[], Any], seconds: float = 20, what: Callable[[], str] | str = "") -> Any:
    """Wait until something is so, and return it.

    :param what: for the message, or what gives it when it is needed
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            told = what() if callable(what) else what
            raise AssertionError(f"not within {seconds} s: {told or condition}")
        time.sleep(0.05)
    return found


class Forwarder:
    """Passes connections on to wherever a server is now; :meth:`cut` ends them all and takes no more."""

    def __init__(self, port: Callable[[], int]) -> None:
        self._port = port
        self._is_cut = False
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def cut(self) -> None:
        self._is_cut = True
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._is_cut = False

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self._is_cut:
                    raise ConnectionRefusedError
                server = socket.create_connection(("127.0.0.1", self._port()))
            except OSError:
                client.close()
                continue
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        self._open.add(one)
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        self._open.discard(one)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class RunningReceiver:
    """A receiver in a thread, which the kernel takes for its child's parent."""

    def __init__(self, receiver: Callable[[Callable[[str], None]], WalReceiver], *, once: bool = False):
        self.lines: list[str] = []
        self.error: BaseException | None = None
        self.receiver = receiver(self.lines.append)
        self._thread = threading.Thread(target=self._run, args=(once,), daemon=True)
        self._thread.start()

    def _run(self, once: bool) -> None:
        try:
            self.receiver.run(once=once)
        except BaseException as error:
            self.error = error

    def text(self) -> str:
        return "\n".join([*self.lines, repr(self.error)])

    def status(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError):
            return json.loads(self.receiver.spool.status_file.read_text())
        return {}

    def join(self, seconds: float = 30) -> None:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), self.text()

    def stop(self) -> None:
        self.receiver.stop()
        self.join()


class ReceiverProcess:
    """A receiver in a process of its own, which can be killed."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.log = Path(options["spool"]).parent / f"{Path(options['spool']).name}.log"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.wal_kit"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT / 'plugins'}:{ROOT}"},
            )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(options).encode())
        self.process.stdin.close()

    def text(self) -> str:
        return self.log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 10) -> int:
        """SIGTERM; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def main() -> None:
    """Be a receiver."""
    from sqlalchemy import make_url

    from fastvlm_ops.core.backup.errors import BackupError
    from fastvlm_ops.core.backup.postgresql.programs import find_programs
    from fastvlm_ops.core.backup.postgresql.wal_receiver import ReceiverSettings, WalReceiver
    from fastvlm_ops.core.backup.storage import create_client

    options = json.load(sys.stdin)
    client = create_client(
        endpoint_url=options["endpoint_url"],
        access_key_id=options["access_key_id"],
        secret_access_key=options["secret_access_key"],
        connect_timeout_seconds=2,
        read_timeout_seconds=3,
        attempts=2,
    )
    storage = S3Storage(client, options["bucket"], options["prefix"])
    settings = ReceiverSettings(
        component=options.get("component", "database"),
        url=make_url(options["url"]),
        slot=options["slot"],
        spool_folder=Path(options["spool"]),
        spool_limit_bytes=options.get("limit_bytes", 1 << 30),
        programs=find_programs(14, folder=Path(options["programs"]), needed=("pg_receivewal",)),
    )

    def tell(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    receiver = WalReceiver(settings, lambda: open_repository(storage, options["passphrase"]), tell)
    signal.signal(signal.SIGTERM, lambda *_: receiver.stop())
    try:
        receiver.run(once=options.get("once", False))
    except BackupError as error:
        tell(f"{type(error).__name__}: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
