"""New rules for clients that are connected already (server API §1.4)."""

from __future__ import annotations

from typing import Any

import pytest

from broker.auth import make_token
from broker.rules import make_rules
from tests.support.peers import House, WallClock, configured, open_house, options, secured, token

pytestmark = pytest.mark.virtual_time


def reload(house: House, config: dict[str, Any]) -> None:
    house.server.reload(make_rules(configured(config), house.server.node.counters, house.server.stage, WallClock()))


ALLOWED = {
    "presence": True,
    "history_size": 5,
    "history_ttl": "60s",
    **{f"allow_{what}_for_client": True for what in ("subscribe", "publish", "presence", "history")},
}


async def test_permissions_change_under_a_connected_client() -> None:
    async with open_house(secured(ALLOWED)) as house:
        client = await house.connected(token=token("42"))
        asked: dict[str, dict[str, Any]] = {
            "subscribe": {"channel": "new"},
            "publish": {"channel": "chat", "data": 1},
            "presence": {"channel": "chat"},
            "presence_stats": {"channel": "chat"},
            "history": {"channel": "chat"},
        }
        for command, request in asked.items():
            assert command in await client.ask(**{command: request})
        await client.ask(unsubscribe={"channel": "new"})
        for taken in ("subscribe", "publish", "presence", "history"):
            reload(house, secured({**ALLOWED, f"allow_{taken}_for_client": False}))
            for command, request in asked.items():
                reply = await client.ask(**{command: request})
                if command.partition("_")[0] == taken:
                    assert reply["error"]["code"] == 103
                else:
                    assert command in reply
            await client.ask(unsubscribe={"channel": "new"})
        reload(house, secured({**ALLOWED, "presence": False, "history_size": 0, "history_ttl": "0s"}))
        for command in ("presence", "presence_stats", "history"):
            assert (await client.ask(**{command: asked[command]}))["error"]["code"] == 108
        reload(house, secured(ALLOWED))
        for command, request in asked.items():
            assert command in await client.ask(**{command: request})


async def test_a_namespace_that_goes_takes_nobody_with_it() -> None:
    before = {"namespaces": [{"name": "old", "presence": True, "join_leave": True}]}
    async with open_house(options(client={"presence_update_interval": "5s"}) | {"channel": before}) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "old:x"})
        reload(house, options())
        assert (await client.ask(subscribe={"channel": "old:y"}))["error"]["code"] == 102
        assert (await client.ask(publish={"channel": "old:x", "data": 1}))["error"]["code"] == 102
        assert (await house.api("publish", channel="old:x", data=1))["error"]["code"] == 102
        await client.nothing(20)
        assert (await client.ask(unsubscribe={"channel": "old:x"}))["unsubscribe"] == {}
        reload(house, options() | {"channel": {"namespaces": [{"name": "new"}]}})
        assert (await client.ask(subscribe={"channel": "new:x"}))["subscribe"] == {}
        assert await house.api("publish", channel="new:x", data=1) == {"result": {}}
        assert (await client.push())["channel"] == "new:x"


async def test_channels_get_new_options_for_what_comes_next() -> None:
    async with open_house(options()) as house:
        client = await house.connected()
        assert (await client.ask(subscribe={"channel": "a"}))["subscribe"] == {}
        reload(house, options({"history_size": 5, "history_ttl": "60s", "force_recovery": True}))
        assert (await client.ask(subscribe={"channel": "b"}))["subscribe"]["recoverable"]
        assert (await house.api("publish", channel="a", data=1))["result"]["offset"] == 1
        assert (await client.push())["pub"]["offset"] == 1  # which means nothing to a subscription without position
        assert (await client.ask(publish={"channel": "b", "data": 1}))["publish"] == {}


async def test_keys_of_tokens_change() -> None:
    async with open_house(secured()) as house:
        client = await house.connected(token=token("42", exp=1_700_000_060))
        new = {"token": {"hmac_secret_key": "new"}}
        reload(house, secured(client=new))
        fresh = make_token({"sub": "42", "exp": 1_700_000_090}, "new")
        assert (await client.ask(refresh={"token": fresh}))["refresh"]["ttl"] == 90
        stranger = await house.client()
        await stranger.command(connect={"token": token("42")})
        assert (await stranger.wait_closed())[0] == 3500
        await client.command(refresh={"token": token("42", exp=1_700_000_090)})
        assert (await client.wait_closed())[0] == 3500


async def test_limits_change() -> None:
    async with open_house(options(client={"channel_limit": 1})) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "a"})
        assert (await client.ask(subscribe={"channel": "b"}))["error"]["code"] == 106
        reload(house, options(client={"channel_limit": 2}))
        assert (await client.ask(subscribe={"channel": "b"}))["subscribe"] == {}
        reload(house, options(client={"channel_limit": 1}))
        for channel in ("a", "b"):
            await house.api("publish", channel=channel, data=1)
            assert (await client.push())["channel"] == channel
