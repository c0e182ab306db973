"""A service of a few processes, and its control on a unix socket, as small as drills of faults need it."""

from __future__ import annotations

import json
import signal
import socketserver
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from fastvlm_ops.core.programs.proc import ProcessId, family, process_id
from fastvlm_ops.core.services.instances import Instance, Marker, ProcessIdentity, Role, ServiceView
from fastvlm_ops.core.services.unix_sockets import short_path

#: A leader, a child in its session, and one that left it, as PostgreSQL's processes do.
PROGRAM = "sleep 600 & setsid sleep 600 & wait"
_MEMBERS = 3


def start_session() -> subprocess.Popen[bytes]:
    """Start a leader with its two children, and wait for them."""
    leader = subprocess.Popen(["/bin/sh", "-c", PROGRAM], start_new_session=True)
    deadline = time.monotonic() + 20
    while len(members(leader)) < _MEMBERS:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return leader


def members(leader: subprocess.Popen[bytes]) -> list[ProcessId]:
    """Return the leader and its children that run."""
    found = process_id(leader.pid)
    return family(found) if found else []


def end(leader: subprocess.Popen[bytes]) -> None:
    """Kill a leader and its children."""
    for process in members(leader):
        process.signal(signal.SIGKILL)
    leader.wait()


class SmallService:
    """Instances that can be started and stopped, and links that can be disturbed.

    :param folder: of the socket
    :param roles: of the instances, by their names
    """

    def __init__(self, folder: Path, roles: dict[str, Role]) -> None:
        self.socket = folder / "control.sock"
        self.address = f"unix:{self.socket}"
        self.roles = roles
        self.leaders = {name: start_session() for name in roles}
        self.asked: list[str] = []
        self.disturbed: dict[str, str] | None = {}
        self._server: socketserver.ThreadingUnixStreamServer | None = None

    def __enter__(self) -> SmallService:
        self.serve()
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        for leader in self.leaders.values():
            end(leader)

    def serve(self) -> None:
        """Answer on the socket."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                status, answer = service.answer(self.command, self.path, self.rfile.read(length))
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_DELETE = do

            def log_message(self, *_: object) -> None: ...

            def address_string(self) -> str:
                return "socket"

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            request_queue_size = 32

        with short_path(self.socket) as path:
            self._server = Server(path, Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def hang_up(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self.socket.unlink()
            self._server = None

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Do what is asked."""
        parts = path.strip("/").split("/")
        if parts != ["view"]:
            self.asked.append(f"{method} {path}")
        if parts == ["view"]:
            return 200, self.view().model_dump_json().encode()
        if parts[0] == "links":
            assert self.disturbed is not None
            if method == "DELETE":
                self.disturbed.pop(parts[1], None)
            else:
                self.disturbed[parts[1]] = json.loads(body)["disturbance"]
            return 200, b"{}"
        return self._tell(parts[1], parts[2])

    def _tell(self, name: str, what: str) -> tuple[int, bytes]:
        if what in {"stop", "restart", "rejoin"}:
            end(self.leaders[name])
        if what in {"start", "restart", "rejoin"} and not self.runs(name):
            self.leaders[name] = start_session()
        if what == "rejoin":
            self.roles[name] = "database_standby"
        return 200, b"{}"

    def runs(self, name: str) -> bool:
        """Whether an instance runs; one that was killed is reaped."""
        return self.leaders[name].poll() is None

    def identity(self, name: str) -> ProcessIdentity:
        """Return the leader of an instance that runs."""
        found = process_id(self.leaders[name].pid)
        assert found is not None
        return ProcessIdentity.of(found)

    def view(self) -> ServiceView:
        """Return what it says of itself."""
        instances = tuple(
            Instance(
                name=name,
                role=role,
                address=None,
                identity=self.identity(name) if self.runs(name) else None,
                healthy=self.runs(name),
            )
            for name, role in self.roles.items()
        )
        return ServiceView(
            marker=Marker(service="small", environment="demo"),
            instances=instances,
            url="http://127.0.0.1:9",
            places={},
            links=("replica-1",),
            disturbed=self.disturbed,
        )
