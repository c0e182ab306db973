"""The demo service, broken in one way after the other; each test leaves it healthy."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psycopg
import pytest

from fastvlm_ops.core.programs.proc import marked
from fastvlm_ops.core.services.control import ServiceControlError
from fastvlm_ops.core.services.places import read_place_marker
from fastvlm_ops.local.ports import HOST
from fastvlm_ops.local.service.demo_service import DemoService
from fastvlm_ops.local.service.layout import SERVICE_MARKER
from tests.listening import addresses_of
from tests.service_kit import QUESTION, Users, get, instance, is_healthy, is_out, post, until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

REPLICAS = ("replica-1", "replica-2")
WEIGHTS = "FastVLMTags-v1.mlpackage/Data/com.apple.CoreML/weights/weight.bin"


class _Store(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments: object) -> None:
        """Nothing is printed."""


@pytest.fixture(scope="module")
def store_url() -> Iterator[str]:
    """A server that stands where the object store does."""
    with ThreadingHTTPServer((HOST, 0), _Store) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{HOST}:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, store_url: str) -> Iterator[DemoService]:
    folder = tmp_path_factory.mktemp("service")
    with DemoService(folder, object_store_url=store_url, die_with_parent=True) as made:
        yield made


@pytest.fixture
def service(running: DemoService) -> Iterator[DemoService]:
    """The service, healthy before and after each test."""
    running.wait_until_healthy()
    yield running
    running.wait_until_healthy()


@pytest.fixture
def users(service: DemoService) -> Iterator[Users]:
    with Users(service.url) as asking:
        until(lambda: asking.are_served(0))
        yield asking


# -- as it is ----------------------------------------------------------------------------------------


def test_says_what_it_is(service: DemoService) -> None:
    view = service.control.view()
    assert (view.marker.service, view.marker.environment) == ("fastvlm-demo", "demo")
    assert {one.name: one.role for one in view.instances} == {
        "links": "other",
        "balancer": "proxy",
        "replica-1": "replica",
        "replica-2": "replica",
        "database-1": "database_primary",
        "database-2": "database_standby",
    }
    assert all(one.healthy for one in view.instances)
    assert all(one.identity and one.identity.process.alive for one in view.instances)  # type: ignore[union-attr]
    assert set(view.links) == {*REPLICAS, "database-1", "database-2", "object_store"}
    assert set(view.link_addresses) == set(view.links)
    assert view.disturbed == {}
    assert {name: Path(place) for name, place in view.places.items()} == service.places
    for place in service.places.values():
        assert read_place_marker(place) == view.marker


def test_all_replicas_answer_the_same(service: DemoService) -> None:
    view = service.control.view()
    answers = [post(one.address or "", "/v1/infer", QUESTION) for one in view.of_role("replica")]
    assert [one.status_code for one in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert answers[0].json() != post(view.url, "/v1/infer", {"text": "something else"}).json()
    assert len(answers[0].json()["scores"]) == 16


def test_a_record_is_acknowledged_once_it_is_committed(service: DemoService) -> None:
    url = service.url
    for number in (2, 10, 1):
        assert post(url, "/v1/records", {"id": f"kept-{number}", "payload": f"p{number}"}).status_code == 201
    assert post(url, "/v1/records", {"id": "kept-2", "payload": "p2"}).status_code == 200
    assert post(url, "/v1/records", {"id": "kept-2", "payload": "other"}).status_code == 409
    wanted = [{"id": f"kept-{number}", "payload": f"p{number}"} for number in (2, 10, 1)]
    assert get(url, "/v1/records?prefix=kept-").json() == {"records": wanted}
    primary = service.control.view().of_role("database_primary")[0]
    with psycopg.connect(
        f"postgresql://{service.database_user}:{service.database_password}@{primary.address}"
        f"/{service.database_name}"
    ) as connection:
        rows = connection.execute("SELECT id FROM record WHERE starts_with(id, 'kept-') ORDER BY number")
        assert [id for (id,) in rows] == ["kept-2", "kept-10", "kept-1"]


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/v1/infer", b"{", 400),
        ("/v1/infer", b"[]", 400),
        ("/v1/infer", b"{}", 400),
        ("/v1/infer", b'{"text": 5}', 400),
        ("/v1/infer", b'{"text": "\\ud800"}', 400),
        ("/v1/infer", b'{"text": "%s"}' % (b"x" * 2001), 400),
        ("/v1/infer", b"[" * 100_000, 400),
        ("/v1/infer", b" " * (300 << 10), 413),
        ("/v1/records", b'{"id": "", "payload": "x"}', 400),
        ("/v1/records", b'{"id": "a\\u0000", "payload": "x"}', 400),
        ("/v1/records", b'{"id": "a", "payload": "\\u0000"}', 400),
        ("/v1/records", b'{"id": "\\ud800", "payload": "x"}', 400),
        ("/v1/records", b'{"id": "a", "payload": "\\ud800"}', 400),
        ("/v1/records", b'{"id": "a"}', 400),
        ("/v1/absent", b"{}", 404),
    ],
)
def test_requests_that_are_refused(service: DemoService, path: str, content: bytes, status: int) -> None:
    answer = httpx.post(f"{service.url}{path}", content=content, timeout=10, trust_env=False)
    assert answer.status_code == status


def test_metrics_count_what_users_asked(service: DemoService) -> None:
    post(service.url, "/v1/infer", QUESTION)
    text = "".join(get(instance(service, name).address or "", "/metrics").text for name in REPLICAS)
    assert 'demo_service_requests_total{route="/v1/infer",status="200"}' in text
    assert "demo_service_ready 1.0" in text
    assert 'route="other"' not in text or "/v1/absent" not in text


# -- who may control it ------------------------------------------------------------------------------


def test_listens_on_loopback_only(service: DemoService) -> None:
    pids = [one.pid for one in marked(SERVICE_MARKER, str(service.folder))]
    assert len(pids) == 5, "supervisor, links, balancer and replicas"
    addresses = addresses_of(pids)
    assert len(addresses) == 3 + 5, "balancer and replicas; links"
    assert {host for host, _ in addresses} == {HOST}


def test_only_its_owner_may_control_it(service: DemoService) -> None:
    folder = service.layout.control.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    sockets = sorted(folder.glob("*.sock"))
    assert [path.name for path in sockets] == ["balancer.sock", "control.sock", "links.sock"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} == {0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_cannot_reach_the_socket_even_where_the_folder_is_open(
    service: DemoService, tmp_path: Path
) -> None:
    code = (
        "import os, socket, sys; folder = os.open(sys.argv[1], os.O_PATH); os.setgroups([]);"
        "os.setgid(65534); os.setuid(65534); s = socket.socket(socket.AF_UNIX);"
        "s.connect(f'/proc/self/fd/{folder}/control.sock')"
    )
    command = [sys.executable, "-c", code, str(service.layout.control.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "PermissionError" in done.stderr


def test_its_password_is_in_no_file_and_no_argument(service: DemoService) -> None:
    secret = service.database_password
    for path in service.folder.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
    for process in marked(SERVICE_MARKER, str(service.folder)):
        assert secret.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert stat.S_IMODE(service.layout.view_file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\0" * 5000,
        b"GET /view\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /instances/replica-1/explode HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /instances/..%2f..%2fetc/stop HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /instances/replica-1/stop HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /instances/absent/stop HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /instances/database-1/behaviour HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /instances/replica-1/behaviour HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\n"
        b'{"slow_ms": "1"}',
        b'POST /links/replica-1 HTTP/1.1\r\nHost: x\r\nContent-Length: 24\r\n\r\n{"disturbance": "burn"} ',
        b"POST /links/replica-1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /links/absent HTTP/1.1\r\nHost: x\r\nContent-Length: 24\r\n\r\n" + b'{"disturbance": "reset"}',
        b"POST /links/replica-1 HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\n" + b"[" * 400_000,
        b"POST /links/replica-1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=str,
)
def test_hostile_requests_change_nothing(service: DemoService, request_bytes: bytes) -> None:
    import socket

    from fastvlm_ops.core.services.unix_sockets import short_path

    before = service.control.view()
    with socket.socket(socket.AF_UNIX) as client, short_path(service.layout.control) as path:
        client.settimeout(10)
        client.connect(path)
        try:
            client.sendall(request_bytes)
            client.shutdown(socket.SHUT_WR)
            answer = client.recv(65536)
        except OSError:
            answer = b""
    assert not answer.startswith(b"HTTP/1.1 2")
    after = service.control.view()
    assert [one.identity for one in after.instances] == [one.identity for one in before.instances]
    assert after.disturbed == {}


def test_what_is_refused_is_not_to_be_tried_again(service: DemoService) -> None:
    control = service.control
    for refused in (
        lambda: control.stop("absent"),
        lambda: control.soothe("absent"),
        lambda: control.promote("replica-1"),
        lambda: control.rejoin("balancer"),
        lambda: control.rejoin("database-1"),
        lambda: control.promote("database-2"),
        lambda: control.behave("database-1"),
        lambda: control.behave("replica-1", slow_ms=-1),
        lambda: control.behave("replica-1", failing_share=1.5),
        lambda: control.disturb("replica-1", "latency", latency_ms=99_999),
    ):
        with pytest.raises(ServiceControlError) as caught:
            refused()
        assert caught.value.retryable is False, caught.value


# -- replicas ----------------------------------------------------------------------------------------


def test_a_killed_replica_is_started_again_and_users_are_served_meanwhile(
    service: DemoService, users: Users
) -> None:
    before = instance(service, "replica-1").identity
    assert before is not None
    before.process.signal(signal.SIGKILL)  # type: ignore[union-attr]
    killed = time.monotonic()
    assert until(lambda: is_out(service, "replica-1"))
    out = killed + 1  # what it was just given, until two checks of the balancer have failed, is lost
    assert until(lambda: users.are_served(out)), "by the other"
    after = until(lambda: instance(service, "replica-1").identity)
    assert time.monotonic() - killed >= 1, "so that it can be seen"
    assert after != before
    assert until(lambda: is_healthy(service, "replica-1"))
    assert all(one.ok for one in users.since(out)), "also while the new one is not ready yet"


def test_a_hung_replica_leaves_the_rotation_and_users_are_served(service: DemoService, users: Users) -> None:
    process = instance(service, "replica-2").identity.process  # type: ignore[union-attr]
    process.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        until(lambda: is_out(service, "replica-2"))
        assert time.monotonic() - stopped < 2
        assert "did not answer within 0.5 s" in instance(service, "replica-2").detail
        out = time.monotonic()
        until(lambda: len(users.since(out)) > 10)
        assert all(one.ok for one in users.since(out))
        assert instance(service, "replica-2").identity.process == process, "nothing restarts what hangs"  # type: ignore[union-attr]
    finally:
        process.signal(signal.SIGCONT)
    assert until(lambda: is_healthy(service, "replica-2"))


def test_a_hung_replica_is_restarted_when_that_is_asked_for(service: DemoService) -> None:
    process = instance(service, "replica-2").identity.process  # type: ignore[union-attr]
    process.signal(signal.SIGSTOP)
    service.control.restart("replica-2")
    assert not process.alive
    assert until(lambda: is_healthy(service, "replica-2"))


def test_what_was_stopped_stays_so_until_it_is_started(service: DemoService, users: Users) -> None:
    for _ in range(2):
        service.control.stop("replica-1")
    stopped = time.monotonic()
    until(lambda: time.monotonic() - stopped > 2.5)
    said = instance(service, "replica-1")
    assert (said.identity, said.healthy, said.detail) == (None, False, "was stopped")
    assert users.are_served(stopped)
    service.control.start("replica-1")
    first = instance(service, "replica-1").identity
    service.control.start("replica-1")
    assert instance(service, "replica-1").identity == first
    assert until(lambda: is_healthy(service, "replica-1"))


def test_the_balancer_is_started_again(service: DemoService) -> None:
    url = service.url
    instance(service, "balancer").identity.process.signal(signal.SIGKILL)  # type: ignore[union-attr]
    until(lambda: is_out(service, "balancer"))
    assert instance(service, "replica-1").healthy is None, "nobody says so"
    until(lambda: is_healthy(service, "replica-1"))
    assert service.url == url
    assert post(url, "/v1/infer", QUESTION).status_code == 200


def test_a_replica_behaves_as_it_is_told(service: DemoService) -> None:
    control, address = service.control, instance(service, "replica-1").address or ""
    try:
        control.behave("replica-1", slow_ms=700)
        began = time.monotonic()
        assert post(address, "/v1/infer", QUESTION).status_code == 200
        assert time.monotonic() - began >= 0.7
        control.behave("replica-1", failing_share=1)
        assert post(address, "/v1/infer", QUESTION).status_code == 500
        assert is_healthy(service, "replica-1"), "it fails users only"
        control.behave("replica-1", ready=False)
        until(lambda: is_out(service, "replica-1"))
        assert instance(service, "replica-1").detail == "it was told not to be ready"
    finally:
        control.behave("replica-1")
    assert post(address, "/v1/infer", QUESTION).status_code == 200


# -- links -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("disturbance", ["reset", "black_hole", "refuse", "latency"])
def test_a_disturbed_link_takes_its_replica_out(service: DemoService, users: Users, disturbance: str) -> None:
    service.control.disturb("replica-1", disturbance, latency_ms=2000)  # type: ignore[arg-type]
    try:
        assert service.control.view().disturbed == {"replica-1": disturbance}
        until(lambda: is_out(service, "replica-1"))
        out = time.monotonic()
        until(lambda: users.are_served(out))
        replica = instance(service, "replica-1")
        assert get(replica.address or "", "/readyz").status_code == 200, "the replica itself is well"
    finally:
        for _ in range(2):
            service.control.soothe("replica-1")
    assert service.control.view().disturbed == {}
    assert until(lambda: is_healthy(service, "replica-1"))


def test_a_disturbance_outlives_the_process_of_the_links(service: DemoService) -> None:
    service.control.disturb("object_store", "refuse")
    try:
        before = instance(service, "links").identity
        before.process.signal(signal.SIGKILL)  # type: ignore[union-attr]
        until(lambda: instance(service, "links").identity not in {None, before})
        until(lambda: service.control.view().disturbed == {"object_store": "refuse"})
    finally:
        service.control.soothe("object_store")


def test_the_link_to_the_object_store(service: DemoService) -> None:
    address = service.control.view().link_addresses["object_store"]
    assert get(address, "/").text == "ok"
    service.control.disturb("object_store", "refuse")
    try:
        with pytest.raises(httpx.ConnectError):
            get(address, "/")
    finally:
        service.control.soothe("object_store")
    assert get(address, "/").text == "ok"


def test_a_black_hole_before_the_databases_is_found_and_bounded(service: DemoService) -> None:
    for name in ("database-1", "database-2"):
        service.control.disturb(name, "black_hole")
    try:
        until(lambda: is_out(service, "replica-1") and is_out(service, "replica-2"))
        answer = get(service.url, "/readyz")
        assert answer.status_code == 503, "it is said why by one that is not ready"
        assert "database: " in answer.json()["reasons"][0]
        began = time.monotonic()
        assert httpx.post(
            f"{service.url}/v1/records", json={"id": "lost", "payload": "x"}, timeout=60, trust_env=False
        ).json()["outcome"] in {"unknown", "not stored"}
        assert time.monotonic() - began < 30
    finally:
        for name in ("database-1", "database-2"):
            service.control.soothe(name)
    assert until(lambda: is_healthy(service, "replica-1") and is_healthy(service, "replica-2"))


# -- files -------------------------------------------------------------------------------------------


def test_with_a_broken_configuration_it_goes_on_with_the_last_good_one(
    service: DemoService, users: Users
) -> None:
    file = service.places["configuration"] / "service.yaml"
    good = file.read_bytes()
    file.write_bytes(b"\xff" + good[: len(good) // 2])
    broken = time.monotonic()
    try:
        until(lambda: get(service.url, "/v1/configuration").status_code == 500)
        said = get(service.url, "/readyz")
        assert said.status_code == 200
        assert "service.yaml" in until(lambda: get(service.url, "/readyz").json()["configuration_problem"])
        service.control.restart("replica-1")
        until(lambda: is_healthy(service, "replica-1"))
        until(lambda: users.are_served(broken))
    finally:
        file.write_bytes(good)
    for name in REPLICAS:
        address = instance(service, name).address or ""
        until(lambda address=address: get(address, "/v1/configuration").status_code == 200)  # type: ignore[misc]
    assert get(service.url, "/v1/configuration").json()["configuration"]["service"]["max_characters"] == 2000


@pytest.mark.parametrize("how", ["truncated", "one byte", "gone", "more"])
def test_a_model_that_is_not_what_its_manifest_says_is_not_served(service: DemoService, how: str) -> None:
    store = service.places["model_store"]
    kept = service.folder / "kept"
    shutil.copytree(store, kept)
    right = post(service.url, "/v1/infer", QUESTION).json()
    file = store / WEIGHTS
    before = file.stat()
    content = bytearray(file.read_bytes())
    try:
        if how == "truncated":
            os.truncate(file, len(content) // 2)
        elif how == "one byte":
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        elif how == "gone":
            for path in store.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        else:
            (file.parent / "more.bin").touch()
        until(lambda: is_out(service, "replica-1") and is_out(service, "replica-2"))
        said = get(service.url, "/readyz")
        assert said.status_code == 503
        assert said.json()["reasons"][0].startswith("model: ")
        assert post(service.url, "/v1/infer", QUESTION).status_code == 503
        assert get(service.url, "/healthz").status_code == 200
    finally:
        shutil.rmtree(store)
        kept.rename(store)
    until(lambda: is_healthy(service, "replica-1") and is_healthy(service, "replica-2"))
    assert post(service.url, "/v1/infer", QUESTION).json() == right


# -- databases ---------------------------------------------------------------------------------------


def test_the_primary_is_gone_until_the_standby_is_promoted_and_never_comes_back_as_one(
    service: DemoService,
) -> None:
    control, url = service.control, service.url
    (primary,) = control.view().of_role("database_primary")
    (standby,) = control.view().of_role("database_standby")
    assert post(url, "/v1/records", {"id": "before", "payload": "x"}).status_code == 201
    with pytest.raises(ServiceControlError, match="still runs"):
        control.promote(standby.name)
    primary.identity.process.signal(signal.SIGKILL)  # type: ignore[union-attr]
    until(lambda: is_out(service, "replica-1") and is_out(service, "replica-2"))
    assert post(url, "/v1/records", {"id": "during", "payload": "x"}).json()["outcome"] == "not stored"
    assert get(url, "/healthz").status_code == 200
    said = instance(service, primary.name)
    assert (said.role, said.identity, said.healthy) == ("database_primary", None, False)
    control.promote(standby.name)
    until(lambda: is_healthy(service, "replica-1") and is_healthy(service, "replica-2"))
    assert instance(service, standby.name).role == "database_primary"
    assert post(url, "/v1/records", {"id": "after", "payload": "x"}).status_code == 201
    with pytest.raises(ServiceControlError, match="would be a second one; rejoin it") as caught:
        control.start(primary.name)
    assert caught.value.retryable is False
    for _ in range(2):
        control.rejoin(primary.name)
    until(lambda: is_healthy(service, primary.name))
    assert instance(service, primary.name).role == "database_standby"
    assert {row["id"] for row in get(url, "/v1/records").json()["records"]} >= {"before", "after"}


# -- its supervisor ----------------------------------------------------------------------------------


def test_without_its_supervisor_it_goes_on_and_a_new_one_takes_over(
    service: DemoService, users: Users
) -> None:
    service.control.disturb("object_store", "black_hole")
    service.control.stop("replica-2")
    before = service.control.view()
    service.supervisor.signal(signal.SIGKILL)  # type: ignore[union-attr]
    killed = time.monotonic()
    until(lambda: service.supervisor is None)
    until(lambda: users.are_served(killed))
    assert all(one.ok for one in users.since(killed)), "nobody noticed"
    with pytest.raises(ServiceControlError, match="cannot be asked") as caught:
        service.control.soothe("object_store")
    assert caught.value.retryable is True
    instance_before = before.instance("links")
    assert instance_before.identity.process.alive  # type: ignore[union-attr]
    started = threading.Thread(target=service.start, daemon=True)
    started.start()
    until(lambda: service.supervisor)
    until(lambda: _answers(service))
    after = service.control.view()
    assert [one.identity for one in after.instances] == [one.identity for one in before.instances]
    assert (after.url, after.link_addresses) == (before.url, before.link_addresses)
    assert after.disturbed == {"object_store": "black_hole"}
    assert instance(service, "replica-2").detail == "was stopped"
    service.control.soothe("object_store")
    service.control.start("replica-2")
    started.join(60)
    service.wait_until_healthy()
    replica = instance(service, "replica-1").identity.process  # type: ignore[union-attr]
    replica.signal(signal.SIGKILL)
    until(lambda: is_out(service, "replica-1"))
    until(lambda: is_healthy(service, "replica-1"))


def _answers(service: DemoService) -> bool:
    try:
        return bool(service.control.view().url)
    except ServiceControlError:
        return False


def test_nothing_is_left_when_it_is_stopped_also_without_a_supervisor(running: DemoService) -> None:
    """The last one: it ends the service."""
    view = running.control.view()
    databases = running.databases_folder
    assert databases is not None
    running.supervisor.signal(signal.SIGKILL)  # type: ignore[union-attr]
    running.stop()
    assert list(marked(SERVICE_MARKER, str(running.folder))) == []
    assert running.processes.alive() == []
    assert not any(one.identity and one.identity.process.alive for one in view.instances)  # type: ignore[union-attr]
    assert not databases.exists()
    running.stop()
