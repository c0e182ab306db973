"""One replica, in this process, whose databases cannot be reached."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from fastvlm_ops.local.ports import HOST, free_ports
from fastvlm_ops.local.service.app import Replica, make_app
from fastvlm_ops.local.service.behaviour import Behaviour, write_behaviour
from fastvlm_ops.local.service.configuration import write_configuration
from fastvlm_ops.local.service.database import Database
from fastvlm_ops.local.service.layout import Layout
from fastvlm_ops.local.service.model_package import build_model_store

QUESTION = {"text": "what is in this picture"}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    made = Layout(tmp_path_factory.mktemp("replica"))
    build_model_store(made.places["model_store"])
    write_configuration(made.places["configuration"])
    (made.folder / "control").mkdir()
    return made


@pytest.fixture(scope="module")
def app(layout: Layout) -> Any:
    (port,) = free_ports(1)
    replica = Replica("replica-1", "demo", layout, Database(f"host={HOST} port={port} dbname=x user=x"))
    replica.readiness.start()
    return make_app(replica)


def ask(app: Any, method: str, path: str, content: Any = None) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://replica") as client:
            return await client.request(method, path, json=content)

    return asyncio.run(send())


def test_lives_and_infers_but_is_not_ready(app: Any) -> None:
    assert ask(app, "GET", "/healthz").json()["environment"] == "demo"
    first, second = (ask(app, "POST", "/v1/infer", QUESTION) for _ in range(2))
    assert first.status_code == 200
    assert first.json() == second.json()
    said = ask(app, "GET", "/readyz")
    assert said.status_code == 503
    assert [reason.partition(":")[0] for reason in said.json()["reasons"]] == ["database"]


def test_a_record_that_could_not_be_stored_is_said_not_to_be(app: Any) -> None:
    answer = ask(app, "POST", "/v1/records", {"id": "a", "payload": "x"})
    assert (answer.status_code, answer.json()["outcome"]) == (503, "not stored")
    assert ask(app, "GET", "/v1/records?prefix=a").status_code == 503


def test_counts_what_users_asked(app: Any) -> None:
    ask(app, "POST", "/v1/infer", QUESTION)
    text = ask(app, "GET", "/metrics").text
    assert 'demo_service_requests_total{route="/v1/infer",status="200"}' in text
    assert "demo_service_ready 0.0" in text


def test_behaves_as_it_is_told(app: Any, layout: Layout) -> None:
    file: Path = layout.behaviour("replica-1")
    write_behaviour(file, Behaviour(failing_share=1))
    assert ask(app, "POST", "/v1/infer", QUESTION).status_code == 500
    write_behaviour(file, Behaviour(slow_ms=200, ready=False))
    began = time.monotonic()
    assert ask(app, "POST", "/v1/infer", QUESTION).status_code == 200
    assert time.monotonic() - began >= 0.2
    assert ask(app, "GET", "/readyz").json()["reasons"][0] == "it was told not to be ready"
    file.unlink()
    assert ask(app, "POST", "/v1/infer", QUESTION).status_code == 200
