"""What the server does to connections by its API (client protocol §3.14, §3.16)."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import trio

from tests.conftest import ErrorLog
from tests.support.peers import NO_PINGS, WALL, House, RawClient, open_house, options, secured, token
from tests.support.slow_engine import Gates

pytestmark = pytest.mark.virtual_time

RECOVERED = {"history_size": 5, "history_ttl": "60s", "force_recovery": True}
OK: dict[str, Any] = {"result": {}}
UNSUBSCRIBED = {"unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}


async def publishes(house: House, channel: str, client: RawClient, *, heard: bool) -> None:
    await house.api("publish", channel=channel, data="are you there")
    if heard:
        assert (await client.push())["channel"] == channel
    else:
        await client.nothing()


# ---- subscribe ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "given", "expected"),
    [
        ({}, {}, {}),
        ({}, {"data": {"welcome": True}}, {"data": {"welcome": True}}),
        ({}, {"data": None}, {"data": None}),
        ({}, {"data": 1, "b64data": base64.b64encode(b'{"a":1}').decode()}, {"data": {"a": 1}}),
        (RECOVERED, {}, {"recoverable": True, "positioned": True, "offset": 2}),
        ({**RECOVERED, "force_recovery": False, "force_positioning": True}, {}, {"positioned": True, "offset": 2}),
        (RECOVERED, {"override": {"force_recovery": {"value": False}}}, {}),
        (
            {**RECOVERED, "force_recovery": False},
            {"override": {"force_positioning": {"value": True}}},
            {"positioned": True, "offset": 2},
        ),
        (
            RECOVERED,
            {"recover_since": {"offset": 1}},
            {"recoverable": True, "positioned": True, "offset": 1},
        ),
        (
            RECOVERED,
            {"recover_since": {"offset": 1, "epoch": "other"}},
            {"recoverable": True, "positioned": True, "offset": 2},
        ),
        (
            {**RECOVERED, "force_recovery_mode": "cache", "history_size": 1},
            {"recover_since": {}},  # the latest would count as recovered, but the API knows streams only
            {"recoverable": True, "positioned": True, "offset": 2},
        ),
        (
            {**RECOVERED, "force_recovery_mode": "cache", "auto_cache_recover": True},
            {},
            {"recoverable": True, "positioned": True, "offset": 2},
        ),
    ],
)
async def test_a_subscription_is_pushed(rules: dict[str, Any], given: dict[str, Any], expected: dict[str, Any]) -> None:
    async with open_house(secured(rules)) as house:
        for n in (1, 2):
            await house.api("publish", channel="news", data=n)
        client = await house.connected(token=token("42"))
        assert await house.api("subscribe", user="42", channel="news", **given) == OK
        push = await client.push()
        if expected.get("positioned"):
            assert len(push["subscribe"].pop("epoch")) == 8
        assert push == {"channel": "news", "subscribe": expected}
        await publishes(house, "news", client, heard=True)


async def test_what_others_see_of_it() -> None:
    rules = {"presence": True, "join_leave": True}
    async with open_house(secured(rules)) as house:
        client = await house.connected(token=token("42", info={"name": "Ann"}))
        told = {"force_push_join_leave": {"value": True}}
        await house.api("subscribe", user="42", channel="news", info={"role": "admin"}, override=told)
        assert "subscribe" in await client.push()
        mine = {"user": "42", "client": client.hello["client"], "conn_info": {"name": "Ann"}}
        seen = {**mine, "chan_info": {"role": "admin"}}
        assert await client.push() == {"channel": "news", "join": {"info": seen}}
        assert (await house.api("presence", channel="news"))["result"]["presence"] == {client.hello["client"]: seen}
        unseen = {"presence": {"value": False}, "join_leave": {"value": False}}
        await house.api("subscribe", user="42", channel="other", b64info="eyJhIjoxfQ==", override=unseen)
        assert "subscribe" in await client.push()
        await client.nothing()
        assert (await house.api("presence", channel="other"))["result"]["presence"] == {}


async def test_who_is_subscribed_already_sees_nothing() -> None:
    async with open_house(secured({"allow_subscribe_for_client": True})) as house:
        client = await house.connected(token=token("42", channels=["served"]))
        await client.ask(subscribe={"channel": "asked"})
        for channel in ("served", "asked"):
            assert await house.api("subscribe", user="42", channel=channel, data=1) == OK
        await client.nothing()


async def test_who_is_being_subscribed_cannot_subscribe() -> None:
    gates = Gates()
    async with open_house(options({"presence": True}), pace=gates) as house:
        client = await house.connected()
        gates.hold("add")
        await house.api("subscribe", channel="news")
        assert (await client.ask(subscribe={"channel": "news"}))["error"]["code"] == 105
        gates.open("add")
        assert "subscribe" in await client.push()
        assert (await client.ask(subscribe={"channel": "news"}))["error"]["code"] == 105


async def test_one_more_than_a_client_may_have() -> None:
    async with open_house(secured(client={"channel_limit": 2})) as house:
        full = await house.connected(token=token("42", channels=["a", "b"]))
        roomy = await house.connected(token=token("42", channels=["a"]))
        await house.api("subscribe", user="42", channel="a")
        await full.nothing()
        assert await house.api("subscribe", user="42", channel="c") == OK
        assert await full.wait_closed() == (3505, "channel limit")
        assert "subscribe" in await roomy.push()


@pytest.mark.parametrize("who", ["client", "user", "anonymous", "unknown", "other client"])
async def test_whom_it_concerns(who: str) -> None:
    async with open_house(secured()) as house:
        first, second = [await house.connected(token=token("42")) for _ in range(2)]
        nobody, nobody_else = [await house.connected(token=token()) for _ in range(2)]
        target = {
            "client": {"user": "42", "client": first.hello["client"]},
            "user": {"user": "42"},
            "anonymous": {},
            "unknown": {"user": "7"},
            "other client": {"user": "7", "client": first.hello["client"]},
        }[who]
        concerned = {"client": [first], "user": [first, second], "anonymous": [nobody, nobody_else]}.get(who, [])
        assert await house.api("subscribe", channel="news", **target) == OK
        for client in (first, second, nobody, nobody_else):
            if client in concerned:
                assert "subscribe" in await client.push()
            await client.nothing()
        assert await house.api("unsubscribe", channel="news", **target) == OK
        for client in (first, second, nobody, nobody_else):
            if client in concerned:
                assert await client.push() == {"channel": "news", **UNSUBSCRIBED}
            await client.nothing()
        assert await house.api("disconnect", **target) == OK
        for client in (first, second, nobody, nobody_else):
            if client in concerned:
                assert await client.wait_closed() == (3503, "force disconnect")
            else:
                await client.nothing()


async def test_a_session_that_nobody_has() -> None:
    """Only connections of other transports have one."""
    async with open_house(secured()) as house:
        client = await house.connected(token=token("42"))
        await house.api("subscribe", user="42", channel="news", session="unknown")
        await house.api("disconnect", user="42", session="unknown")
        await client.nothing()


async def test_a_subscription_that_has_expired_is_not_made() -> None:
    async with open_house(secured({"presence": True})) as house:
        client = await house.connected(token=token("42"))
        assert await house.api("subscribe", user="42", channel="news", expire_at=int(WALL)) == OK
        await publishes(house, "news", client, heard=False)
        assert await house.api("subscribe", user="42", channel="news", expire_at=-1) == OK  # never
        assert "subscribe" in await client.push()


async def test_a_payload_that_is_no_json_ends_the_json_connections() -> None:
    rules = {"presence": True, "join_leave": True, "force_push_join_leave": True}
    async with open_house(secured(rules)) as house:
        watcher = await house.connected(token=token("1", channels=["news"]))
        await watcher.push()
        client = await house.connected(token=token("42"))
        assert await house.api("subscribe", user="42", channel="news", b64data="AAEC") == OK
        assert await client.wait_closed() == (3506, "inappropriate protocol")
        await watcher.nothing()
        presence = (await house.api("presence", channel="news"))["result"]["presence"]
        assert set(presence) == {watcher.hello["client"]}


async def test_an_engine_that_fails_fails_nobody() -> None:
    gates = Gates()
    async with open_house(secured({"presence": True}), pace=gates) as house:
        client = await house.connected(token=token("42"))
        gates.failing = {"add"}
        assert await house.api("subscribe", user="42", channel="news") == OK
        await publishes(house, "news", client, heard=False)
        gates.failing.clear()
        await house.api("subscribe", user="42", channel="news")
        assert "subscribe" in await client.push()


# ---- unsubscribe --------------------------------------------------------------------------------------------------


async def test_one_channel_or_all_of_them() -> None:
    async with open_house(secured({"allow_subscribe_for_client": True})) as house:
        client = await house.connected(token=token("42", channels=["served", "a"]))
        for channel in ("asked", "b"):
            await client.ask(subscribe={"channel": channel})
        for channel in ("served", "asked"):
            assert await house.api("unsubscribe", user="42", channel=channel) == OK
            assert await client.push() == {"channel": channel, **UNSUBSCRIBED}
            await publishes(house, channel, client, heard=False)
        assert await house.api("unsubscribe", user="42", channel="never") == OK
        await client.nothing()
        assert await house.api("unsubscribe", user="42") == OK
        assert [await client.push() for _ in range(2)] == [{"channel": name, **UNSUBSCRIBED} for name in ("a", "b")]
        assert (await client.ask(subscribe={"channel": "served"}))["subscribe"] == {}


async def test_the_others_hear_of_it() -> None:
    rules = {"presence": True, "join_leave": True, "force_push_join_leave": True}
    async with open_house(secured(rules)) as house:
        watcher = await house.connected(token=token("1", channels=["news"]))
        await watcher.push()
        client = await house.connected(token=token("42", subs={"news": {"info": {"role": "guest"}}}))
        await watcher.push()
        await client.push()
        await house.api("unsubscribe", user="42", channel="news")
        info = {"user": "42", "client": client.hello["client"], "chan_info": {"role": "guest"}}
        assert await watcher.push() == {"channel": "news", "leave": {"info": info}}
        assert "unsubscribe" in await client.push()
        await client.nothing()
        assert (await house.api("presence_stats", channel="news"))["result"]["num_clients"] == 1


@pytest.mark.parametrize("channel", ["news", ""])
async def test_a_subscribe_under_way_is_answered_before_it_is_undone(channel: str) -> None:
    """Otherwise the client would be told of a temporary error, and come back."""
    gates = Gates()
    async with open_house(options({"presence": True}), pace=gates) as house:
        client = await house.connected()
        gates.hold("add")
        await client.command(subscribe={"channel": "news"})
        await gates.wait_until_held("add")
        assert await house.api("unsubscribe", channel=channel) == OK
        assert await house.api("subscribe", channel="news") == OK
        await client.nothing()
        gates.open("add")
        assert (await client.next())["subscribe"] == {}
        assert await client.push() == {"channel": "news", **UNSUBSCRIBED}
        await publishes(house, "news", client, heard=False)


async def test_a_subscribe_under_way_that_fails_needs_no_undoing() -> None:
    gates = Gates()
    async with open_house(options({"presence": True}), pace=gates) as house:
        client = await house.connected()
        gates.hold("add")
        gates.failing = {"add"}
        await client.command(subscribe={"channel": "news"})
        await gates.wait_until_held("add")
        await house.api("unsubscribe", channel="news")
        gates.open("add")
        assert (await client.next())["error"]["code"] == 100
        await client.nothing()


async def test_an_engine_that_fails_does_not_keep_anybody_subscribed() -> None:
    gates = Gates()
    async with open_house(options({"join_leave": True}), pace=gates) as house:
        client = await house.connected()
        for channel in ("a", "b"):
            await client.ask(subscribe={"channel": channel})
        gates.failing = {"publish_leave"}
        assert (await client.ask(unsubscribe={"channel": "a"}))["unsubscribe"] == {}
        await house.api("unsubscribe", channel="b")
        assert await client.push() == {"channel": "b", **UNSUBSCRIBED}
        gates.failing = {"publish_join"}
        reply = await client.ask(subscribe={"channel": "a"})
        assert reply["subscribe"] == {}
        await client.nothing()


# ---- disconnect ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("disconnect", "closed"),
    [
        ({"code": 4000, "reason": "come back"}, (4000, "come back")),
        ({"code": 4999, "reason": ""}, (4999, "")),
        ({"code": 3014, "reason": "state invalidated"}, (3014, "state invalidated")),
        ({"code": 3000, "reason": "gone"}, (1006, "")),
        ({"code": 4500, "reason": "ß" * 100}, (4500, "ß" * 61)),
    ],
)
async def test_a_disconnect_of_the_applications_own(disconnect: dict[str, Any], closed: tuple[int, str]) -> None:
    async with open_house(secured()) as house:
        client = await house.connected(token=token("42"))
        assert await house.api("disconnect", user="42", disconnect=disconnect) == OK
        assert await client.wait_closed() == closed


@pytest.mark.parametrize("code", [0, 1, 1000, 2999, 5000, 65536])
async def test_codes_that_no_close_frame_can_carry(code: int) -> None:
    async with open_house(secured()) as house:
        client = await house.connected(token=token("42"))
        answer = await house.api("disconnect", user="42", disconnect={"code": code, "reason": "x"})
        assert answer == {"error": {"code": 107, "message": "bad request"}}
        await client.nothing()


async def test_a_whitelist_spares_clients() -> None:
    async with open_house(secured(client=NO_PINGS)) as house:
        clients = [await house.connected(token=token("42")) for _ in range(3)]
        spared = clients[1]
        await house.api("disconnect", user="42", whitelist=[spared.hello["client"], "unknown"])
        for client in (clients[0], clients[2]):
            assert (await client.wait_closed())[0] == 3503
        await spared.nothing()


async def test_what_was_on_its_way_arrives_before_the_close() -> None:
    async with open_house(secured()) as house:
        client = await house.connected(token=token("42", channels=["news"]))
        for n in range(3):
            await house.api("publish", channel="news", data=n)
        await house.api("disconnect", user="42")
        assert [(await client.push())["pub"]["data"] for _ in range(3)] == [0, 1, 2]
        assert (await client.wait_closed())[0] == 3503


# ---- walls --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["subscribe", "tick"])
async def test_a_bug_ends_the_connection_it_is_about_and_no_other(moment: str, error_log: ErrorLog) -> None:
    error_log.expect("a connection crashed")
    async with open_house(secured({"presence": True}, client=NO_PINGS)) as house:
        watcher = await house.connected(token=token("1", channels=["news"]))
        client = await house.connected(token=token("42"))
        if moment == "tick":
            await house.api("subscribe", user="42", channel="room")
            await client.push()
        presence: Any = house.server.node._presence
        add = presence.add

        async def broken(channel: str, client_id: str, info: Any) -> None:
            if channel == "room":
                raise KeyError("a bug of ours")
            await add(channel, client_id, info)

        presence.add = broken
        if moment == "subscribe":
            assert await house.api("subscribe", user="42", channel="room") == OK
        assert await client.wait_closed() == (3004, "internal server error")
        await trio.sleep(60)
        await publishes(house, "news", watcher, heard=True)
