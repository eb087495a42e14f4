"""Positions: a subscriber that missed something is told so, at once or at the next check (client protocol §3.7)."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio

from broker.protocol import Publication
from tests.support.peers import House, open_house, options, secured, token
from tests.support.slow_engine import Delays, Gates

pytestmark = pytest.mark.virtual_time

RECOVERED = {"history_size": 5, "history_ttl": "60s", "history_meta_ttl": "120s", "force_recovery": True}
POSITIONED = {"history_size": 5, "history_ttl": "60s", "history_meta_ttl": "120s", "force_positioning": True}
GAP = {"channel": "chat", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}


def memory(house: House) -> Any:
    broker: Any = house.server.node._broker
    return getattr(broker, "inner", broker)


def deliver(house: House, offset: int, epoch: str) -> None:
    """A publication arrives as from an engine that lost the ones before it."""
    memory(house).deliver.publication("chat", Publication(b"%d" % offset, offset=offset), epoch, None)


def forget(house: House, channel: str = "chat") -> None:
    """The engine loses a channel: what comes next has another epoch."""
    del memory(house)._streams[channel]


def skip(house: House, channel: str = "chat") -> None:
    """Something is published of which this node never hears."""
    memory(house)._streams[channel].top += 1


@pytest.mark.parametrize("rules", [RECOVERED, POSITIONED])
@pytest.mark.parametrize("what", ["offset", "epoch"])
@pytest.mark.parametrize("many", [False, True])
async def test_a_gap_ends_the_subscription_and_the_client_comes_back(
    rules: dict[str, Any], what: str, many: bool
) -> None:
    async with open_house(options(rules)) as house:
        clients = [await house.connected() for _ in range(30 if many else 2)]
        for client in clients:
            epoch = (await client.ask(subscribe={"channel": "chat"}))["subscribe"]["epoch"]
        await house.api("publish", channel="chat", data=1)
        for client in clients:
            assert (await client.push())["pub"]["offset"] == 1
        if what == "offset":
            deliver(house, 3, epoch)
        else:
            deliver(house, 2, "other")
        for client in clients:
            assert await client.push() == GAP
            await client.nothing()
        result = (await clients[0].ask(subscribe={"channel": "chat", "recover": True, "offset": 1, "epoch": epoch}))[
            "subscribe"
        ]
        assert result["was_recovering"]
        await house.api("publish", channel="chat", data=2)
        assert (await clients[0].push())["pub"]["offset"] == 2


async def test_who_has_no_position_hears_what_comes() -> None:
    async with open_house(options({**POSITIONED, "force_positioning": False, "allow_positioning": True})) as house:
        plain, positioned = await house.connected(), await house.connected()
        await plain.ask(subscribe={"channel": "chat"})
        await positioned.ask(subscribe={"channel": "chat", "positioned": True})
        epoch = (await house.api("publish", channel="chat", data=1))["result"]["epoch"]
        for client in (plain, positioned):
            await client.push()
        deliver(house, 4, epoch)
        assert (await plain.push())["pub"] == {"data": 4, "offset": 4}
        assert await positioned.push() == GAP
        deliver(house, 5, "other")
        assert (await plain.push())["pub"] == {"data": 5, "offset": 5}
        await positioned.nothing()


@pytest.mark.parametrize("what", ["offset", "epoch"])
async def test_a_gap_in_a_server_side_subscription_ends_the_connection(what: str) -> None:
    async with open_house(secured(RECOVERED)) as house:
        client = await house.connected(token=token("42", channels=["chat", "other"]))
        epoch = client.hello["subs"]["chat"]["epoch"]
        deliver(house, 2, epoch) if what == "offset" else deliver(house, 1, "other")
        assert await client.wait_closed() == (3010, "insufficient state")


async def test_a_gap_is_a_leave_for_the_others() -> None:
    rules = {**POSITIONED, "presence": True, "join_leave": True, "force_push_join_leave": True}
    client_options = {"insecure": True}
    async with open_house(options({**rules, "force_positioning": False}, client=client_options)) as house:
        watcher, client = await house.connected(), await house.connected()
        await watcher.ask(subscribe={"channel": "chat"})
        await watcher.push()
        epoch = (await client.ask(subscribe={"channel": "chat", "positioned": True}))["subscribe"]["epoch"]
        for each in (watcher, client):
            assert "join" in await each.push()
        deliver(house, 9, epoch)
        assert (await watcher.push())["pub"]["offset"] == 9
        assert (await watcher.push())["leave"]["info"]["client"] == client.hello["client"]
        assert await client.push() == GAP
        assert (await house.api("presence_stats", channel="chat"))["result"]["num_clients"] == 1
        assert (await client.ask(unsubscribe={"channel": "chat"}))["unsubscribe"] == {}


# ---- checks now and then ------------------------------------------------------------------------------------------

CHECKED = {"channel_position_check_delay": "40s", "presence_update_interval": "10s"}


@pytest.mark.parametrize("lose", [skip, forget])
async def test_a_position_is_checked_once_it_is_old_enough(lose: Any) -> None:
    async with open_house(options(POSITIONED, client=CHECKED)) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "chat"})
        await client.nothing(35)
        lose(house)
        started = trio.current_time()
        assert await client.push() == GAP
        assert started < trio.current_time() <= 50.1


async def test_a_server_side_position_is_checked_too() -> None:
    async with open_house(secured(POSITIONED, client=CHECKED)) as house:
        client = await house.connected(token=token("42", channels=["chat"]))
        skip(house)
        assert await client.wait_closed() == (3010, "insufficient state")
        assert 40 <= trio.current_time() <= 50.1


async def test_a_position_that_holds_is_checked_again_later() -> None:
    async with open_house(options(POSITIONED, client=CHECKED)) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "chat"})
        for n in range(1, 4):
            await client.nothing(45)
            await house.api("publish", channel="chat", data=n)
            assert (await client.push())["pub"]["offset"] == n
        checks = house.server.node.counters.actions["history"]
        await client.nothing(100)
        assert house.server.node.counters.actions["history"] - checks == 2


async def test_checks_keep_a_silent_channel_alive() -> None:
    """A position is forgotten after 120 s without access; somebody who is subscribed has access."""
    async with open_house(options(POSITIONED, client=CHECKED)) as house:
        client = await house.connected()
        epoch = (await client.ask(subscribe={"channel": "chat"}))["subscribe"]["epoch"]
        await client.nothing(600)
        await house.api("publish", channel="chat", data=1)
        assert (await client.push())["pub"] == {"data": 1, "offset": 1, "epoch": epoch}


async def test_checks_can_be_off_and_then_a_forgotten_position_shows_with_the_next_publication() -> None:
    off = {"channel_position_check_delay": "-1s", "presence_update_interval": "10s"}
    async with open_house(options(POSITIONED, client=off)) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "chat"})
        await client.nothing(130)
        await house.api("publish", channel="chat", data=1)
        assert await client.push() == GAP


async def test_a_check_that_the_engine_cannot_answer_is_made_again() -> None:
    gates = Gates()
    async with open_house(options(POSITIONED, client=CHECKED), pace=gates) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "chat"})
        gates.failing = {"history"}
        await client.nothing(100)
        gates.failing.clear()
        skip(house)
        assert await client.push() == GAP


@pytest.mark.parametrize("moment", ["history", "history done"])
async def test_a_check_that_is_overtaken_by_a_publication_gives_no_verdict(moment: str) -> None:
    gates = Gates()
    async with open_house(options(POSITIONED, client=CHECKED), pace=gates) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "chat"})
        gates.hold(moment)
        await client.nothing(55)
        assert gates.held(moment) == 1
        await house.api("publish", channel="chat", data=1)
        gates.open(moment)
        assert (await client.push())["pub"]["offset"] == 1
        await client.nothing(100)


@pytest.mark.parametrize("moment", ["history", "history done"])
async def test_a_check_does_not_touch_a_newer_subscription(moment: str) -> None:
    gates = Gates()
    async with open_house(options(POSITIONED, client=CHECKED), pace=gates) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "chat"})
        gates.hold(moment)
        await client.nothing(55)
        assert gates.held(moment) == 1
        await client.ask(unsubscribe={"channel": "chat"})
        skip(house)
        await client.command(subscribe={"channel": "chat"})
        await trio.testing.wait_all_tasks_blocked()  # it waits for the next read of the same
        gates.open(moment)
        assert (await client.next())["subscribe"]["offset"] == 1
        await client.nothing(100)


# ---- deliveries were interrupted -------------------------------------------------------------------------------------


async def test_whoever_missed_something_in_one_of_many_channels_knows_it_soon() -> None:
    """Three thousand channels, of which every other one moved while nothing was delivered."""
    channels = [f"c{number}" for number in range(3000)]
    pace = Delays(random.Random(1), 0.01)
    async with open_house(options(RECOVERED, client={"channel_limit": 5000}), pace=pace) as house:
        client = await house.connected()
        for start in range(0, len(channels), 100):
            for id in await client.frame(*({"subscribe": {"channel": name}} for name in channels[start : start + 100])):
                while (await client.next())["id"] != id:
                    pass
        for channel in channels[::2]:
            memory(house)._streams[channel].top += 1
        house.server.node._delivery.interrupted(channels)
        told = set()
        with trio.fail_after(5):
            while len(told) < len(channels) / 2:
                push = await client.push()
                assert push["unsubscribe"]["code"] == 2500
                told.add(push["channel"])
        assert told == set(channels[::2])
        await client.nothing(3)


async def test_interruptions_one_after_another_ask_once() -> None:
    pace = Gates()
    async with open_house(options(RECOVERED), pace=pace) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "chat"})
        before = house.server.node.counters.actions["history"]
        pace.hold("history")
        for _ in range(50):
            house.server.node._delivery.interrupted(["chat"])
            await trio.sleep(0.01)
        assert pace.held("history") <= 2  # one is asked, and once more after it
        pace.open("history")
        skip(house)
        house.server.node._delivery.interrupted(["chat"])
        assert await client.push() == GAP
        assert house.server.node.counters.actions["history"] == before


async def test_an_engine_that_fails_the_check_is_asked_again() -> None:
    pace = Gates()
    async with open_house(options(RECOVERED), pace=pace) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "chat"})
        skip(house)
        pace.failing.add("history")
        house.server.node._delivery.interrupted(["chat"])
        await client.nothing(5)
        pace.failing.clear()
        with trio.fail_after(5):
            assert await client.push() == GAP
