"""What a supervisor is told, and how it answers, while none of its parts runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from fastvlm_ops.core.services.instances import ServiceView
from fastvlm_ops.local.service.control_app import make_control_app
from fastvlm_ops.local.service.layout import SupervisorSettings
from fastvlm_ops.local.service.remembering import recall
from fastvlm_ops.local.service.supervisor import Supervisor


@pytest.fixture
def supervisor(tmp_path: Path) -> Supervisor:
    settings = SupervisorSettings(
        folder=str(tmp_path),
        state_folder=str(tmp_path),
        environment="staging",
        object_store_url="http://127.0.0.1:8333",
    )
    (tmp_path / "control").mkdir()
    return Supervisor(settings, "secret")


def ask(supervisor: Supervisor, method: str, path: str, content: Any = None) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(make_control_app(supervisor), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://supervisor") as client:
            return await client.request(method, path, json=content)

    return asyncio.run(send())


def test_says_what_does_not_run(supervisor: Supervisor, tmp_path: Path) -> None:
    view = ServiceView.model_validate_json(ask(supervisor, "GET", "/view").content)
    assert view.marker.environment == "staging"
    assert {one.name: one.healthy for one in view.instances} == dict.fromkeys(
        ("links", "balancer", "replica-1", "replica-2", "database-1", "database-2"), False
    )
    assert all(one.identity is None and one.address is None and one.detail for one in view.instances)
    assert view.places["scratch"] == str(tmp_path / "places" / "scratch")
    assert view.disturbed is None, "nobody says so"


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "message"),
    [
        ("POST", "/instances/absent/stop", None, 404, "there is no instance 'absent'"),
        ("POST", "/instances/replica-1/explode", None, 404, "there is no action 'explode'"),
        ("POST", "/instances/replica-1/promote", None, 409, "replica-1 is no database"),
        ("POST", "/instances/balancer/behaviour", {}, 404, "there is no replica 'balancer'"),
        ("POST", "/instances/replica-1/behaviour", {"slow_ms": "1"}, 400, "slow_ms: "),
        ("POST", "/instances/replica-1/behaviour", {"slow": 1}, 400, "slow: "),
        ("POST", "/instances/replica-1/behaviour", [], 400, "no JSON object"),
        ("POST", "/instances/database-1/start", None, 503, "has not been started"),
        ("POST", "/instances/database-1/rejoin", None, 409, "is the primary, and cannot follow itself"),
        ("POST", "/links/absent", {"disturbance": "reset"}, 404, "there is no link 'absent'"),
        ("POST", "/links/replica-1", {"disturbance": "burn"}, 400, "disturbance: "),
        ("POST", "/links/replica-1", {"disturbance": None}, 400, "DELETE soothes a link"),
        ("POST", "/links/replica-1", {}, 400, "disturbance: "),
        ("DELETE", "/links/absent", None, 404, "there is no link 'absent'"),
    ],
)
def test_refuses(
    supervisor: Supervisor, method: str, path: str, content: Any, status: int, message: str
) -> None:
    answer = ask(supervisor, method, path, content)
    assert answer.status_code == status
    assert message in answer.json()["error"]
    assert "secret" not in answer.text


def test_other_methods_are_refused(supervisor: Supervisor) -> None:
    for method, path in (
        ("GET", "/instances/replica-1/stop"),
        ("POST", "/view"),
        ("PUT", "/links/replica-1"),
    ):
        assert ask(supervisor, method, path).status_code == 405


def test_a_disturbance_waits_for_links_that_do_not_run(supervisor: Supervisor, tmp_path: Path) -> None:
    answer = ask(supervisor, "POST", "/links/object_store", {"disturbance": "latency", "latency_ms": 5})
    assert answer.status_code == 503, "it may pass by itself"
    plans = json.loads((tmp_path / "control" / "links.json").read_text())
    assert plans["object_store"]["target_port"] == 8333
    assert plans["object_store"]["disturbed"] == {"disturbance": "latency", "latency_ms": 5}
    ask(supervisor, "DELETE", "/links/object_store")
    plans = json.loads((tmp_path / "control" / "links.json").read_text())
    assert plans["object_store"]["disturbed"] == {"disturbance": None, "latency_ms": 0}


def test_a_replica_is_told_by_a_file(supervisor: Supervisor, tmp_path: Path) -> None:
    assert ask(supervisor, "POST", "/instances/replica-1/behaviour", {"slow_ms": 20}).status_code == 200
    told = json.loads((tmp_path / "control" / "replica-1.behaviour.json").read_text())
    assert told == {"slow_ms": 20, "failing_share": 0.0, "ready": True}


def test_what_does_not_run_can_be_stopped_and_another_supervisor_knows(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    for _ in range(2):
        assert ask(supervisor, "POST", "/instances/replica-2/stop").status_code == 200
    ask(supervisor, "POST", "/links/replica-1", {"disturbance": "refuse"})
    supervisor._remember()
    again = Supervisor(supervisor.settings, "secret")
    assert again.parts["replica-2"].wanted is False
    assert again.parts["replica-1"].wanted is True
    assert again.disturbed == supervisor.disturbed
    assert [part.part.address for part in again.parts.values()] == [
        part.part.address for part in supervisor.parts.values()
    ]
    remembered = recall(tmp_path / "supervised.json")
    assert remembered is not None
    assert remembered.databases is None
    assert "secret" not in (tmp_path / "supervised.json").read_text()
