"""Which replica gets a connection, and when one leaves the rotation."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastvlm_ops.local.ports import HOST, free_ports
from fastvlm_ops.local.service.balancer import Backend, Balancer
from fastvlm_ops.local.service.passing import Passed


def backend(name: str = "replica-1", port: int = 1, *, ready: bool = True) -> Backend:
    made = Backend(name, port)
    made.note(None if ready else "database: gone")
    made.answers = True
    return made


def a_connection(*, waits_seconds: float | None = None) -> Passed:
    made = Passed(None)  # type: ignore[arg-type]
    if waits_seconds is not None:
        made.waiting_since = time.monotonic() - waits_seconds
    return made


def test_the_first_check_decides() -> None:
    assert Backend("replica-1", 1).in_rotation is None
    assert backend().in_rotation is True
    assert backend(ready=False).in_rotation is False


def test_two_failures_take_it_out_and_two_good_ones_bring_it_back() -> None:
    one = backend()
    one.note("slow")
    assert (one.in_rotation, one.detail) == (True, "slow")
    one.note(None)
    assert (one.in_rotation, one.detail) == (True, "")
    one.note("slow")
    one.note("gone")
    assert (one.in_rotation, one.detail) == (False, "gone")
    one.note(None)
    assert one.in_rotation is False
    one.note("slow")
    one.note(None)
    assert one.in_rotation is False
    one.note(None)
    assert (one.in_rotation, one.detail) == (True, "")


def test_the_one_with_the_fewest_connections_comes_first() -> None:
    first, second = backend("replica-1"), backend("replica-2")
    balancer = Balancer([first, second])
    assert {balancer._choices()[0].name for _ in range(2)} == {"replica-1", "replica-2"}
    first.passed.add(a_connection())
    assert [one.name for one in balancer._choices()] == ["replica-2", "replica-1"]
    assert [one.name for one in balancer._choices()] == ["replica-2", "replica-1"]


def test_one_that_lets_users_wait_comes_last_however_few_connections_it_has() -> None:
    first, second = backend("replica-1"), backend("replica-2")
    balancer = Balancer([first, second])
    first.passed.add(a_connection(waits_seconds=0.05))
    second.passed |= {a_connection() for _ in range(5)}
    assert balancer._choices()[0].name == "replica-1", "an answer may take a while"
    first.passed.add(a_connection(waits_seconds=0.2))
    assert [balancer._choices()[0].name for _ in range(2)] == ["replica-2", "replica-2"]
    second.passed.add(a_connection(waits_seconds=0.2))
    assert balancer._choices()[0].name == "replica-1", "where all let users wait, it has fewer"


def test_where_none_is_ready_one_that_answers_may_say_why() -> None:
    unready, silent = backend("replica-1", ready=False), backend("replica-2", ready=False)
    silent.answers = False
    balancer = Balancer([unready, silent])
    assert [one.name for one in balancer._choices()] == ["replica-1"]
    unready.answers = False
    assert balancer._choices() == []


def run(test: Callable[[], Awaitable[Any]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


@contextlib.asynccontextmanager
async def balanced(balancer: Balancer) -> AsyncIterator[int]:
    (port,) = free_ports(1)
    server = await asyncio.start_server(balancer.accept, HOST, port)
    try:
        yield port
    finally:
        server.close()


@contextlib.asynccontextmanager
async def serving(text: bytes) -> AsyncIterator[int]:
    """A server that says its text, once it was asked anything."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1):
            writer.write(text)
        writer.close()

    (port,) = free_ports(1)
    server = await asyncio.start_server(answer, HOST, port)
    try:
        yield port
    finally:
        server.close()


@contextlib.asynccontextmanager
async def serving_on(text: bytes) -> AsyncIterator[int]:
    """A server that says its text each time it is asked anything, on the same connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(100):
                writer.write(text)
        writer.close()

    (port,) = free_ports(1)
    server = await asyncio.start_server(answer, HOST, port)
    try:
        yield port
    finally:
        server.close()


async def ask(port: int) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    answer = await reader.read(-1)
    writer.close()
    return answer


def test_another_replica_is_tried_where_the_first_does_not_accept() -> None:
    async def check() -> None:
        (nobody,) = free_ports(1)
        async with serving(b"two") as port:
            balancer = Balancer([backend("replica-1", nobody), backend("replica-2", port)])
            async with balanced(balancer) as entrance:
                assert [await ask(entrance) for _ in range(4)] == [b"two"] * 4

    run(check)


def test_nobody_there_is_said_in_http() -> None:
    async def check() -> None:
        async with balanced(Balancer([Backend("replica-1", 1)])) as entrance:
            head, _, body = (await ask(entrance)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert f"Content-Length: {len(body)}".encode() in head
        assert body == b'{"error": "no replica answers"}'

    run(check)


def test_who_waits_for_no_answer_connects_anew_at_once() -> None:
    async def check() -> None:
        async with serving_on(b"one") as port:
            one = backend("replica-1", port)
            async with balanced(Balancer([one])) as entrance:
                reader, writer = await asyncio.open_connection(HOST, entrance)
                writer.write(b"x")
                assert await reader.readexactly(3) == b"one"
                assert next(iter(one.passed)).waiting_since is None
                one.note("not ready")
                one.note("not ready")
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read(1) == b""

    run(check)


def test_connections_to_one_that_hangs_are_cut_in_the_end() -> None:
    async def check() -> None:
        held = asyncio.Event()

        async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await held.wait()
            writer.close()

        (port,) = free_ports(1)
        server = await asyncio.start_server(hang, HOST, port)
        one = backend("replica-1", port)
        async with balanced(Balancer([one])) as entrance:
            reader, writer = await asyncio.open_connection(HOST, entrance)
            writer.write(b"x")
            while not one.passed:
                await asyncio.sleep(0.01)
            while not next(iter(one.passed)).waiting_since:
                await asyncio.sleep(0.01)
            one.note("hangs")
            one.note("hangs")
            assert one.in_rotation is False
            await asyncio.sleep(0.1)
            assert one.passed, "it may still answer"
            one.out_since -= 10
            next(iter(one.passed)).began -= 20
            one.note("hangs")
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read(1) == b""
            while one.passed:
                await asyncio.sleep(0.01)
        held.set()
        server.close()

    run(check)


def test_who_came_when_none_was_ready_gets_the_answer_however_late() -> None:
    async def check() -> None:
        held = asyncio.Event()

        async def answer_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            await held.wait()
            writer.write(b"y")
            writer.close()

        (port,) = free_ports(1)
        server = await asyncio.start_server(answer_late, HOST, port)
        one = backend("replica-1", port)
        async with balanced(Balancer([one])) as entrance:
            one.answers = True
            one.note("not ready")
            one.note("not ready")
            assert one.in_rotation is False
            one.out_since -= 20
            reader, writer = await asyncio.open_connection(HOST, entrance)
            writer.write(b"x")
            while not (one.passed and next(iter(one.passed)).waiting_since):
                await asyncio.sleep(0.01)
            next(iter(one.passed)).began -= 10
            one.note("not ready")
            held.set()
            assert await reader.read(1) == b"y"
            writer.close()
        server.close()

    run(check)
