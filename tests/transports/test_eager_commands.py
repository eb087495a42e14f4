"""Commands that have to wait: they move to their connection's own task first, keep their place, and end with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, final

import attrs
import pytest
import trio

from broker.http1 import Request
from broker.hub import PublishOptions, PublishResult
from broker.protocol import Publication, codes
from broker.transports import Route
from tests.conftest import ErrorLog
from tests.support.peers import NO_PINGS, House, RawClient, open_house, options, secured, token
from tests.support.slow_engine import Gates

pytestmark = pytest.mark.virtual_time

CHANNEL: dict[str, Any] = {
    "history_size": 10,
    "history_ttl": "60s",
    "force_recovery": True,
    "presence": True,
    "join_leave": True,
}
MARK = {"rpc": {"method": "mark"}}
"""A command that never waits; its answer is error 108."""


@final
@attrs.frozen
class Held:
    """A house whose engine waits where the test says so, and two clients of it."""

    house: House
    gates: Gates
    client: RawClient
    other: RawClient

    async def ready(self, *channels: str) -> None:
        for channel in channels:
            assert "subscribe" in await self.client.ask(subscribe={"channel": channel})

    @property
    def paused(self) -> list[bool]:
        return sorted(connection.busy for connection in self.house.server.doors.connections)


@asynccontextmanager
async def held(**client: Any) -> AsyncIterator[Held]:
    gates = Gates()
    async with open_house(options(CHANNEL, client={**NO_PINGS, **client}), pace=gates) as house:
        yield Held(house, gates, await house.connected(), await house.connected())


WAITS = [
    ("subscribe", {"subscribe": {"channel": "new"}}),
    ("subscribe done", {"subscribe": {"channel": "new"}}),
    ("add", {"subscribe": {"channel": "new"}}),
    ("history", {"subscribe": {"channel": "new"}}),
    ("publish_join", {"subscribe": {"channel": "new"}}),
    ("remove", {"unsubscribe": {"channel": "old"}}),
    ("publish_leave", {"unsubscribe": {"channel": "old"}}),
    ("publish", {"publish": {"channel": "else", "data": 1}}),
    ("publish done", {"publish": {"channel": "else", "data": 1}}),
    ("clients", {"presence": {"channel": "old"}}),
    ("stats", {"presence_stats": {"channel": "old"}}),
    ("history", {"history": {"channel": "old", "limit": 5}}),
]
"""Every command that asks the engine, by where it waits. Those that ask for keys stand in tests/sessions."""
NAMES = [f"{next(iter(command))} at {call}" for call, command in WAITS]


# ---- moving, pausing, order ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "command"), WAITS, ids=NAMES)
async def test_a_command_that_waits_pauses_its_connection_and_no_other(call: str, command: dict[str, Any]) -> None:
    async with held() as it:
        await it.ready("old")
        it.gates.hold(call)
        await it.client.send({"id": 91, **command})
        await it.gates.wait_until_held(call)
        assert it.paused == [False, True]
        assert (await it.other.ask(**MARK))["error"]["code"] == 108
        it.gates.open(call)
        assert await replies(it.client, 1) == [91]
        await trio.testing.wait_all_tasks_blocked()
        assert it.paused == [False, False]


@pytest.mark.parametrize(("call", "command"), WAITS, ids=NAMES)
async def test_commands_behind_it_wait_in_order(call: str, command: dict[str, Any]) -> None:
    """Of the same frame, of the same segment, and of later ones."""
    async with held() as it:
        await it.ready("old")
        it.gates.hold(call)
        await it.client.send({"id": 90, **MARK}, {"id": 91, **command}, {"id": 92, **MARK})
        await it.client.send({"id": 93, **MARK})
        await it.gates.wait_until_held(call)
        await it.client.send({"id": 94, **MARK})
        expected = [90] + ([91] if call == "publish_join" else [])
        assert await replies(it.client, len(expected)) == expected
        await it.client.nothing()
        it.gates.open(call)
        rest = [id for id in (91, 92, 93, 94) if id not in expected]
        assert await replies(it.client, len(rest)) == rest


async def replies(client: RawClient, count: int) -> list[int]:
    """The ids of the next replies, pushes left out."""
    ids: list[int] = []
    while len(ids) < count:
        unit = await client.next()
        if "push" not in unit:
            ids.append(unit["id"])
    return ids


async def test_one_wait_after_another_keeps_the_order() -> None:
    async with held() as it:
        calls = ("subscribe", "publish", "clients", "remove")
        it.gates.hold(*calls)
        subscribe, publish = {"channel": "a"}, {"channel": "a", "data": 1}
        await it.client.send({"id": 91, "subscribe": subscribe}, {"id": 92, "publish": publish}, {"id": 93, **MARK})
        await it.client.send({"id": 94, "presence": {"channel": "a"}}, {"id": 95, "unsubscribe": {"channel": "a"}})
        await it.client.send({"id": 96, **MARK})
        units: list[list[object]] = []
        for call in (*calls, "nothing more"):
            units.append([unit.get("id", "push") for unit in it.client.units])
            it.client.units.clear()
            if call in calls:
                await it.gates.wait_until_held(call)
                it.gates.open(call)
                await it.client.arrived()
        assert units == [[], [91], ["push", 92, 93], [94], [95, 96]]


async def test_a_connect_that_waits_is_answered_before_what_came_behind_it() -> None:
    gates = Gates()
    personal = secured(CHANNEL, client={"subscribe_to_user_personal_channel": {"enabled": True}})
    async with open_house(personal, pace=gates) as house:
        client = await house.client()
        gates.hold("history")
        await client.send({"id": 91, "connect": {"token": token("alice")}}, {"id": 92, **MARK})
        await client.send({"id": 93, **MARK})
        await gates.wait_until_held("history")
        await client.nothing()
        gates.open("history")
        first = await client.next()
        assert list(first["connect"]["subs"]) == ["#alice"]
        assert await replies(client, 2) == [92, 93]


# ---- what is published meanwhile -------------------------------------------------------------------------------------

ON_THE_WAY = ["subscribe", "subscribe done", "add", "add done", "history", "history done"]


@pytest.mark.parametrize("call", ON_THE_WAY)
@pytest.mark.parametrize("recover", [False, True])
async def test_no_push_comes_before_the_reply_and_none_is_lost_or_doubled(call: str, recover: bool) -> None:
    async with held() as it:
        for n in (1, 2):
            await it.other.ask(publish={"channel": "a", "data": n})
        epoch = (await it.other.ask(history={"channel": "a", "limit": 0}))["history"]["epoch"]
        it.gates.hold(call)
        since = {"recover": True, "offset": 1, "epoch": epoch} if recover else {}
        await it.client.send({"id": 91, "subscribe": {"channel": "a", **since}})
        await it.gates.wait_until_held(call)
        await it.other.ask(publish={"channel": "a", "data": 3})
        await it.house.api("publish", channel="a", data=4)
        await it.client.nothing()
        it.gates.open(call)
        reply = (await it.client.next())["subscribe"]
        await it.other.ask(publish={"channel": "a", "data": 5})
        seen = [pub["data"] for pub in reply.get("publications", [])]
        if recover:
            assert reply["recovered"] is True
            assert seen == [2, 3, 4]
        else:
            assert seen == []
            assert reply["offset"] == 4
        push = await it.client.push()
        assert push["pub"]["offset"] == 5
        await it.client.nothing()


# ---- ending in the middle --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "command"), WAITS, ids=NAMES)
async def test_a_client_that_goes_in_the_middle_leaves_nothing(call: str, command: dict[str, Any]) -> None:
    async with held() as it:
        await it.ready("old")
        it.gates.hold(call)
        await it.client.send({"id": 91, **command}, {"id": 92, **MARK})
        await it.gates.wait_until_held(call)
        await it.client.leave()
        await trio.sleep(3)  # what may wait after the end has five seconds
        node = it.house.server.node
        assert list(node.registry.clients) == [it.other.hello["client"]]
        it.gates.open(call)
        await trio.sleep(2)
        assert node.registry.channels == {}
        assert it.house.presence == {}


@pytest.mark.parametrize(("call", "command"), WAITS, ids=NAMES)
async def test_a_client_that_is_disconnected_in_the_middle_leaves_nothing(call: str, command: dict[str, Any]) -> None:
    async with held() as it:
        await it.ready("old")
        it.gates.hold(call)
        await it.client.send({"id": 91, **command})
        await it.gates.wait_until_held(call)
        await it.house.api("disconnect", user="", whitelist=[it.other.hello["client"]])
        assert (await it.client.wait_closed())[0] == 3503
        it.gates.open(call)
        await trio.sleep(8)
        assert it.house.server.node.registry.channels == {}
        assert it.house.presence == {}


async def test_a_wait_that_ends_in_the_same_moment_as_its_client_leaves_nothing() -> None:
    """The engine has answered, the client is told to go, and only then does its task run."""
    async with held() as it:
        for call in ON_THE_WAY:
            client = await it.house.connected()
            it.gates.hold(call)
            await client.send({"id": 91, "subscribe": {"channel": call.replace(" ", "-")}})
            await it.gates.wait_until_held(call)
            it.gates.open(call)
            it.house.server.node.registry.clients[client.hello["client"]].disconnect(codes.FORCE_DISCONNECT)
            await client.wait_closed()
        await trio.sleep(8)
        assert it.house.server.node.registry.channels == {}
        assert it.house.presence == {}


# ---- unsubscribed meanwhile ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ON_THE_WAY)
async def test_an_unsubscribe_by_the_server_waits_for_the_subscribe_and_undoes_it(call: str) -> None:
    async with held() as it:
        it.gates.hold(call)
        await it.client.send({"id": 91, "subscribe": {"channel": "a"}})
        await it.gates.wait_until_held(call)
        assert await it.house.api("unsubscribe", user="", channel="a") == {"result": {}}
        await it.client.nothing()
        it.gates.open(call)
        assert "subscribe" in await it.client.next()
        assert (await it.client.push())["unsubscribe"]["code"] == 2000
        await trio.sleep(3)
        assert it.house.presence == {}
        assert it.house.server.node.registry.channels == {}
        assert "subscribe" in await it.client.ask(subscribe={"channel": "a"})


async def test_a_subscribe_by_the_server_does_not_take_a_channel_that_is_on_its_way() -> None:
    async with held() as it:
        it.gates.hold("history")
        await it.client.send({"id": 91, "subscribe": {"channel": "a"}})
        await it.gates.wait_until_held("history")
        await it.house.api("subscribe", user="", channel="a", client=it.client.hello["client"])
        it.gates.open("history")
        assert (await it.client.next())["id"] == 91
        await it.client.nothing()
        (local,) = it.house.server.node.registry.channels.values()
        assert local.subscriptions == 1


async def test_a_channel_that_the_server_is_about_to_subscribe_is_taken_already() -> None:
    async with held() as it:
        it.gates.hold("history")
        await it.house.api("subscribe", user="", channel="a", client=it.client.hello["client"])
        await it.gates.wait_until_held("history")
        assert (await it.client.ask(subscribe={"channel": "a"}))["error"]["code"] == 105
        it.gates.open("history")
        assert "subscribe" in await it.client.push()


# ---- pongs -----------------------------------------------------------------------------------------------------------


async def test_a_pong_that_nobody_read_is_not_held_against_the_client() -> None:
    async with held(ping_interval="10s", pong_timeout="3s") as it:
        it.gates.hold("publish")
        await it.client.send({"id": 91, "publish": {"channel": "a", "data": 1}})
        await it.gates.wait_until_held("publish")
        assert await it.client.next(pings=True) == {}
        await it.client.pong()
        await trio.sleep(60)
        assert it.client.closed is None
        it.gates.open("publish")
        while (await it.client.next(pings=True)).get("id") != 91:
            pass
        await trio.sleep(2.5)
        assert len(it.house.server.node.registry.clients) >= 1
        assert it.client.hello["client"] in it.house.server.node.registry.clients


async def test_a_client_that_sent_none_is_found_out_once_it_is_read_again() -> None:
    async with held(ping_interval="10s", pong_timeout="3s") as it:
        it.gates.hold("publish")
        await it.client.send({"id": 91, "publish": {"channel": "a", "data": 1}})
        await it.gates.wait_until_held("publish")
        await trio.sleep(60)
        it.gates.open("publish")
        while True:
            unit = await it.client.next(pings=True)
            if unit.get("id") == 91:
                break
        with trio.fail_after(15):
            while it.client.closed is None:
                await it.client.arrived()
        assert it.client.closed[0] == 3012


# ---- handlers that wait without moving -------------------------------------------------------------------------------


async def sleeps(request: Request) -> bytes:
    await trio.sleep(1)
    raise AssertionError("never here")


async def test_an_http_handler_that_waits_in_the_reader_ends_its_connection_only(error_log: ErrorLog) -> None:
    error_log.expect("a connection crashed(.|\n)*await trio.sleep(.|\n)*waited without own_task")
    async with held() as it:
        it.house.server.sites[0].routes["/bad"] = Route(frozenset({"GET"}), sleeps)
        stream = await it.house.open_stream()
        await stream.send_all(b"GET /bad HTTP/1.1\r\nHost: test\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 500 ")
        assert await stream.receive_some() == b""
        assert it.house.server.node.counters.connection_crashes == 1
        assert (await it.client.ask(**MARK))["error"]["code"] == 108
        await it.ready("a")


async def test_a_command_that_waits_in_the_reader_ends_its_connection_only(
    error_log: ErrorLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    error_log.expect("a connection crashed(.|\n)*waited without own_task")

    async def publish(channel: str, pub: Publication, options: PublishOptions) -> PublishResult:
        await trio.lowlevel.checkpoint()
        raise AssertionError("never here")

    async with held() as it:
        await it.ready("a")
        monkeypatch.setattr(it.house.server.node._broker, "publish", publish)
        await it.client.send({"id": 91, "publish": {"channel": "a", "data": 1}})
        assert (await it.client.wait_closed())[0] == 3004
        assert (await it.other.ask(**MARK))["error"]["code"] == 108
        await trio.sleep(3)
        assert it.house.presence == {}
        assert it.house.server.node.counters.connection_crashes == 1


async def test_a_command_that_fails_after_it_moved_ends_its_connection_only(
    error_log: ErrorLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    error_log.expect("a connection crashed(.|\n)*a bug")

    async with held() as it:
        await it.ready("a")
        inner = it.house.server.node._broker.inner  # type: ignore[attr-defined]

        async def publish(channel: str, pub: Publication, options: PublishOptions) -> PublishResult:
            raise LookupError("a bug")

        monkeypatch.setattr(inner, "publish", publish)
        await it.client.send({"id": 91, "publish": {"channel": "a", "data": 1}})
        assert (await it.client.wait_closed())[0] == 3004
        assert (await it.other.ask(**MARK))["error"]["code"] == 108
