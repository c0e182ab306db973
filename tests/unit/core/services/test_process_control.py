"""The client of a supervisor, against sockets that answer as they should not."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastvlm_ops.core.services import process_control
from fastvlm_ops.core.services.control import ServiceControlError
from fastvlm_ops.core.services.process_control import ProcessControl
from fastvlm_ops.core.services.unix_sockets import short_path

VIEW = {
    "marker": {"service": "demo", "environment": "demo"},
    "instances": [
        {
            "name": "replica-1",
            "role": "replica",
            "address": "127.0.0.1:1",
            "identity": {"kind": "process", "pid": 1, "started": 2, "boot": "b"},
            "healthy": None,
            "detail": "",
        }
    ],
    "url": "http://127.0.0.1:2",
    "places": {"scratch": "/srv/scratch"},
    "links": ["replica-1"],
}
Answering = Callable[[socket.socket, bytes], None]


def whole_request(connection: socket.socket) -> bytes:
    """A request with its body, in however many pieces it comes."""
    found = b""
    while piece := connection.recv(65536):
        found += piece
        head, end, body = found.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if end and len(body) >= (int(length[1]) if length else 0):
            break
    return found


@contextlib.contextmanager
def answering(path: Path, answer: Answering) -> Iterator[list[bytes]]:
    """A socket, each request to which is answered by a function."""
    requests: list[bytes] = []
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener, short_path(path) as bound:
        listener.bind(bound)
        listener.listen()

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        requests.append(whole_request(connection))
                        with contextlib.suppress(OSError):
                            answer(connection, requests[-1])

        threading.Thread(target=run, daemon=True).start()
        yield requests
        listener.shutdown(socket.SHUT_RDWR)


def http(status: int, body: object) -> Answering:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    return lambda connection, _request: connection.sendall(head.encode() + content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


def control(path: Path) -> ProcessControl:
    return ProcessControl(f"unix:{path}")


def test_reads_a_view(path: Path) -> None:
    with answering(path, http(200, VIEW)) as requests:
        view = control(path).view()
    assert view.marker.environment == "demo"
    assert view.instance("replica-1").healthy is None
    assert view.disturbed is None, "not said is not none"
    assert requests[0].startswith(b"GET /view HTTP/1.1\r\n")


def test_a_path_that_is_longer_than_the_kernel_takes(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    with answering(folder / "control.sock", http(200, VIEW)):
        assert control(folder / "control.sock").view().url == "http://127.0.0.1:2"
    assert len(os.fsencode(folder)) > 108


@pytest.mark.parametrize(
    ("call", "request_line", "body"),
    [
        (lambda c: c.start("a"), b"POST /instances/a/start ", None),
        (lambda c: c.stop("a"), b"POST /instances/a/stop ", None),
        (lambda c: c.restart("a"), b"POST /instances/a/restart ", None),
        (lambda c: c.promote("a"), b"POST /instances/a/promote ", None),
        (lambda c: c.rejoin("a"), b"POST /instances/a/rejoin ", None),
        (lambda c: c.soothe("l"), b"DELETE /links/l ", None),
        (
            lambda c: c.disturb("l", "latency", latency_ms=5),
            b"POST /links/l ",
            {"disturbance": "latency", "latency_ms": 5},
        ),
        (
            lambda c: c.behave("a", slow_ms=3),
            b"POST /instances/a/behaviour ",
            {"slow_ms": 3, "failing_share": 0.0, "ready": True},
        ),
    ],
)
def test_what_it_asks_for(path: Path, call: Callable, request_line: bytes, body: object) -> None:
    with answering(path, http(200, {"done": 1})) as requests:
        call(control(path))
    assert requests[0].startswith(request_line)
    if body is not None:
        assert json.loads(requests[0].partition(b"\r\n\r\n")[2]) == body


@pytest.mark.parametrize("name", ["", "../view", "a/b", "a b", "a?b", "a\r\nX: y", "-a", "x" * 65, "é", "."])
def test_names_that_would_lead_elsewhere_are_not_sent(path: Path, name: str) -> None:
    with answering(path, http(200, {})) as requests:
        for call in (control(path).start, control(path).soothe, control(path).promote):
            with pytest.raises(ServiceControlError, match="is no name of an instance or a link"):
                call(name)
    assert requests == []


@pytest.mark.parametrize(
    ("status", "body", "message", "retryable"),
    [
        (409, {"error": "the old primary still runs"}, "the old primary still runs", False),
        (404, b"Not Found", "status 404", False),
        (503, {"error": "links does not answer"}, "links does not answer", True),
        (500, b"", "status 500", True),
        (400, {"error": "x" * 10_000}, "x" * 500, False),
        (400, [1], "status 400", False),
    ],
)
def test_what_was_refused(path: Path, status: int, body: object, message: str, retryable: bool) -> None:
    with answering(path, http(status, body)), pytest.raises(ServiceControlError) as caught:
        control(path).promote("a")
    assert str(caught.value).endswith(f"refused POST /instances/a/promote: {message}")
    assert caught.value.retryable is retryable


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"[]",
        b"{}",
        json.dumps(VIEW | {"more": 1}).encode(),
        json.dumps(VIEW | {"url": 1}).encode(),
    ],
)
def test_an_answer_that_is_no_view(path: Path, body: bytes) -> None:
    with (
        answering(path, http(200, body)),
        pytest.raises(ServiceControlError, match="does not describe a service") as caught,
    ):
        control(path).view()
    assert caught.value.retryable is False


def test_nobody_there(path: Path) -> None:
    with pytest.raises(ServiceControlError, match="cannot be asked") as caught:
        control(path).view()
    assert caught.value.retryable is True
    path.write_text("no socket")
    with pytest.raises(ServiceControlError, match="cannot be asked"):
        control(path).view()
    with pytest.raises(ServiceControlError, match="cannot be asked"):
        control(path.parent / "absent" / "control.sock").view()


def test_what_speaks_no_http(path: Path) -> None:
    with (
        answering(path, lambda connection, _request: connection.sendall(b"hello\n" * 10)),
        pytest.raises(ServiceControlError, match="cannot be asked"),
    ):
        control(path).view()


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_control, "_VIEW_SECONDS", 0.5)


@pytest.mark.usefixtures("short_patience")
def test_silence_is_bounded(path: Path) -> None:
    silent = threading.Event()
    with answering(path, lambda _connection, _request: silent.wait(30) and None):
        began = time.monotonic()
        with pytest.raises(ServiceControlError, match=r"did not answer within \d+ s") as caught:
            control(path).view()
        assert time.monotonic() - began < 10
        silent.set()
    assert caught.value.retryable is True


@pytest.mark.usefixtures("short_patience")
def test_an_answer_that_drips_is_bounded(path: Path) -> None:
    def drip(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(200):
            connection.sendall(b" ")
            time.sleep(0.1)

    with answering(path, drip):
        began = time.monotonic()
        with pytest.raises(ServiceControlError, match="did not answer within"):
            control(path).view()
        assert time.monotonic() - began < 10


def test_an_answer_without_end_is_bounded(path: Path) -> None:
    def pour(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(100):
            connection.sendall(b" " * 65536)

    with answering(path, pour), pytest.raises(ServiceControlError, match="longer than 1048576 bytes"):
        control(path).view()
