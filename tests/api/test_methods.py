"""What every method of the server API does and answers (server API §2.3)."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.support.api import ALL, BAD, INTERNAL, NOT_FOUND, OK, UNAVAILABLE, UNKNOWN, UNRECOVERABLE, post
from tests.support.peers import open_house, options, secured, token

pytestmark = pytest.mark.virtual_time


# ---- what every method asks for -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "params", "answer"),
    [
        ("publish", {}, BAD),
        ("publish", {"channel": "", "data": 1}, BAD),
        ("publish", {"channel": None, "data": 1}, BAD),
        ("publish", {"channel": "x"}, BAD),
        ("publish", {"channel": "nope:x", "data": 1}, UNKNOWN),
        ("publish", {"channel": "x", "b64data": "not base64!"}, BAD),
        ("publish", {"channel": "größe", "data": 1}, OK),  # names are checked for clients only
        ("publish", {"channel": "$x", "data": 1}, OK),
        ("publish", {"channel": "x" * 300, "data": 1}, OK),
        ("publish", {"channel": "x", "data": None}, OK),
        ("publish", {"channel": "x", "b64data": "AAEC"}, OK),
        ("publish", {"channel": "json:x", "b64data": "AAEC"}, BAD),
        ("publish", {"channel": "json:x", "b64data": "MQ=="}, OK),
        ("publish", {"channel": "object:x", "data": [1]}, BAD),
        ("publish", {"channel": "object:x", "data": {"a": 1}}, OK),
        ("publish", {"channel": "binary:x"}, OK),
        ("broadcast", {}, BAD),
        ("broadcast", {"channels": [], "data": 1}, BAD),
        ("broadcast", {"channels": ["x"], "b64data": "not base64!"}, BAD),
        ("subscribe", {"user": "42"}, BAD),
        ("subscribe", {"user": "42", "channel": "nope:x"}, UNKNOWN),
        ("subscribe", {"user": "42", "channel": "x", "b64info": "!"}, BAD),
        ("subscribe", {"user": "42", "channel": "x", "b64data": "!"}, BAD),
        ("subscribe", {"user": "42", "channel": "x"}, OK),
        ("unsubscribe", {"user": "42", "channel": "nope:x"}, UNKNOWN),
        ("unsubscribe", {"user": "42"}, OK),
        ("disconnect", {"user": "42"}, OK),
        ("disconnect", {"user": "42", "disconnect": {}}, BAD),
        ("refresh", {"user": "42"}, OK),
        ("presence", {}, BAD),
        ("presence", {"channel": "nope:x"}, UNKNOWN),
        ("presence", {"channel": "x"}, UNAVAILABLE),
        ("presence", {"channel": "seen:x"}, {"result": {"presence": {}}}),
        ("presence_stats", {}, BAD),
        ("presence_stats", {"channel": "nope:x"}, UNKNOWN),
        ("presence_stats", {"channel": "x"}, UNAVAILABLE),
        ("presence_stats", {"channel": "seen:x"}, {"result": {"num_clients": 0, "num_users": 0}}),
        ("history", {}, BAD),
        ("history", {"channel": "nope:x"}, UNKNOWN),
        ("history", {"channel": "x"}, UNAVAILABLE),
        ("history", {"channel": "kept:x", "since": {"epoch": "other"}}, UNRECOVERABLE),
        ("history", {"channel": "kept:x", "since": {}, "reverse": True}, BAD),  # Centrifugo: 100
        ("history_remove", {}, BAD),
        ("history_remove", {"channel": "nope:x"}, UNKNOWN),
        ("history_remove", {"channel": "x"}, UNAVAILABLE),
        ("history_remove", {"channel": "kept:x"}, OK),
        ("channels", {}, {"result": {"channels": {}}}),
        ("channels", {"pattern": "[a"}, BAD),
        ("rpc", {}, BAD),
        ("rpc", {"method": "anything", "params": {}}, NOT_FOUND),
    ],
)
async def test_answers(method: str, params: dict[str, Any], answer: dict[str, Any]) -> None:
    async with open_house(ALL) as house:
        assert await house.api(method, **params) == answer


async def test_unknown_members_are_ignored() -> None:
    async with open_house(ALL) as house:
        assert await house.api("publish", channel="x", data=1, colour="red", delta=None, tags=None) == OK


async def test_the_form_of_an_answer() -> None:
    async with open_house(ALL) as house:
        answer = await post(house, "/api/publish", {"channel": "x", "data": 1})
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert answer.body == b'{"result":{}}'


# ---- publish and broadcast ----------------------------------------------------------------------------------------


async def test_a_publication_has_a_position_where_it_is_kept() -> None:
    async with open_house(ALL) as house:
        first = (await house.api("publish", channel="kept:x", data=1))["result"]
        assert first["offset"] == 1
        assert (await house.api("publish", channel="kept:x", data=2))["result"] == {**first, "offset": 2}
        assert await house.api("publish", channel="kept:x", data=3, skip_history=True) == OK
        assert (await house.api("history", channel="kept:x"))["result"] == {**first, "publications": [], "offset": 2}


async def test_a_key_makes_a_publication_once() -> None:
    async with open_house(ALL) as house:
        client = await house.connected()
        for channel in ("kept:x", "x"):
            await client.ask(subscribe={"channel": channel})
        for channel, key in (("kept:x", "k"), ("kept:x", "other"), ("x", "k")):
            first = await house.api("publish", channel=channel, data=1, idempotency_key=key)
            assert (await client.push())["channel"] == channel
            await client.nothing(299)
            assert await house.api("publish", channel=channel, data=2, idempotency_key=key) == first
            await client.nothing(2)
            assert await house.api("publish", channel=channel, data=3, idempotency_key=key) != first or channel == "x"
            assert (await client.push())["pub"]["data"] == 3


async def test_an_older_version_is_not_published() -> None:
    async with open_house(ALL) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "kept:x"})
        for version, epoch, made in (
            (2, "", True),
            (1, "", False),
            (2, "", False),
            (3, "", True),
            (1, "new", True),
            (1, "new", False),
            (2, "new", True),
            (1, "", False),
        ):
            before = (await house.api("history", channel="kept:x"))["result"]["offset"]
            result = await house.api("publish", channel="kept:x", data=version, version=version, version_epoch=epoch)
            assert result["result"]["offset"] == before + made
            if made:
                assert (await client.push())["pub"]["version"] == version
            await client.nothing()


async def test_a_broadcast_answers_for_each_channel() -> None:
    async with open_house(ALL) as house:
        client = await house.connected()
        for channel in ("a", "kept:x"):
            await client.ask(subscribe={"channel": channel})
        channels = ["a", "nope:x", "kept:x", "", "object:x"]
        responses = (await house.api("broadcast", channels=channels, data=[1], tags={"t": "1"}))["result"]["responses"]
        assert responses[:2] + responses[3:] == [OK, UNKNOWN, BAD, BAD]
        assert responses[2]["result"]["offset"] == 1
        for channel in ("a", "kept:x"):
            push = await client.push()
            assert (push["channel"], push["pub"]["data"], push["pub"]["tags"]) == (channel, [1], {"t": "1"})
        again = (await house.api("broadcast", channels=["kept:x"], data=2, idempotency_key="k"))["result"]
        assert (await house.api("broadcast", channels=["kept:x"], data=3, idempotency_key="k"))["result"] == again


# ---- questions ----------------------------------------------------------------------------------------------------


async def test_presence() -> None:
    async with open_house(secured({"presence": True})) as house:
        ann = await house.connected(token=token("42", info={"name": "Ann"}, subs={"x": {"info": [1]}}))
        nobody = await house.connected(token=token(channels=["x"]))
        ids = [client.hello["client"] for client in (ann, nobody)]
        assert (await house.api("presence", channel="x"))["result"]["presence"] == {
            ids[0]: {"user": "42", "client": ids[0], "conn_info": {"name": "Ann"}, "chan_info": [1]},
            ids[1]: {"user": "", "client": ids[1]},
        }
        await house.connected(token=token("42", channels=["x"]))
        assert (await house.api("presence_stats", channel="x"))["result"] == {"num_clients": 3, "num_users": 2}


@pytest.mark.parametrize(
    ("asked", "offsets"),
    [
        ({}, []),
        ({"limit": 0}, []),
        ({"limit": -1}, [3, 4, 5, 6, 7]),
        ({"limit": 2}, [3, 4]),
        ({"limit": 100}, [3, 4, 5, 6, 7]),
        ({"limit": 2, "reverse": True}, [7, 6]),
        ({"limit": -1, "since": {"offset": 5}}, [6, 7]),
        ({"limit": -1, "since": {"offset": 1}}, [3, 4, 5, 6, 7]),
        ({"limit": -1, "since": {"offset": 7}}, []),
        ({"limit": -1, "since": {"offset": 5}, "reverse": True}, [4, 3]),
        ({"limit": 2**31 - 1, "since": {"offset": 2**63 - 1}}, []),
    ],
)
async def test_history(asked: dict[str, Any], offsets: list[int]) -> None:
    async with open_house(ALL) as house:
        for n in range(1, 8):
            epoch = (await house.api("publish", channel="kept:x", data=n, tags={"n": str(n)}))["result"]["epoch"]
        assert (await house.api("history", channel="kept:x", **asked))["result"] == {
            "publications": [{"data": n, "offset": n, "tags": {"n": str(n)}} for n in offsets],
            "epoch": epoch,
            "offset": 7,
        }


async def test_a_history_tells_who_published() -> None:
    async with open_house(ALL) as house:
        client = await house.connected()
        await client.ask(publish={"channel": "kept:x", "data": {"a": 1}})
        publications = (await house.api("history", channel="kept:x", limit=1))["result"]["publications"]
        info = {"user": "", "client": client.hello["client"]}
        assert publications == [{"data": {"a": 1}, "info": info, "offset": 1}]


async def test_a_history_that_is_no_json_cannot_be_told() -> None:
    async with open_house(ALL) as house:
        await house.api("publish", channel="kept:x", b64data="AAEC")
        answer = await post(house, "/api/history", {"channel": "kept:x", "limit": 1})
        assert (answer.status, answer.body) == (500, b"Internal Server Error")
        answer = await post(house, "/api/batch", {"commands": [{"history": {"channel": "kept:x", "limit": 1}}]})
        assert answer.status == 500
        answer = await post(house, "/api", {"id": 1, "method": "history", "params": {"channel": "kept:x", "limit": 1}})
        assert (answer.status, answer.json()) == (200, {"id": 1, **INTERNAL})
        assert (await house.api("history", channel="kept:x"))["result"]["offset"] == 1


async def test_removed_history_keeps_its_position() -> None:
    async with open_house(ALL) as house:
        for n in (1, 2):
            first = (await house.api("publish", channel="kept:x", data=n))["result"]
        await house.api("history_remove", channel="kept:x")
        assert (await house.api("history", channel="kept:x", limit=-1))["result"] == {**first, "publications": []}
        assert (await house.api("publish", channel="kept:x", data=3))["result"] == {**first, "offset": 3}


async def test_info() -> None:
    async with open_house(options({}, node={"name": "first"})) as house:
        for _ in range(2):
            client = await house.connected()
            for channel in ("a", "b"):
                await client.ask(subscribe={"channel": channel})
        await trio.sleep(10)
        (node,) = (await house.api("info"))["result"]["nodes"]
        assert len(node.pop("uid")) == 36
        assert node.pop("metrics")["interval"] == 60
        assert node == {
            "name": "first",
            "version": "6.9.1 OSS",
            "num_clients": 2,
            "num_users": 1,
            "num_channels": 2,
            "num_subs": 4,
            "uptime": 10,
        }


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("", ["chat:1", "chat:22", "news", "user#[42]"]),
        ("*", ["chat:1", "chat:22", "news", "user#[42]"]),
        ("chat:*", ["chat:1", "chat:22"]),
        ("chat:?", ["chat:1"]),
        ("{news,chat:1}", ["chat:1", "news"]),
        ("*[0-9]", ["chat:1", "chat:22"]),
        ("[!c]ews", ["news"]),
        ("NEWS", []),
        ("new", []),
        (r"user#\[42\]", ["user#[42]"]),
    ],
)
async def test_channels_by_pattern(pattern: str, names: list[str]) -> None:
    channel = {"namespaces": [{"name": "chat"}]}
    async with open_house(options() | {"channel": channel}) as house:
        clients = [await house.connected() for _ in range(2)]
        for name in ("chat:1", "chat:22", "news", "user#[42]"):
            await clients[0].ask(subscribe={"channel": name})
        await clients[1].ask(subscribe={"channel": "news"})
        channels = (await house.api("channels", pattern=pattern))["result"]["channels"]
        assert channels == {name: {"num_clients": 1 + (name == "news")} for name in names}


async def test_channels_go_when_their_last_subscriber_goes() -> None:
    async with open_house(ALL) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "x"})
        await client.ask(unsubscribe={"channel": "x"})
        assert (await house.api("channels"))["result"]["channels"] == {}
        assert (await house.api("info"))["result"]["nodes"][0]["num_channels"] == 0
