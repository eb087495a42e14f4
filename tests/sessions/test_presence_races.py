"""A presence store that answers late: nobody is seen who has left, and nobody is missed who is there."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from broker.protocol import codes
from tests.support.peers import NO_PINGS, open_house, options
from tests.support.slow_engine import Gates

pytestmark = pytest.mark.virtual_time

PRESENCE: dict[str, Any] = options({"presence": True}, client={**NO_PINGS, "presence_update_interval": "5s"})


@pytest.mark.parametrize("moment", ["add", "add done"])
@pytest.mark.parametrize("leaves", [False, True])
async def test_a_refresh_that_ends_after_its_subscription_leaves_nothing(moment: str, leaves: bool) -> None:
    gates = Gates()
    async with open_house(PRESENCE, pace=gates) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "room"})
        gates.hold(moment)
        await gates.wait_until_held(moment)
        await client.ask(unsubscribe={"channel": "room"})
        if leaves:  # what the refresh would have put right is cancelled with its client
            await client.leave()
            await trio.sleep(1)
        gates.open(moment)
        await trio.sleep(1)
        assert house.presence == {}


async def test_a_refresh_that_comes_late_and_is_cancelled_leaves_nothing() -> None:
    gates = Gates()
    async with open_house(PRESENCE, pace=gates) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "room"})
        gates.hold("add", "add done")
        await gates.wait_until_held("add")
        await client.ask(unsubscribe={"channel": "room"})
        gates.open("add")
        await gates.wait_until_held("add done")
        assert list(house.presence) == ["room"]
        await client.leave()
        await trio.sleep(1)
        assert house.presence == {}


@pytest.mark.parametrize("moment", ["remove", "remove done"])
async def test_who_comes_back_while_a_refresh_is_put_right_is_seen(moment: str) -> None:
    gates = Gates()
    async with open_house(PRESENCE, pace=gates) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "room"})
        gates.hold("add done")
        await gates.wait_until_held("add done")
        await client.ask(unsubscribe={"channel": "room"})
        gates.hold(moment)
        gates.open("add done")
        await gates.wait_until_held(moment)
        await client.send({"id": 50, "subscribe": {"channel": "room"}})
        await client.nothing()
        gates.open(moment)
        assert (await client.next())["id"] == 50
        assert list(house.presence["room"]) == [client.hello["client"]]


async def test_a_client_that_is_ended_as_its_channel_opens_is_not_counted_in_it() -> None:
    """The channel is there, the client is gone, and its task goes on where it waited."""
    gates = Gates()
    async with open_house(PRESENCE, pace=gates) as house:
        node = house.server.node
        gates.hold("subscribe")
        clients = [await house.connected() for _ in range(20)]
        for client in clients:
            await client.send({"id": 50, "subscribe": {"channel": "room"}})
        await gates.wait_until_held("subscribe")
        gates.open("subscribe")
        channel = node.registry.channels["room"]
        while channel.ready is not None:
            await trio.lowlevel.checkpoint()
        for subscriber in list(node.registry.clients.values()):
            subscriber.disconnect(codes.FORCE_DISCONNECT)
        await trio.testing.wait_all_tasks_blocked()
        assert channel.subscriptions == 0


@pytest.mark.parametrize("goes", ["unsubscribed", "disconnected"])
async def test_nobody_hears_of_a_leave_before_the_join(goes: str) -> None:
    """The engine is still being told of the join when the server ends the subscription."""
    gates = Gates()
    told = options({"join_leave": True, "force_push_join_leave": True}, client=NO_PINGS)
    async with open_house(told, pace=gates) as house:
        other, client = await house.connected(), await house.connected()
        await other.ask(subscribe={"channel": "room"})
        assert "join" in await other.push()
        gates.hold("publish_join")
        await client.send({"id": 50, "subscribe": {"channel": "room"}})
        await gates.wait_until_held("publish_join")
        if goes == "unsubscribed":
            await house.server.api.unsubscribe("", "room", client=client.hello["client"])
        else:
            await house.server.api.disconnect("", client=client.hello["client"])
        await trio.sleep(1)
        gates.open("publish_join")
        await trio.sleep(1)
        assert "join" in await other.push()
        assert "leave" in await other.push()
        await other.nothing()
