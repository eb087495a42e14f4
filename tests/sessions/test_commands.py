"""What holds for all commands, and what publish, presence and history check (client protocol §3.1, §3.9 to §3.11)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.peers import INSECURE, open_house, options, secured, token

pytestmark = pytest.mark.virtual_time

KEPT = {"history_size": 10, "history_ttl": "60s"}
CHANNEL_COMMANDS = ["subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history", "sub_refresh"]


@pytest.mark.parametrize("command", CHANNEL_COMMANDS)
@pytest.mark.parametrize("request_", [{}, {"channel": ""}, {"channel": None}])
async def test_a_command_without_its_channel_ends_the_connection(command: str, request_: dict[str, Any]) -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        await client.command(**{command: request_})
        assert await client.wait_closed() == (3501, "bad request")


@pytest.mark.parametrize("command", ["subscribe", "publish", "presence", "presence_stats", "history"])
async def test_a_name_is_checked_after_its_namespace_and_before_permissions(command: str) -> None:
    channel = {"namespaces": [{"name": "strict", "channel_regex": "^[a-z]+$"}]}
    async with open_house(secured() | {"channel": channel}) as house:
        client = await house.connected(token=token("42"))
        for name, code in (("nope:größe", 102), ("strict:A", 107), ("größe", 107)):
            reply = await client.ask(
                **{command: {"channel": name, "data": 1} if command == "publish" else {"channel": name}}
            )
            assert reply["error"]["code"] == code


async def test_the_first_member_of_a_command_counts() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        reply = await client.ask(unsubscribe={"channel": "a"}, subscribe={"channel": "a"}, publish={"channel": "a"})
        assert reply == {"id": 2, "subscribe": {}}


async def test_a_frame_of_very_many_commands_lets_others_live() -> None:
    async with open_house(options(KEPT)) as house:
        client, other = await house.connected(), await house.connected()
        await client.send(*({"id": n, "publish": {"channel": "chat", "data": n}} for n in range(1, 1001)))
        assert (await other.ask(subscribe={"channel": "chat"}))["subscribe"] == {}
        for n in range(1, 1001):
            assert await client.next() == {"id": n, "publish": {}}
        assert (await other.ask(history={"channel": "chat"}))["history"]["offset"] == 1000


async def test_what_came_before_the_end_is_answered() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        await client.send(
            {"id": 5, "publish": {"channel": "a", "data": 1}},
            {"id": 6, "publish": {"channel": ""}},
            {"id": 7, "publish": {"channel": "a", "data": 1}},
        )
        assert await client.next() == {"id": 5, "publish": {}}
        with pytest.raises(EOFError):
            await client.next()


# ---- publish ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fmt", "data", "taken"),
    [
        ("", {"data": {"a": 1}}, True),
        ("", {"data": "text"}, True),
        ("", {"data": 0}, True),
        ("", {"data": None}, True),
        ("", {}, False),
        ("json", {"data": [1]}, True),
        ("json_object", {"data": {"a": 1}}, True),
        ("json_object", {"data": [1]}, False),
        ("binary", {"data": 1}, True),
        ("binary", {}, True),
    ],
)
async def test_payloads_of_the_right_format(fmt: str, data: dict[str, Any], taken: bool) -> None:
    async with open_house(options({"publication_data_format": fmt})) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "chat"})
        await client.command(publish={"channel": "chat", **data})
        if taken:
            assert (await client.push())["pub"].get("data") == data.get("data")
            assert (await client.next())["publish"] == {}
        else:
            assert (await client.next())["error"]["code"] == 107
            await client.nothing()


async def test_a_publication_into_a_map_is_not_available() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        reply = await client.ask(publish={"channel": "chat", "data": 1, "type": 1, "key": "k"})
        assert reply["error"]["code"] == 108


async def test_the_publisher_is_named_as_the_channel_knows_it() -> None:
    rules = {"allow_publish_for_client": True}
    async with open_house(secured(rules)) as house:
        watcher = await house.connected(token=token("1", channels=["chat"]))
        inside = await house.connected(token=token("42", info=1, subs={"chat": {"info": 2}}))
        outside = await house.connected(token=token("7", info=3))
        for client in (inside, outside):
            await client.ask(publish={"channel": "chat", "data": 0})
        infos = [(await watcher.push())["pub"]["info"] for _ in range(2)]
        assert infos == [
            {"user": "42", "client": inside.hello["client"], "conn_info": 1, "chan_info": 2},
            {"user": "7", "client": outside.hello["client"], "conn_info": 3},
        ]


@pytest.mark.parametrize("what", ["publish", "presence", "history"])
@pytest.mark.parametrize("user", ["42", ""])
@pytest.mark.parametrize("subscribed", [True, False])
@pytest.mark.parametrize("rule", ["client", "subscriber", "none"])
@pytest.mark.parametrize("anonymous", [True, False])
async def test_who_may(what: str, user: str, subscribed: bool, rule: str, anonymous: bool) -> None:
    rules: dict[str, Any] = {**KEPT, "presence": True, f"allow_{what}_for_anonymous": anonymous}
    if rule != "none":
        rules[f"allow_{what}_for_{rule}"] = True
    async with open_house(secured(rules)) as house:
        client = await house.connected(token=token(user, channels=["chat"] if subscribed else []))
        reply = await client.ask(**{what: {"channel": "chat", "data": 1} if what == "publish" else {"channel": "chat"}})
        if "push" in reply:
            reply = await client.next()
        allowed = (rule == "client" or (rule == "subscriber" and subscribed)) and (bool(user) or anonymous)
        assert (what in reply) is allowed
        assert allowed or reply["error"]["code"] == 103


# ---- history ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "offsets"),
    [
        ({}, []),
        ({"limit": 0}, []),
        ({"limit": 2}, [1, 2]),
        ({"limit": -1}, [1, 2, 3, 4]),
        ({"limit": 100}, [1, 2, 3, 4]),
        ({"limit": 2, "reverse": True}, [6, 5]),
        ({"limit": 10, "since": {"offset": 3}}, [4, 5, 6]),
        ({"limit": 10, "since": {"offset": 3}, "reverse": True}, [2, 1]),
        ({"limit": 10, "since": {"offset": 6}}, []),
        ({"limit": 10, "since": {"offset": 2**63 - 1}}, []),
    ],
)
async def test_pages_of_a_history(asked: dict[str, Any], offsets: list[int]) -> None:
    async with open_house(options(KEPT, client={"history_max_publication_limit": 4})) as house:
        for n in range(1, 7):
            epoch = (await house.api("publish", channel="chat", data=n))["result"]["epoch"]
        client = await house.connected()
        assert (await client.ask(history={"channel": "chat", **asked}))["history"] == {
            "publications": [{"data": n, "offset": n} for n in offsets],
            "epoch": epoch,
            "offset": 6,
        }


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"since": {"offset": 0}, "reverse": True}, 107),
        ({"since": {"offset": 1, "epoch": "other"}}, 112),
        ({"since": {"epoch": "other"}, "limit": 5}, 112),
    ],
)
async def test_positions_that_cannot_be(asked: dict[str, Any], code: int) -> None:
    async with open_house(options(KEPT)) as house:
        await house.api("publish", channel="chat", data=1)
        client = await house.connected()
        assert (await client.ask(history={"channel": "chat", **asked}))["error"]["code"] == code
