"""Commands whose token is still being verified when something else happens: what finishes late does no harm."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, final

import attrs
import pytest
import trio

from broker.auth import ConnectToken, SubscriptionToken, TokenVerifier
from broker.eager import own_task
from tests.support.peers import WALL, House, open_house, secured, token

pytestmark = pytest.mark.virtual_time

NOW = int(WALL)


@final
class RemoteKeys:
    """A `TokenVerifier` whose keys are somewhere else: it waits while it is held."""

    def __init__(self, inner: TokenVerifier) -> None:
        self._inner = inner
        self._gates: defaultdict[str, list[trio.Event]] = defaultdict(list)
        self.held = False

    async def _wait(self, token: str) -> None:
        if self.held:
            gate = trio.Event()
            self._gates[token].append(gate)
            await own_task()
            await gate.wait()

    def let_go(self, token: str) -> None:
        """Let the first who waits with this token go."""
        self._gates[token].pop(0).set()

    async def verify_connection(self, token: str) -> ConnectToken:
        await self._wait(token)
        return await self._inner.verify_connection(token)

    async def verify_subscription(self, token: str) -> SubscriptionToken:
        await self._wait(token)
        return await self._inner.verify_subscription(token)


def remote_keys(house: House) -> RemoteKeys:
    rules = house.server.context.rules
    keys: Any = RemoteKeys(rules.connection_tokens)
    house.server.reload(attrs.evolve(rules, connection_tokens=keys, subscription_tokens=keys))
    return keys  # type: ignore[no-any-return]


async def test_a_client_that_leaves_before_its_token_is_verified() -> None:
    async with open_house(secured({"presence": True})) as house:
        keys = remote_keys(house)
        keys.held = True
        client = await house.client()
        mine = token("42", channels=["a"])
        await client.command(connect={"token": mine})
        await trio.testing.wait_all_tasks_blocked()
        await client.leave()
        keys.let_go(mine)
        await trio.testing.wait_all_tasks_blocked()
        assert house.server.node.registry.clients == {}
        assert (await house.api("presence_stats", channel="a"))["result"]["num_clients"] == 0


async def test_a_token_that_takes_too_long_to_verify_is_stale() -> None:
    async with open_house(secured()) as house:
        keys = remote_keys(house)
        keys.held = True
        client = await house.client()
        await client.command(connect={"token": token("42")})
        assert await client.wait_closed() == (3502, "stale")
        assert trio.current_time() == pytest.approx(10, abs=0.1)


async def test_commands_wait_for_the_connect_before_them() -> None:
    async with open_house(secured({"allow_subscribe_for_client": True})) as house:
        keys = remote_keys(house)
        keys.held = True
        client = await house.client()
        mine = token("42")
        await client.send({"id": 1, "connect": {"token": mine}}, {"id": 2, "subscribe": {"channel": "a"}})
        await client.send({"id": 3, "subscribe": {"channel": "b"}})
        await client.nothing()
        keys.let_go(mine)
        assert [(await client.next())["id"] for _ in range(3)] == [1, 2, 3]


async def test_two_connects_of_one_user_whose_limit_is_one() -> None:
    async with open_house(secured(client={"user_connection_limit": 1})) as house:
        keys = remote_keys(house)
        keys.held = True
        mine = token("42")
        first, second = await house.client(), await house.client()
        for client in (first, second):
            await client.command(connect={"token": mine})
        await trio.testing.wait_all_tasks_blocked()
        keys.let_go(mine)
        assert "connect" in await first.next()
        keys.let_go(mine)
        assert (await second.wait_closed())[0] == 3504


async def test_an_unsubscribe_by_the_api_waits_for_the_subscribe() -> None:
    async with open_house(secured()) as house:
        client = await house.connected(token=token("42"))
        keys = remote_keys(house)
        keys.held = True
        mine = token("42", channel="news")
        await client.command(subscribe={"channel": "news", "token": mine})
        await trio.testing.wait_all_tasks_blocked()
        await house.api("unsubscribe", user="42", channel="news")
        await house.api("subscribe", user="42", channel="news")  # the place is taken
        await client.nothing()
        keys.let_go(mine)
        assert (await client.next())["subscribe"] == {}
        assert (await client.push())["unsubscribe"]["code"] == 2000
        await client.nothing()


async def test_a_disconnect_does_not_wait() -> None:
    async with open_house(secured({"presence": True})) as house:
        client = await house.connected(token=token("42"))
        keys = remote_keys(house)
        keys.held = True
        await client.command(subscribe={"channel": "news", "token": token("42", channel="news")})
        await trio.testing.wait_all_tasks_blocked()
        await house.api("disconnect", user="42")
        assert (await client.wait_closed())[0] == 3503


async def test_a_sub_refresh_does_not_touch_what_came_after() -> None:
    """The subscription it was for has ended; the token says nothing about the one that the server made since."""
    async with open_house(secured(client={"presence_update_interval": "2s"})) as house:
        client = await house.connected(token=token("42"))
        news = token("42", channel="news", exp=WALL + 30)
        await client.ask(subscribe={"channel": "news", "token": news})
        keys = remote_keys(house)
        keys.held = True
        await client.command(sub_refresh={"channel": "news", "token": news})
        await trio.testing.wait_all_tasks_blocked()
        await house.api("unsubscribe", user="42", channel="news")
        await house.api("subscribe", user="42", channel="news")
        keys.let_go(news)
        assert "unsubscribe" in await client.push()
        assert "subscribe" in await client.push()
        assert (await client.next())["error"]["code"] == 103
        await client.nothing(100)  # it never expires


async def test_a_connection_that_expires_while_its_refresh_is_verified() -> None:
    async with open_house(secured(client={"expired_close_delay": "1s"})) as house:
        client = await house.connected(token=token("42", exp=WALL + 5))
        keys = remote_keys(house)
        keys.held = True
        fresh = token("42", exp=WALL + 90)
        await client.command(refresh={"token": fresh})
        assert (await client.wait_closed())[0] == 3005
        keys.let_go(fresh)


async def test_channels_of_a_refresh_are_compared_with_what_the_client_has_by_then() -> None:
    async with open_house(secured()) as house:
        client = await house.connected(token=token("42", exp=WALL + 30, channels=["a"]))
        keys = remote_keys(house)
        keys.held = True
        fresh = token("42", exp=WALL + 90, channels=["a"])
        await client.command(refresh={"token": fresh})
        await trio.testing.wait_all_tasks_blocked()
        await house.api("unsubscribe", user="42", channel="a")
        keys.let_go(fresh)
        assert "unsubscribe" in await client.push()
        assert (await client.wait_closed())[0] == 3010
