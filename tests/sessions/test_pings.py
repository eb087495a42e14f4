"""Pings, pongs and the other things that happen to a connection now and then (client protocol §1.8)."""

from __future__ import annotations

from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from broker.sessions import ticks
from broker.sessions.client import Client
from tests.conftest import ErrorLog
from tests.support.peers import NO_PINGS, RawClient, open_house, options
from tests.support.slow_engine import Gates

pytestmark = pytest.mark.virtual_time

NATIVE = "?cf_ws_frame_ping_pong=true"
TEXT, PONG = 1, 10


async def ping(client: RawClient) -> float:
    """Wait for a ping, do not answer it; returns when it came."""
    assert await client.next(pings=True) == {}
    return trio.current_time()


@pytest.mark.parametrize("seed", range(8))
async def test_the_first_ping_comes_after_half_an_interval_or_later_the_next_ones_in_step(seed: int) -> None:
    async with open_house(options(client={"ping_interval": "20s", "pong_timeout": "5s"}), seed=seed) as house:
        client = await house.connected()
        assert (client.hello["ping"], client.hello["pong"]) == (20, True)
        last = await ping(client)
        assert 10 <= last <= 20.05
        for _ in range(3):
            await client.pong()
            now = await ping(client)
            assert now - last == pytest.approx(20, abs=0.06)
            last = now


async def test_pings_of_many_clients_are_spread() -> None:
    async with open_house(options()) as house:
        clients = [await house.connected() for _ in range(10)]
        moments = set()
        async with trio.open_nursery() as nursery:

            async def note(client: RawClient) -> None:
                moments.add(await ping(client))

            for client in clients:
                nursery.start_soon(note, client)
        assert len(moments) > 5


async def test_a_client_that_does_not_answer_is_closed() -> None:
    async with open_house(options()) as house:
        client = await house.connected()
        pinged = await ping(client)
        with pytest.raises(EOFError):
            await client.next()
        assert client.closed == (3012, "no pong")
        assert trio.current_time() - pinged == pytest.approx(8, abs=0.06)


async def test_only_a_pong_is_an_answer() -> None:
    async with open_house(options()) as house:
        client = await house.connected()
        await ping(client)
        for n in range(3):
            assert (await client.ask(publish={"channel": "chat", "data": n}))["publish"] == {}
            await trio.sleep(2)
        with pytest.raises(EOFError):
            await client.next()
        assert client.closed == (3012, "no pong")


async def test_an_answer_in_time_keeps_the_connection() -> None:
    async with open_house(options()) as house:
        client = await house.connected()
        for _ in range(4):
            await ping(client)
            await trio.sleep(7.9)
            await client.pong()
        assert (await client.ask(subscribe={"channel": "chat"}))["subscribe"] == {}


@pytest.mark.parametrize("form", [b"{}", b'{"id":0}', b'{"id":0,"subscribe":{"channel":"a"}}', b'{"subscribe":{}}'])
async def test_whatever_has_no_id_is_a_pong(form: bytes) -> None:
    async with open_house(options()) as house:
        client = await house.connected()
        await ping(client)
        await client.send_frame(form)
        await trio.sleep(10)
        assert (await client.ask(subscribe={"channel": "a"}))["subscribe"] == {}


@pytest.mark.parametrize("answered", [False, True])
async def test_a_pong_that_nobody_asked_for_ends_the_connection(answered: bool) -> None:
    async with open_house(options()) as house:
        client = await house.connected()
        if answered:
            await ping(client)
            await client.pong()
        await client.pong()
        assert (await client.wait_closed())[0] == 3501


@pytest.mark.parametrize("intervals", [{"ping_interval": "-1s", "pong_timeout": "-2s"}])
async def test_pings_can_be_off(intervals: dict[str, str]) -> None:
    async with open_house(options(client=intervals)) as house:
        client = await house.connected()
        assert "ping" not in client.hello
        assert "pong" not in client.hello
        with trio.move_on_after(300):
            await client.next(pings=True)
            raise AssertionError("something came")
        await client.pong()
        assert (await client.wait_closed())[0] == 3501


async def test_pongs_need_not_be_expected() -> None:
    async with open_house(options(client={"pong_timeout": "-1s"})) as house:
        client = await house.connected()
        assert client.hello["ping"] == 25
        assert "pong" not in client.hello
        for _ in range(4):
            await ping(client)
        await client.pong()  # a client that answers all the same
        assert (await client.ask(subscribe={"channel": "chat"}))["subscribe"] == {}


async def test_pongs_that_wait_behind_a_slow_command_are_not_held_against_the_client() -> None:
    gates = Gates()
    async with open_house(options(), pace=gates) as house:
        client = await house.connected()
        gates.hold("publish")
        await client.command(publish={"channel": "chat", "data": 1})
        for _ in range(3):
            await ping(client)
            await client.pong()
        await trio.sleep(10)
        gates.open("publish")
        assert (await client.next())["publish"] == {}
        await client.nothing(60)
        await client.pong()
        assert (await client.wait_closed())[0] == 3501


# ---- pings of the transport ---------------------------------------------------------------------------------------


async def test_pings_of_the_transport_for_those_who_ask() -> None:
    async with open_house(options()) as house:
        client = await house.connected(via=NATIVE)
        assert "ping" not in client.hello
        assert "pong" not in client.hello
        for n in range(1, 5):
            while client.native_pings < n:
                await client._read()
            assert client.units == []
            await client.send_frame(b"", PONG)
        assert 87 <= trio.current_time() <= 101


@pytest.mark.parametrize(
    ("intervals", "interval", "patience"),
    [
        ({}, 25, 8),
        ({"ping_interval": "-1s", "pong_timeout": "-2s"}, 25, 10),
        ({"ping_interval": "9s", "pong_timeout": "-2s"}, 9, 10),
    ],
)
async def test_a_silent_peer_is_dropped(intervals: dict[str, str], interval: int, patience: int) -> None:
    """There is no code for it: to Centrifugo this is a read that took too long."""
    async with open_house(options(client=intervals)) as house:
        client = await house.connected(via=NATIVE)
        while client.native_pings == 0:
            await client._read()
        pinged = trio.current_time()
        assert interval / 2 <= pinged <= interval + 0.05
        assert await client.wait_closed() == (1006, "")
        assert trio.current_time() - pinged == pytest.approx(patience, abs=0.06)


async def test_pongs_of_the_transport_are_nothing_to_others() -> None:
    async with open_house(options()) as house:
        client = await house.connected()
        await ping(client)
        await client.send_frame(b"", PONG)
        with pytest.raises(EOFError):
            await client.next()
        assert client.closed == (3012, "no pong")


# ---- presence -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
async def test_presence_is_refreshed_on_every_tick(seed: int) -> None:
    rules = {"presence": True}
    async with open_house(options(rules, client={"presence_update_interval": "20s"}), seed=seed) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "room"})
        presence: Any = house.server.node._presence
        counted = house.server.node.counters.actions
        before = counted["add_presence"]
        presence._channels.clear()  # an engine on another machine forgets who is not refreshed
        await client.nothing(9.9)
        assert counted["add_presence"] == before
        await client.nothing(10.2)
        assert counted["add_presence"] == before + 1
        assert (await house.api("presence_stats", channel="room"))["result"]["num_clients"] == 1
        await client.nothing(20)
        assert counted["add_presence"] == before + 2


async def test_a_refresh_that_comes_too_late_does_not_bring_a_client_back() -> None:
    gates = Gates()
    async with open_house(options({"presence": True}), pace=gates) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "room"})
        gates.hold("add done")
        await client.nothing(28)
        assert gates.held("add done") == 1
        await client.ask(unsubscribe={"channel": "room"})
        gates.open("add done")
        await client.nothing()
        assert (await house.api("presence_stats", channel="room"))["result"]["num_clients"] == 0


async def test_a_refresh_that_comes_too_late_does_not_take_a_newer_subscription_away() -> None:
    gates = Gates()
    async with open_house(options({"presence": True}), pace=gates) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "room"})
        gates.hold("add done")
        await client.nothing(28)
        assert gates.held("add done") == 1
        await client.ask(unsubscribe={"channel": "room"})
        await client.command(subscribe={"channel": "room"})
        await gates.wait_until_held("add done", 2)
        gates.open("add done")
        assert (await client.next())["subscribe"] == {}
        await client.nothing()
        assert (await house.api("presence_stats", channel="room"))["result"]["num_clients"] == 1


async def test_a_store_that_fails_is_asked_again() -> None:
    gates = Gates()
    async with open_house(options({"presence": True}), pace=gates) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "room"})
        gates.failing = {"add"}
        await client.nothing(60)
        gates.failing.clear()
        await client.nothing(60)
        assert (await client.ask(presence_stats={"channel": "room"}))["presence_stats"]["num_clients"] == 1


async def test_a_bug_that_shows_in_a_timer_ends_its_client_and_nobody_else(
    error_log: ErrorLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    error_log.expect("a connection crashed(.|\n)*a bug")

    async with open_house(options(client=NO_PINGS)) as house:
        client, other = await house.connected(), await house.connected()

        def tick(of: Client) -> Coroutine[Any, Any, None]:
            if of.client_id == client.hello["client"]:
                raise RuntimeError("a bug")
            return ticks.tick(of)

        monkeypatch.setattr("broker.sessions.session.ticks", SimpleNamespace(tick=tick))
        assert (await client.wait_closed())[0] == 3004
        await trio.sleep(60)
        assert (await other.ask(rpc={"method": "x"}))["error"]["code"] == 108
        assert house.server.node.counters.connection_crashes == 1
