"""The main conversations once more with Protobuf clients, and beside JSON clients (client protocol §1.1, §2)."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.support.peers import HISTORY, INSECURE, RawClient, open_house, options, secured, token

pytestmark = pytest.mark.virtual_time

EVERYTHING = {
    **HISTORY,
    "presence": True,
    "join_leave": True,
    "force_push_join_leave": True,
}


async def test_connect() -> None:
    async with open_house(options(client={"connect_include_server_time": True})) as house:
        client = await house.connected(protobuf=True, name="test", version="1")
        assert client.hello == {
            "client": client.hello["client"],
            "version": "6.9.1 OSS",
            "ping": 25,
            "pong": True,
            "time": 1_700_000_000_000,
        }


@pytest.mark.parametrize("query", ["?cf_protocol=protobuf", "?format=protobuf"])
async def test_the_query_chooses_the_codec_too(query: str) -> None:
    async with open_house(INSECURE) as house:
        client = await house.client(query)
        client.protobuf = True
        assert "connect" in await client.ask(connect={})


async def test_a_connect_with_everything() -> None:
    async with open_house(secured({**HISTORY, "presence": True})) as house:
        for n in (1, 2):
            await house.api("publish", channel="news", data=n)
        epoch = (await house.api("history", channel="news"))["result"]["epoch"]
        claims: dict[str, Any] = {"exp": 1_700_000_090, "info": {"name": "Ann"}}
        claims["subs"] = {"news": {"data": {"welcome": 1}}, "bytes": {"b64data": "AAEC"}}
        client = await house.connected(
            protobuf=True,
            token=token("42", **claims),
            subs={"news": {"recover": True, "offset": 1, "epoch": epoch}},
        )
        assert (client.hello["expires"], client.hello["ttl"]) == (True, 90)
        assert client.hello["subs"]["news"] == {
            "recoverable": True,
            "positioned": True,
            "epoch": epoch,
            "recovered": True,
            "was_recovering": True,
            "offset": 1,
            "publications": [{"data": b"2", "offset": 2}],
            "data": b'{"welcome":1}',
        }
        assert client.hello["subs"]["bytes"]["data"] == b"\x00\x01\x02"  # JSON clients are closed for this
        presence = (await client.ask(presence={"channel": "news"}))["error"]
        assert presence == {"code": 103, "message": "permission denied"}


async def test_a_chat_across_codecs() -> None:
    async with open_house(options(EVERYTHING)) as house:
        binary, text = await house.connected(protobuf=True), await house.connected()
        result = (await binary.ask(subscribe={"channel": "chat"}))["subscribe"]
        epoch = result["epoch"]
        assert result == {"recoverable": True, "positioned": True, "epoch": epoch}
        mine = {"client": binary.hello["client"]}  # the empty user is not on the wire
        assert await binary.push() == {"channel": "chat", "join": {"info": mine}}
        await text.ask(subscribe={"channel": "chat"})
        theirs = {"client": text.hello["client"]}
        assert await binary.push() == {"channel": "chat", "join": {"info": theirs}}
        await text.push()
        assert (await binary.ask(publish={"channel": "chat", "data": b'{"a": 1}'}))["publish"] == {}
        assert await binary.push() == {
            "channel": "chat",
            "pub": {"data": b'{"a": 1}', "info": mine, "offset": 1, "epoch": epoch},
        }
        assert (await text.push())["pub"] == {
            "data": {"a": 1},
            "info": {"user": "", **mine},
            "offset": 1,
            "epoch": epoch,
        }
        await text.ask(publish={"channel": "chat", "data": {"b": [1.50]}})
        await text.push()
        assert (await binary.push())["pub"] == {"data": b'{"b": [1.5]}', "info": theirs, "offset": 2}
        assert (await binary.ask(history={"channel": "chat", "limit": 1, "reverse": True}))["history"] == {
            "publications": [{"data": b'{"b": [1.5]}', "info": theirs, "offset": 2}],
            "epoch": epoch,
            "offset": 2,
        }
        assert (await binary.ask(presence={"channel": "chat"}))["presence"] == {
            "presence": {info["client"]: info for info in (mine, theirs)}
        }
        assert (await binary.ask(presence_stats={"channel": "chat"}))["presence_stats"] == {
            "num_clients": 2,
            "num_users": 1,
        }
        assert (await text.ask(unsubscribe={"channel": "chat"}))["unsubscribe"] == {}
        assert await binary.push() == {"channel": "chat", "leave": {"info": theirs}}
        assert (await binary.ask(unsubscribe={"channel": "chat"}))["unsubscribe"] == {}


async def test_any_bytes_are_a_payload_to_those_who_can_read_them() -> None:
    payload = bytes(range(256))
    async with open_house(options({"allow_tags_filter": True})) as house:
        binary, text, publisher = [await house.connected(protobuf=kind != "text") for kind in ("b", "text", "b")]
        for client in (binary, text):
            await client.ask(subscribe={"channel": "chat"})
        assert (await publisher.ask(publish={"channel": "chat", "data": payload}))["publish"] == {}
        assert (await binary.push())["pub"]["data"] == payload
        assert await text.wait_closed() == (3506, "inappropriate protocol")
        assert (await publisher.ask(publish={"channel": "chat", "data": b""}))["error"]["code"] == 107


async def test_a_history_with_bytes_in_it_is_for_protobuf_only() -> None:
    async with open_house(options(HISTORY)) as house:
        await house.api("publish", channel="chat", b64data="AAEC")
        binary, text = await house.connected(protobuf=True), await house.connected()
        history = {"channel": "chat", "limit": -1}
        assert (await binary.ask(history=history))["history"]["publications"] == [
            {"data": b"\x00\x01\x02", "offset": 1}
        ]
        assert (await binary.ask(subscribe={"channel": "chat", "recover": True}))["subscribe"]["publications"]
        await text.command(history=history)
        assert await text.wait_closed() == (3506, "inappropriate protocol")
        recovering = await house.connected()
        await recovering.command(subscribe={"channel": "chat", "recover": True})
        assert await recovering.wait_closed() == (3506, "inappropriate protocol")


async def test_info_with_bytes_in_it_is_for_protobuf_only() -> None:
    rules = {**EVERYTHING, "allow_subscribe_for_client": True, "allow_presence_for_client": True}
    async with open_house(secured(rules)) as house:
        odd = await house.connected(protobuf=True, token=token("42", b64info="AAEC"))
        text = await house.connected(token=token("1"))
        await odd.ask(subscribe={"channel": "chat"})
        assert (await odd.push())["join"]["info"]["conn_info"] == b"\x00\x01\x02"
        await text.command(presence={"channel": "chat"})
        assert (await text.wait_closed())[0] == 3506
        listening = await house.connected(token=token("1"))
        await listening.ask(subscribe={"channel": "chat"})
        await listening.push()
        await odd.ask(unsubscribe={"channel": "chat"})
        assert (await listening.wait_closed())[0] == 3506


async def test_pushes_of_the_server() -> None:
    async with open_house(secured(HISTORY)) as house:
        client = await house.connected(protobuf=True, token=token("42"))
        await house.api("subscribe", user="42", channel="news", b64data="AAEC")
        push = await client.push()
        assert push == {
            "channel": "news",
            "subscribe": {
                "recoverable": True,
                "positioned": True,
                "epoch": push["subscribe"]["epoch"],
                "data": b"\x00\x01\x02",
            },
        }
        await house.api("publish", channel="news", data={"x": 1}, tags={"a": "b"}, version=3)
        pub = (await client.push())["pub"]
        assert pub == {
            "data": b'{"x": 1}',
            "offset": 1,
            "tags": {"a": "b"},
            "version": 3,
            "epoch": push["subscribe"]["epoch"],
        }
        await house.api("refresh", user="42", expire_at=1_700_000_060)
        assert await client.push() == {"refresh": {"expires": True, "ttl": 60}}
        assert (await client.ask(refresh={"token": token("42", exp=1_700_000_090)}))["refresh"] == {
            "expires": True,
            "ttl": 90,
        }
        await house.api("unsubscribe", user="42", channel="news")
        assert await client.push() == {
            "channel": "news",
            "unsubscribe": {"code": 2000, "reason": "server unsubscribe"},
        }
        await house.api("disconnect", user="42", disconnect={"code": 4001, "reason": "bye"})
        assert await client.wait_closed() == (4001, "bye")


async def test_subscription_tokens() -> None:
    async with open_house(secured()) as house:
        client = await house.connected(protobuf=True, token=token("42"))
        good = token("42", channel="$news", exp=1_700_000_060, data=[1])
        assert (await client.ask(subscribe={"channel": "$news", "token": good}))["subscribe"] == {
            "expires": True,
            "ttl": 60,
            "data": b"[1]",
        }
        assert (await client.ask(sub_refresh={"channel": "$news", "token": good}))["sub_refresh"] == {
            "expires": True,
            "ttl": 60,
        }
        assert await client.ask(subscribe={"channel": "other"}) == {
            "id": 4,
            "error": {"code": 103, "message": "permission denied"},
        }


async def test_a_filter_as_a_message() -> None:
    async with open_house(options({"allow_tags_filter": True})) as house:
        client = await house.connected(protobuf=True)
        tf = {"op": "or", "nodes": [{"key": "a", "cmp": "in", "vals": ["1", "2"]}, {"key": "b", "cmp": "ex"}]}
        assert (await client.ask(subscribe={"channel": "chat", "tf": tf}))["subscribe"] == {}
        for n, tags in enumerate(({"a": "1"}, {"a": "3"}, {"b": ""}, {})):
            await house.api("publish", channel="chat", data=n, tags=tags)
        assert [(await client.push())["pub"]["data"] for _ in range(2)] == [b"0", b"2"]
        await client.nothing()


async def test_rpc() -> None:
    ping = {"ping": {"enabled": True, "method": "are-you-there"}}
    async with open_house({**INSECURE, "rpc": ping}) as house:
        for protobuf in (True, False):
            client = await house.connected(protobuf=protobuf)
            assert (await client.ask(rpc={"method": "are-you-there"}))["rpc"] == {}
            assert (await client.ask(rpc={"method": "other"}))["error"]["code"] == 104
            assert (await client.ask(rpc={}))["error"]["code"] == 104


async def test_pings_are_empty_messages() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected(protobuf=True)
        for _ in range(3):
            assert await client.next(pings=True) == {}
            await client.pong()
        await client.pong()
        assert (await client.wait_closed())[0] == 3501
        silent = await house.connected(protobuf=True)
        assert await silent.next(pings=True) == {}
        with pytest.raises(EOFError):
            await silent.next()
        assert silent.closed == (3012, "no pong")


async def test_a_frame_of_many_commands_is_answered_in_order() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected(protobuf=True)
        await client.send(
            {"id": 11, "subscribe": {"channel": "chat"}},
            {"id": 12, "publish": {"channel": "chat", "data": b"1"}},
            {"id": 13, "unsubscribe": {"channel": "chat"}},
        )
        units = [await client.next() for _ in range(4)]
        assert [unit.get("id") for unit in units] == [11, None, 12, 13]
        assert units[1]["push"]["pub"]["data"] == b"1"


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="nothing at all"),
        pytest.param(b"\x05\x08\x01", id="shorter than it says"),
        pytest.param(b"\xff\xff\xff\xff\xff\xff\xff", id="an endless length"),
        pytest.param(b"\x02\xff\xff", id="no message"),
        pytest.param(b"\x02\x08\x05", id="a command without a member"),
        pytest.param(b"\x00", id="a pong that nobody asked for"),
        pytest.param(b'{"id":5,"subscribe":{"channel":"a"}}', id="JSON"),
    ],
)
async def test_what_is_no_command_ends_the_connection(frame: bytes) -> None:
    async with open_house(INSECURE) as house:
        client: RawClient = await house.connected(protobuf=True)
        await client.send_frame(frame, 2)
        assert (await client.wait_closed())[0] == 3501


async def test_many_subscribers_of_both_codecs_hear_everything_in_order() -> None:
    async with open_house(options(HISTORY)) as house:
        clients = [await house.connected(protobuf=bool(n % 2)) for n in range(40)]
        for client in clients:
            await client.ask(subscribe={"channel": "hot"})
        async with trio.open_nursery() as nursery:
            for n in range(30):
                nursery.start_soon(lambda n=n: house.api("publish", channel="hot", data=n))
        for client in clients:
            assert [(await client.push())["pub"]["offset"] for _ in range(30)] == list(range(1, 31))
