"""The server ends: everybody is told, what is being answered is answered, and nobody can delay it (P11, T33)."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from broker.app import open_server
from broker.eager import own_task
from broker.http1 import Request, response
from broker.protocol import Publication
from broker.transports import Route, host
from tests.support.clock import seconds
from tests.support.peers import NO_PINGS, House, RawClient, configured, open_house, options
from tests.support.slow_engine import Gates, slow_engine

pytestmark = pytest.mark.virtual_time

OPTIONS = options({"presence": True}, client=NO_PINGS) | {"health": {"enabled": True}}


@asynccontextmanager
async def leaving_house(
    gates: Gates | None = None, **shutdown: str
) -> AsyncIterator[tuple[House, Callable[[], Awaitable[None]]]]:
    """A house, and how to let it leave: that returns when the last trace of it is gone."""
    stop, gone = trio.Event(), trio.Event()
    opened: list[House] = []

    async def run(task_status: trio.TaskStatus[None]) -> None:
        engine = slow_engine(gates or Gates())
        async with open_server(
            configured({**OPTIONS, "shutdown": shutdown}), rng=random.Random(1), engine=engine, listen=False
        ) as server:
            opened.append(House(server, nursery))
            task_status.started()
            await stop.wait()
        gone.set()

    async def leave() -> None:
        stop.set()
        await gone.wait()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        yield opened[0], leave
        stop.set()


async def closed(client: RawClient) -> tuple[int, str]:
    with trio.fail_after(60):
        return await client.wait_closed()


# ---- everybody is told -----------------------------------------------------------------------------------------------


async def test_every_client_is_told_and_nothing_remains() -> None:
    async with leaving_house() as (house, leave):
        clients = [await house.connected() for _ in range(20)]
        for client in clients:
            await client.ask(subscribe={"channel": "a"})
        codes: list[tuple[int, str]] = []

        async def listen(client: RawClient) -> None:
            codes.append(await closed(client))

        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(listen, client)
            with seconds(0):
                await leave()
        assert codes == [(3001, "shutdown")] * 20
        node = house.server.node
        assert (house.server.doors.connections, node.registry.clients, len(node.timers)) == (set(), {}, 0)
        assert house.presence == {}


async def test_goodbyes_are_spread_over_the_window_and_others_are_served_meanwhile() -> None:
    async with leaving_house(drain_window="10s") as (house, leave):
        clients = [await house.connected() for _ in range(20)]
        for client in clients:
            await client.ask(subscribe={"channel": "a"})
        told: list[float] = []
        pushes: list[int] = []
        began = trio.current_time()

        async def listen(client: RawClient) -> None:
            assert await closed(client) == (3001, "shutdown")
            told.append(trio.current_time() - began)
            pushes.append(sum("push" in unit for unit in client.units))

        async def publish() -> None:
            await trio.sleep(5.25)
            await house.server.node.publish("a", Publication(b"1"))

        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(listen, client)
            nursery.start_soon(publish)
            with seconds(9.5):
                await leave()
        assert told == pytest.approx([number / 2 for number in range(20)], abs=0.01)
        assert pushes == [0] * 11 + [1] * 9


async def test_what_is_on_its_way_comes_before_the_end() -> None:
    async with leaving_house() as (house, leave):
        client = await house.connected()
        await client.ask(subscribe={"channel": "a"})
        await house.api("publish", channel="a", data=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            assert (await client.push())["pub"]["data"] == 1
            assert await closed(client) == (3001, "shutdown")


HALF_A_CALL = b"POST /api/publish HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n{"


@pytest.mark.parametrize("begin", [b"", b"GET /hea", HALF_A_CALL])
async def test_http_connections_that_wait_for_a_request_end(begin: bytes) -> None:
    async with leaving_house() as (house, leave):
        stream = await house.open_stream()
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n" + begin)
        assert b"200 OK" in await stream.receive_some()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            assert await stream.receive_some() == b""
            await stream.aclose()


async def test_a_client_that_has_not_connected_yet_is_told_as_well() -> None:
    async with leaving_house() as (house, leave):
        client = await house.client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            assert await closed(client) == (3001, "shutdown")


# ---- what is being done ----------------------------------------------------------------------------------------------


async def test_an_api_call_in_flight_is_answered_and_is_the_last() -> None:
    gates = Gates()
    async with leaving_house(gates) as (house, leave):
        gates.hold("publish")
        body = b'{"channel":"a","data":1}'
        call = b"POST /api/publish HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        stream = await house.open_stream()
        await stream.send_all(call + call)
        await gates.wait_until_held("publish")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            await trio.sleep(10)
            gates.open("publish")
            answer = await stream.receive_some()
            assert answer.startswith(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
            assert answer.count(b"HTTP/1.1") == 1
            assert await stream.receive_some() == b""
            await stream.aclose()


async def test_a_large_answer_in_flight_is_given_whole() -> None:
    large = bytes(3_000_000)

    async def give(request: Request) -> bytes:
        await own_task()
        await trio.sleep(1)
        return response(200, large)

    async with leaving_house() as (house, leave):
        house.server.sites[0].routes["/large"] = Route(frozenset({"GET"}), give)
        stream = await house.open_stream(lockstep=True)
        await stream.send_all(b"GET /large HTTP/1.1\r\nHost: t\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            came = 0
            while data := await stream.receive_some():
                came += len(data)
                await trio.sleep(0.3)
            assert came > len(large)
            await stream.aclose()


async def test_a_command_that_waits_is_ended_with_its_client() -> None:
    gates = Gates()
    async with leaving_house(gates) as (house, leave):
        client = await house.connected()
        gates.hold("publish")
        await client.send({"id": 2, "publish": {"channel": "a", "data": 1}})
        await gates.wait_until_held("publish")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            assert await closed(client) == (3001, "shutdown")


# ---- who would delay it ----------------------------------------------------------------------------------------------


async def test_a_client_that_does_not_answer_the_close_delays_it_by_five_seconds() -> None:
    async with leaving_house() as (house, leave):
        await house.connected()
        with seconds(5):
            await leave()


async def test_who_does_not_answer_within_a_short_timeout_is_cut_off_in_time() -> None:
    async with leaving_house(timeout="3s") as (house, leave):
        await house.connected()
        with seconds(2.25):
            await leave()


async def test_a_client_that_does_not_read_delays_it_by_a_second() -> None:
    async with leaving_house() as (house, leave):
        client = await house.client(lockstep=True)
        await client.ask(connect={})
        await trio.testing.wait_all_tasks_blocked()
        with seconds(1):
            await leave()


async def test_many_that_do_not_read_delay_it_no_more_than_one() -> None:
    async with leaving_house() as (house, leave):
        for _ in range(50):
            client = await house.client(lockstep=True)
            await client.ask(connect={})
            await client.ask(subscribe={"channel": "a"})
        await trio.testing.wait_all_tasks_blocked()
        await house.api("publish", channel="a", data="x" * 10_000)
        with seconds(0, within=1.2):
            await leave()


async def test_a_presence_store_that_does_not_answer_delays_it_by_five_seconds() -> None:
    gates = Gates()
    async with leaving_house(gates) as (house, leave):
        client = await house.connected()
        await client.ask(subscribe={"channel": "a"})
        gates.hold("remove")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(closed, client)
            with seconds(5):
                await leave()


@pytest.mark.parametrize("slow", ["a client", "a request", "a presence store", "an application"])
async def test_when_the_time_is_over_nothing_delays_it(slow: str) -> None:
    """As the deadline of leaving has it: everything is cancelled."""
    gates = Gates()

    async def stream_for_ever(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})

    with trio.CancelScope() as time_is_over:
        async with (
            trio.open_nursery() as nursery,
            open_server(configured(OPTIONS), engine=slow_engine(gates), listen=False) as server,
        ):
            house = House(server, nursery)
            server.sites[0].app = host(stream_for_ever)
            if slow == "a request":
                gates.hold("publish")
                nursery.start_soon(lambda: house.api("publish", channel="a", data=1))
                await gates.wait_until_held("publish")
            elif slow == "an application":
                stream = await house.open_stream(lockstep=True)
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
                await stream.receive_some()
            else:
                client = await house.connected()
                if slow == "a presence store":
                    await client.ask(subscribe={"channel": "a"})
                    gates.hold("remove")
                    await client.leave()
            await trio.sleep(0.5)
            leaving_since = trio.current_time()
            time_is_over.deadline = leaving_since + 0.5
    assert trio.current_time() - leaving_since <= 0.5


async def test_a_bug_in_the_end_of_one_connection_ends_no_other(
    error_log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    error_log.expect("a connection crashed(.|\n)*a bug")

    async with open_house(OPTIONS) as house:
        client, other = await house.connected(), await house.connected()
        session = house.server.node.registry.clients[client.hello["client"]]

        async def cleanup(self: object) -> None:
            if self is session:
                raise LookupError("a bug")

        monkeypatch.setattr(type(session), "cleanup", cleanup)
        await client.leave()
        await trio.sleep(1)
        assert (await other.ask(rpc={}))["error"]["code"] == 108
        assert house.server.node.counters.connection_crashes == 1
