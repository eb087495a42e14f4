"""The connect command: who comes in, with what, and in which order it is checked (client protocol §3.2)."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from broker.auth import make_token
from tests.support.peers import WALL, House, RawClient, open_house, options, secured, token

pytestmark = pytest.mark.virtual_time

YEAR = 365 * 24 * 3600


async def refused(client: RawClient, **connect: Any) -> int:
    """The code of the error or of the close frame that a connect gets."""
    await client.command(connect=connect)
    try:
        return int((await client.next())["error"]["code"])
    except EOFError:
        assert client.closed is not None
        return client.closed[0]


# ---- who ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, 3501),
        ({"token": ""}, 3501),
        ({"token": "nonsense"}, 3500),
        ({"token": make_token({"sub": "42"}, "another secret")}, 3500),
        ({"token": token("42", channel="news")}, 3500),
        ({"token": token("42", exp=WALL - 1)}, 109),
        ({"token": token("42", nbf=WALL + 60)}, 109),
        ({"token": token("42", exp=WALL + 60, expire_at=int(WALL) - 1)}, 110),
        ({"token": token("42", subs={"nope:x": {}})}, 102),
        ({"token": token("42", channels=["nope:x"])}, 102),
        ({"token": token("42"), "subs": {"nope:x": {}}}, 3501),
    ],
)
async def test_refusals(given: dict[str, Any], code: int) -> None:
    async with open_house(secured()) as house:
        assert await refused(await house.client(), **given) == code


async def test_an_anonymous_token_is_welcome_unless_it_is_not() -> None:
    async with open_house(secured()) as house:
        await house.connected(token=token())
    async with open_house(secured(client={"disallow_anonymous_connection_tokens": True})) as house:
        assert await refused(await house.client(), token=token()) == 3507
        assert await refused(await house.client(), token=token(exp=WALL - 1)) == 109
        await house.connected(token=token("42"))


async def test_an_invalid_token_is_refused_where_none_is_needed() -> None:
    for allowing in ({"insecure": True}, {"allow_anonymous_connect_without_token": True}):
        async with open_house(secured(client=allowing)) as house:
            await house.connected()
            assert await refused(await house.client(), token="nonsense") == 3500
            assert await refused(await house.client(), token=token("42", exp=WALL - 1)) == 109


async def me(house: House, client: RawClient) -> dict[str, Any]:
    """How others see this client, who needs a subscription to `room`."""
    info = (await house.api("presence", channel="room"))["result"]["presence"][client.hello["client"]]
    del info["client"]
    return info  # type: ignore[no-any-return]


IN_ROOM = {"presence": True, "allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}


async def test_what_others_see_comes_from_the_token() -> None:
    async with open_house(secured(IN_ROOM)) as house:
        client = await house.connected(token=token("42", info={"name": "Ann"}))
        await client.ask(subscribe={"channel": "room"})
        assert await me(house, client) == {"user": "42", "conn_info": {"name": "Ann"}}
        binary = await house.connected(token=token("7", info={"ignored": True}, b64info="eyJhIjoxfQ=="))
        await binary.ask(subscribe={"channel": "room"})
        assert await me(house, binary) == {"user": "7", "conn_info": {"a": 1}}


@pytest.mark.parametrize(
    ("client_options", "given", "user"),
    [
        ({}, {}, "header"),
        ({}, {"token": token("42")}, "42"),
        ({"allow_anonymous_connect_without_token": True}, {}, ""),
        ({"insecure": True}, {}, ""),
    ],
)
async def test_a_trusted_header_names_the_user_only_where_nothing_else_does(
    client_options: dict[str, Any], given: dict[str, Any], user: str
) -> None:
    client_options = {"user_id_http_header": "X-User-Id", **client_options}
    async with open_house(secured(IN_ROOM, client=client_options)) as house:
        client = await house.connected(with_headers="X-User-Id: header\r\n", **given)
        await client.ask(subscribe={"channel": "room"})
        assert await me(house, client) == {"user": user}
        if user == "header":
            assert await refused(await house.client()) == 3501


async def test_a_user_of_a_header_gets_no_server_side_subscriptions() -> None:
    client_options = {"user_id_http_header": "x-user", "subscribe_to_user_personal_channel": {"enabled": True}}
    async with open_house(secured(IN_ROOM, client=client_options)) as house:
        client = await house.connected(with_headers="X-User: 42\r\n", subs={"room": {}, "nope:x": {}})
        assert "subs" not in client.hello


# ---- how long -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "seconds"),
    [
        ({}, 0),
        ({"exp": WALL + 90}, 90),
        ({"exp": WALL + 90, "expire_at": int(WALL) + 40}, 40),
        ({"exp": WALL + 90, "expire_at": 0}, 0),
        ({"exp": WALL + 90, "expire_at": -5}, 0),
        ({"expire_at": int(WALL) + 7}, 7),
        ({"exp": WALL + 10 * YEAR}, YEAR),
    ],
)
async def test_a_connection_lives_as_long_as_its_token_says(claims: dict[str, Any], seconds: int) -> None:
    async with open_house(secured()) as house:
        hello = (await house.connected(token=token("42", **claims))).hello
        assert (hello.get("expires", False), hello.get("ttl", 0)) == (bool(seconds), seconds)
    async with open_house(options(client={"token": {"hmac_secret_key": "secret of the tests"}})) as house:
        assert "expires" not in (await house.connected(token=token("42", **claims))).hello  # insecure


async def test_seconds_left_are_counted_in_whole_unix_seconds() -> None:
    async with open_house(secured()) as house:
        await trio.sleep(0.6)
        assert (await house.connected(token=token("42", exp=WALL + 90))).hello["ttl"] == 90


# ---- limits -------------------------------------------------------------------------------------------------------


async def test_one_user_may_have_so_many_connections() -> None:
    async with open_house(secured(client={"user_connection_limit": 2})) as house:
        first = await house.connected(token=token("42"))
        await house.connected(token=token("42"))
        assert await refused(await house.client(), token=token("42")) == 3504
        await house.connected(token=token("7"))
        for _ in range(3):
            await house.connected(token=token())  # nobody in particular
        await first.leave()
        await trio.testing.wait_all_tasks_blocked()
        await house.connected(token=token("42"))


async def test_more_server_side_subscriptions_than_a_client_may_have() -> None:
    async with open_house(secured(client={"channel_limit": 2})) as house:
        assert await refused(await house.client(), token=token("42", channels=["a", "b", "c"])) == 3505
        client = await house.connected(token=token("42", channels=["a", "b"]))
        assert set(client.hello["subs"]) == {"a", "b"}
        assert (await client.ask(subscribe={"channel": "c"}))["error"]["code"] == 106


async def test_more_subscriptions_than_a_client_may_have_are_not_looked_at() -> None:
    async with open_house(options(client={"channel_limit": 2})) as house:
        subs = {channel: {} for channel in ("a", "b", "c", "d", "unknown:e")}
        assert await refused(await house.client(), subs=subs) == 3505
        assert await refused(await house.client(), subs={"unknown:e": {}, **subs}) == 3501
        assert set((await house.connected(subs={"a": {}, "b": {}})).hello["subs"]) == {"a", "b"}


async def test_limits_are_checked_in_order_and_expiry_comes_last() -> None:
    limits = {"channel_limit": 1, "user_connection_limit": 1}
    async with open_house(secured(client=limits)) as house:
        await house.connected(token=token("42"))
        past = int(WALL) - 10
        for claims, code in (
            ({"channels": ["a", "b"], "expire_at": past}, 3505),
            ({"channels": ["a"], "expire_at": past}, 3504),
        ):
            assert await refused(await house.client(), token=token("42", **claims)) == code
        assert await refused(await house.client(), token=token("7", channels=["a"], expire_at=past)) == 110


# ---- the answer ---------------------------------------------------------------------------------------------------


async def test_the_time_of_the_server() -> None:
    async with open_house(options(client={"connect_include_server_time": True})) as house:
        await trio.sleep(1.5)
        assert (await house.connected()).hello["time"] == int((WALL + 1.5) * 1000)
    async with open_house(options()) as house:
        assert "time" not in (await house.connected()).hello


async def test_commands_of_the_same_frame_follow_the_connect() -> None:
    async with open_house(options()) as house:
        client = await house.client()
        await client.send({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "chat"}})
        assert "connect" in await client.next()
        assert await client.next() == {"id": 2, "subscribe": {}}


async def test_a_connect_that_is_answered_with_an_error_is_final() -> None:
    async with open_house(secured()) as house:
        client = await house.client()
        await client.send(
            {"id": 1, "connect": {"token": token("42", exp=WALL - 1)}}, {"id": 2, "subscribe": {"channel": "chat"}}
        )
        assert await client.next() == {"id": 1, "error": {"code": 109, "message": "token expired"}}
        await client.send({"id": 3, "connect": {"token": token("42")}})
        started = trio.current_time()
        assert await client.wait_closed() == (1006, "")
        assert trio.current_time() - started == pytest.approx(5, abs=0.1)


async def test_who_leaves_after_a_refusal_is_not_waited_for() -> None:
    async with open_house(secured()) as house:
        client = await house.client()
        assert await refused(client, token=token("42", exp=WALL - 1)) == 109
        await client.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert house.server.doors.connections == set()


async def test_a_client_that_says_nothing_is_stale() -> None:
    async with open_house(options(client={"stale_close_delay": "3s"})) as house:
        client = await house.client()
        started = trio.current_time()
        assert await client.wait_closed() == (3502, "stale")
        assert trio.current_time() - started == pytest.approx(3, abs=0.1)
