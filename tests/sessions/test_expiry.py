"""Expiry of connections and subscriptions, and what pushes it back (client protocol §3.4, §3.12)."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from broker.auth import make_token
from tests.support.peers import NO_PINGS, SECRET, WALL, House, RawClient, open_house, secured, token

pytestmark = pytest.mark.virtual_time

NOW = int(WALL)
ALLOWED = {"presence": True, "allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}
QUICK = {"presence_update_interval": "2s"}
"""Subscriptions are looked at on every tick."""


async def closes(client: RawClient, code: int, at: float, late: float = 0.1) -> None:
    """The connection is closed with `code` at this moment of virtual time, or a little later."""
    assert (await client.wait_closed())[0] == code
    assert at <= trio.current_time() <= at + late


# ---- connections --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("client_options", "at"), [({}, 55), ({"expired_close_delay": "3s"}, 33)])
async def test_a_connection_that_is_not_refreshed_is_closed_after_the_delay(
    client_options: dict[str, str], at: int
) -> None:
    async with open_house(secured(client=client_options)) as house:
        await closes(await house.connected(token=token("42", exp=WALL + 30)), 3005, at)


async def test_a_connection_without_expiry_stays() -> None:
    async with open_house(secured()) as house:
        client = await house.connected(token=token("42", exp=WALL + 30, expire_at=0))
        await client.nothing(300)


async def test_a_refresh_pushes_the_expiry_back() -> None:
    async with open_house(secured(ALLOWED)) as house:
        client = await house.connected(token=token("42", exp=WALL + 30))
        await client.nothing(20)
        assert await client.ask(refresh={"token": token("42", exp=WALL + 100, info={"new": True})}) == {
            "id": 2,
            "refresh": {"expires": True, "ttl": 80},
        }
        await client.ask(subscribe={"channel": "room"})
        presence = (await house.api("presence", channel="room"))["result"]["presence"]
        assert presence[client.hello["client"]]["conn_info"] == {"new": True}
        await client.ask(refresh={"token": token("42", exp=WALL + 100)})  # says nothing about who that is
        await client.ask(unsubscribe={"channel": "room"})
        await client.ask(subscribe={"channel": "room"})
        presence = (await house.api("presence", channel="room"))["result"]["presence"]
        assert presence[client.hello["client"]]["conn_info"] == {"new": True}
        await closes(client, 3005, 125)


async def test_a_refresh_with_a_token_that_has_no_expiry_changes_nothing() -> None:
    async with open_house(secured()) as house:
        client = await house.connected(token=token("42", exp=WALL + 30))
        assert (await client.ask(refresh={"token": token("42")}))["refresh"] == {}
        await closes(client, 3005, 55)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("", 3501),
        ("nonsense", 3500),
        (make_token({"sub": "42"}, "another secret"), 3500),
        (token("7", exp=WALL + 100), 3500),
        (token("42", channel="news"), 3500),
        (token("42", exp=WALL - 1), 3005),
        (token("42", nbf=WALL + 60), 3005),
    ],
)
async def test_a_refresh_that_ends_the_connection(given: str, code: int) -> None:
    async with open_house(secured()) as house:
        client = await house.connected(token=token("42", exp=WALL + 30))
        await client.command(refresh={"token": given})
        assert (await client.wait_closed())[0] == code


async def test_a_refresh_that_came_too_late_leaves_the_old_deadline() -> None:
    async with open_house(secured()) as house:
        client = await house.connected(token=token("42", exp=WALL + 30))
        late = token("42", exp=WALL + 60, expire_at=NOW - 1)
        assert (await client.ask(refresh={"token": late}))["error"] == {"code": 110, "message": "expired"}
        await client.nothing(50)
        await closes(client, 3005, 55)


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ({"channels": ["a", "b"]}, {"channels": ["a", "b"]}, True),
        ({"channels": ["a", "b"]}, {"subs": {"a": {}, "b": {}}}, True),
        ({"channels": ["a", "b"]}, {"channels": ["a"]}, False),
        ({"channels": ["a"]}, {"channels": ["a", "b"]}, False),
        ({}, {"channels": ["a"]}, False),
        ({"channels": ["a"]}, {"channels": ["a", "mine"]}, True),
        ({"channels": ["a"]}, {"channels": ["a", "#42"]}, True),
        ({"channels": ["a", "#42"]}, {"channels": ["a"]}, True),
    ],
)
async def test_a_refresh_must_name_the_same_channels(before: Any, after: Any, same: bool) -> None:
    """`mine` the client subscribed to itself, `#42` is its personal channel."""
    personal = {"subscribe_to_user_personal_channel": {"enabled": True}}
    async with open_house(secured(ALLOWED, client=personal)) as house:
        client = await house.connected(token=token("42", exp=WALL + 30, **before))
        await client.ask(subscribe={"channel": "mine"})
        await client.command(refresh={"token": token("42", exp=WALL + 60, **after)})
        if same:
            assert (await client.next())["refresh"] == {"expires": True, "ttl": 60}
        else:
            assert await client.wait_closed() == (3010, "insufficient state")


async def test_a_channel_that_the_client_left_must_not_come_back_by_refresh() -> None:
    async with open_house(secured()) as house:
        client = await house.connected(token=token("42", exp=WALL + 30, channels=["a", "b"]))
        await client.ask(unsubscribe={"channel": "b"})
        assert "refresh" in await client.ask(refresh={"token": token("42", exp=WALL + 60, channels=["a"])})
        await client.command(refresh={"token": token("42", exp=WALL + 60, channels=["a", "b"])})
        assert (await client.wait_closed())[0] == 3010


# ---- by the API ---------------------------------------------------------------------------------------------------


async def test_the_api_refreshes_a_connection() -> None:
    async with open_house(secured(ALLOWED)) as house:
        client = await house.connected(token=token("42", exp=WALL + 30))
        other = await house.connected(token=token("7", exp=WALL + 30))
        assert await house.api("refresh", user="42", expire_at=NOW + 100, info={"a": 1}) == {"result": {}}
        assert await client.push() == {"refresh": {"expires": True, "ttl": 100}}
        await client.ask(subscribe={"channel": "room"})
        presence = (await house.api("presence", channel="room"))["result"]["presence"]
        assert presence[client.hello["client"]]["conn_info"] == {"a": 1}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(closes, other, 3005, 55)
            nursery.start_soon(closes, client, 3005, 125)


async def test_the_api_may_bring_the_end_nearer() -> None:
    async with open_house(secured(client={"expired_close_delay": "1s"})) as house:
        client = await house.connected(token=token("42"))
        await house.api("refresh", user="42", expire_at=NOW + 2)
        await client.push()
        await closes(client, 3005, 3)


async def test_a_refresh_may_bring_the_end_nearer() -> None:
    async with open_house(secured(client={"expired_close_delay": "1s"})) as house:
        client = await house.connected(token=token("42", exp=WALL + 60))
        assert (await client.ask(refresh={"token": token("42", exp=WALL + 2)}))["refresh"]["ttl"] == 2
        await closes(client, 3005, 3)


@pytest.mark.parametrize("expire_at", [{}, {"expire_at": 0}, {"expire_at": -1}])
async def test_the_api_takes_the_expiry_away(expire_at: dict[str, int]) -> None:
    async with open_house(secured()) as house:
        client = await house.connected(token=token("42", exp=WALL + 30))
        await house.api("refresh", user="42", **expire_at)
        assert await client.push() == {"refresh": {}}
        await client.nothing(100)


@pytest.mark.parametrize("how", [{"expired": True}, {"expire_at": NOW}, {"expired": True, "expire_at": NOW + 90}])
async def test_the_api_lets_a_connection_expire(how: dict[str, Any]) -> None:
    async with open_house(secured()) as house:
        client = await house.connected(token=token("42"))
        await house.api("refresh", user="42", **how)
        assert await client.wait_closed() == (3005, "connection expired")


async def test_a_refresh_by_the_api_may_be_for_one_client() -> None:
    async with open_house(secured()) as house:
        first, second = [await house.connected(token=token("42")) for _ in range(2)]
        await house.api("refresh", user="42", client=first.hello["client"], expire_at=NOW + 90)
        assert (await first.push())["refresh"]["ttl"] == 90
        await house.api("refresh", user="42", session="unknown", expired=True)
        await second.nothing()


# ---- subscriptions ------------------------------------------------------------------------------------------------


async def subscribed(house: House, **claims: Any) -> RawClient:
    """A client that subscribed to `news` with a token."""
    client = await house.connected(token=token("42"))
    client.hello |= (await client.ask(subscribe={"channel": "news", "token": token("42", channel="news", **claims)}))[
        "subscribe"
    ]
    return client


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"exp": WALL + 30}, {"expires": True, "ttl": 30}),
        ({"exp": WALL + 30, "expire_at": NOW + 10}, {"expires": True, "ttl": 10}),
        ({"exp": WALL + 30, "expire_at": 0}, {}),
        ({}, {}),
        ({"expire_at": NOW + 2**40}, {"expires": True, "ttl": 365 * 24 * 3600}),
    ],
)
async def test_a_subscription_lives_as_long_as_its_token_says(claims: Any, expected: Any) -> None:
    async with open_house(secured()) as house:
        client = await subscribed(house, **claims)
        assert {name: client.hello[name] for name in ("expires", "ttl") if name in client.hello} == expected


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"exp": WALL - 1}, 109),
        ({"nbf": WALL + 60}, 109),
        ({"exp": WALL + 30, "expire_at": NOW}, 110),
    ],
)
async def test_a_token_that_is_too_old_to_subscribe(claims: Any, code: int) -> None:
    async with open_house(secured()) as house:
        client = await house.connected(token=token("42"))
        old = token("42", channel="news", **claims)
        assert (await client.ask(subscribe={"channel": "news", "token": old}))["error"]["code"] == code
        fresh = token("42", channel="news")
        assert (await client.ask(subscribe={"channel": "news", "token": fresh}))["subscribe"] == {}


@pytest.mark.parametrize(
    ("claims", "given", "answer"),
    [
        ({}, "nonsense", 103),
        ({}, make_token({"sub": "42", "channel": "news"}, "another secret"), 103),
        ({}, token("42"), 103),
        ({"channel": "other"}, None, 3500),
        ({"sub": "7"}, None, 3500),
        ({"sub": ""}, None, 3500),
        ({"client": "another"}, None, 3500),
    ],
)
async def test_a_token_that_is_wrong_or_for_something_else(
    claims: dict[str, Any], given: str | None, answer: int
) -> None:
    async with open_house(secured()) as house:
        client = await house.connected(token=token("42"))
        if given is None:
            given = make_token({"sub": "42", "channel": "news", **claims}, SECRET)
        await client.command(subscribe={"channel": "news", "token": given})
        if answer >= 3000:
            assert (await client.wait_closed())[0] == answer
        else:
            assert (await client.next())["error"]["code"] == answer


async def test_a_subscription_that_is_not_refreshed_ends_after_the_delay() -> None:
    rules = {"presence": True, "join_leave": True, "force_push_join_leave": True}
    async with open_house(secured(rules, client={**QUICK, **NO_PINGS, "expired_sub_close_delay": "5s"})) as house:
        watcher = await house.connected(token=token("1", channels=["news"]))
        await watcher.push()
        client = await subscribed(house, exp=WALL + 30)
        assert [(await each.push())["join"]["info"]["user"] for each in (watcher, client)] == ["42", "42"]
        await client.nothing(34.5)
        expected = {"channel": "news", "unsubscribe": {"code": 2501, "reason": "subscription expired"}}
        assert await client.push() == expected
        assert trio.current_time() <= 38.1
        assert (await watcher.push())["leave"]["info"]["user"] == "42"
        assert (await house.api("presence_stats", channel="news"))["result"]["num_clients"] == 1
        assert (await client.ask(subscribe={"channel": "news", "token": token("42", channel="news")}))[
            "subscribe"
        ] == {}


async def test_a_server_side_subscription_that_expires_ends_the_connection() -> None:
    async with open_house(secured(client=QUICK)) as house:
        client = await house.connected(token=token("42"))
        await house.api("subscribe", user="42", channel="news", expire_at=NOW + 30)
        assert await client.push() == {"channel": "news", "subscribe": {}}
        await closes(client, 3006, 55, late=4)


async def test_a_sub_refresh_pushes_the_expiry_back() -> None:
    async with open_house(secured({"presence": True}, client={**QUICK, "expired_sub_close_delay": "5s"})) as house:
        client = await subscribed(house, exp=WALL + 30, info={"v": 1})
        await client.nothing(20)
        refreshed = token("42", channel="news", exp=WALL + 60, info={"v": 2})
        assert (await client.ask(sub_refresh={"channel": "news", "token": refreshed}))["sub_refresh"] == {
            "expires": True,
            "ttl": 40,
        }
        await client.nothing(10)
        presence = (await house.api("presence", channel="news"))["result"]["presence"]
        assert presence[client.hello["client"]]["chan_info"] == {"v": 2}
        await client.nothing(30)
        assert (await client.push())["unsubscribe"]["code"] == 2501


async def test_a_sub_refresh_may_take_the_expiry_away() -> None:
    async with open_house(secured(client=QUICK)) as house:
        client = await subscribed(house, exp=WALL + 30)
        unlimited = token("42", channel="news")
        assert (await client.ask(sub_refresh={"channel": "news", "token": unlimited}))["sub_refresh"] == {}
        await client.nothing(120)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("", 107),
        ("nonsense", 3500),
        (make_token({"sub": "42", "channel": "news"}, "another secret"), 3500),
        (token("42", channel="other"), 3500),
        (token("7", channel="news"), 3500),
        (token("42", channel="news", client="another"), 3500),
        (token("42"), 3500),
        (token("42", channel="news", exp=WALL - 1), 109),
        (token("42", channel="news", expire_at=NOW - 1), 110),
    ],
)
async def test_a_sub_refresh_that_fails(given: str, code: int) -> None:
    async with open_house(secured(client={**QUICK, "expired_sub_close_delay": "5s"})) as house:
        client = await subscribed(house, exp=WALL + 30)
        await client.command(sub_refresh={"channel": "news", "token": given})
        if code >= 3000:
            assert (await client.wait_closed())[0] == code
            return
        assert (await client.next())["error"]["code"] == code
        await client.nothing(34)
        assert (await client.push())["unsubscribe"]["code"] == 2501


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"channel": ""}, 3501),
        ({"channel": "never", "token": token("42", channel="never")}, 103),
        ({"channel": "served", "token": token("42", channel="served")}, 3501),
    ],
)
async def test_a_sub_refresh_for_what_cannot_be_refreshed(command: dict[str, str], code: int) -> None:
    async with open_house(secured()) as house:
        client = await house.connected(token=token("42", channels=["served"]))
        await client.command(sub_refresh=command)
        if code >= 3000:
            assert (await client.wait_closed())[0] == code
        else:
            assert (await client.next())["error"]["code"] == code


async def test_subscription_tokens_may_have_a_key_of_their_own() -> None:
    own = {"subscription_token": {"enabled": True, "hmac_secret_key": "of subscriptions"}}
    async with open_house(secured(client=own)) as house:
        client = await house.connected(token=token("42"))
        old = token("42", channel="news")
        assert (await client.ask(subscribe={"channel": "news", "token": old}))["error"]["code"] == 103
        good = make_token({"sub": "42", "channel": "news", "exp": WALL + 30}, "of subscriptions")
        assert (await client.ask(subscribe={"channel": "news", "token": good}))["subscribe"]["ttl"] == 30
        assert (await client.ask(sub_refresh={"channel": "news", "token": good}))["sub_refresh"]["ttl"] == 30
        await client.command(sub_refresh={"channel": "news", "token": old})
        assert (await client.wait_closed())[0] == 3500


async def test_what_a_subscription_token_gives() -> None:
    rules = {"history_size": 5, "history_ttl": "60s", "presence": True, "join_leave": True}
    async with open_house(secured(rules)) as house:
        client = await house.connected(token=token("42"))
        override = {"force_recovery": {"value": True}, "force_push_join_leave": {"value": True}}
        good = token("42", channel="$news", override=override, data={"d": 1}, b64info="eyJpIjoxfQ==")
        result = (await client.ask(subscribe={"channel": "$news", "token": good}))["subscribe"]
        assert result == {"recoverable": True, "positioned": True, "epoch": result["epoch"], "data": {"d": 1}}
        assert (await client.push())["join"]["info"]["chan_info"] == {"i": 1}
        none = token("42", channel="news", override={"presence": {"value": False}, "join_leave": {"value": False}})
        await client.ask(subscribe={"channel": "news", "token": none})
        assert (await house.api("presence_stats", channel="news"))["result"]["num_clients"] == 0
        await client.nothing()
