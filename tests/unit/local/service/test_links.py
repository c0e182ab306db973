"""TCP links, disturbed in every way, in front of a real server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from fastvlm_ops.core.services.control import Disturbance
from fastvlm_ops.local.ports import HOST, free_ports
from fastvlm_ops.local.service.links import Disturbed, Link, LinkPlan

SILENCE_SECONDS = 0.3


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def linked(how: Disturbed | None = None) -> AsyncIterator[tuple[Link, int]]:
    port, target = free_ports(2)
    server = await asyncio.start_server(echo, HOST, target)
    link = Link(LinkPlan(port=port, target_port=target, disturbed=how or soothed()))
    await link.begin()
    try:
        yield link, port
    finally:
        await link.disturb(Disturbed(disturbance="refuse"))
        server.close()


def soothed() -> Disturbed:
    return Disturbed(disturbance=None)


async def say(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], text: bytes) -> bytes:
    reader, writer = connection
    writer.write(text)
    return await reader.readexactly(len(text))


def run(test: Callable[[], Awaitable[Any]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def test_passes_everything_on() -> None:
    async def check() -> None:
        async with linked() as (_, port):
            reader, writer = await asyncio.open_connection(HOST, port)
            content = bytes(range(256)) * 20_000
            writer.write(content)
            writer.write_eof()
            assert await reader.read(-1) == content
            writer.close()

    run(check)


def test_latency_delays_both_ways() -> None:
    async def check() -> None:
        async with linked() as (link, port):
            connection = await asyncio.open_connection(HOST, port)
            await say(connection, b"a")
            await link.disturb(Disturbed(disturbance="latency", latency_ms=200))
            began = time.monotonic()
            assert await say(connection, b"b") == b"b"
            assert time.monotonic() - began >= 0.4
            connection[1].close()

    run(check)


def test_a_black_hole_keeps_connections_and_lets_nothing_through_until_it_is_soothed() -> None:
    async def check() -> None:
        async with linked() as (link, port):
            before = await asyncio.open_connection(HOST, port)
            await say(before, b"a")
            await link.disturb(Disturbed(disturbance="black_hole"))
            fresh = await asyncio.open_connection(HOST, port)
            answers = [asyncio.create_task(say(one, b"held")) for one in (before, fresh)]
            done, _ = await asyncio.wait(answers, timeout=SILENCE_SECONDS)
            assert not done
            await link.disturb(soothed())
            assert await asyncio.gather(*answers) == [b"held", b"held"]
            for _, writer in (before, fresh):
                writer.close()

    run(check)


@pytest.mark.parametrize("kind", ["reset", "refuse"])
def test_connections_are_ended_and_new_ones_are_not_served(kind: Any) -> None:
    async def check() -> None:
        async with linked() as (link, port):
            before = await asyncio.open_connection(HOST, port)
            await say(before, b"a")
            await link.disturb(Disturbed(disturbance=kind))
            with contextlib.suppress(ConnectionResetError):
                assert await before[0].read(1) == b""
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await say(await asyncio.open_connection(HOST, port), b"b")
            await link.disturb(soothed())
            after = await asyncio.open_connection(HOST, port)
            assert await say(after, b"c") == b"c"
            after[1].close()

    run(check)


def test_what_waits_in_a_black_hole_is_ended_by_a_reset() -> None:
    async def check() -> None:
        async with linked(Disturbed(disturbance="black_hole")) as (link, port):
            waiting = asyncio.create_task(say(await asyncio.open_connection(HOST, port), b"a"))
            await asyncio.sleep(SILENCE_SECONDS)
            await link.disturb(Disturbed(disturbance="reset"))
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await waiting

    run(check)


def test_a_link_whose_server_is_gone_resets() -> None:
    async def check() -> None:
        port, nobody = free_ports(2)
        link = Link(LinkPlan(port=port, target_port=nobody))
        await link.begin()
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await say(await asyncio.open_connection(HOST, port), b"a")
        await link.disturb(Disturbed(disturbance="refuse"))

    run(check)


@pytest.mark.parametrize("kind", get_args(Disturbance))
def test_can_be_disturbed_from_the_start_and_soothed_twice(kind: Any) -> None:
    async def check() -> None:
        async with linked(Disturbed(disturbance=kind)) as (link, port):
            assert link.disturbed.disturbance == kind
            for _ in range(2):
                await link.disturb(soothed())
            connection = await asyncio.open_connection(HOST, port)
            assert await say(connection, b"a") == b"a"
            connection[1].close()

    run(check)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"disturbance": "slow"},
        {"disturbance": "latency", "latency_ms": -1},
        {"disturbance": "latency", "latency_ms": 60_001},
        {"disturbance": "latency", "latency_ms": "5"},
        {"disturbance": "latency", "latency_ms": 1.5},
        {"disturbance": "reset", "port": 1},
    ],
)
def test_no_other_disturbance_is_taken(content: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Disturbed.model_validate(content)
