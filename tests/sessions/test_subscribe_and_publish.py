"""Conversations of connected clients: subscribe, publish, unsubscribe, and the order of what they see."""

from __future__ import annotations

import pytest
import trio

from tests.support.peers import HISTORY, INSECURE, open_house, options

pytestmark = pytest.mark.virtual_time


async def test_connect_tells_the_client_its_id_and_the_pings() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        assert client.hello["version"] == "6.9.1 OSS"
        assert len(client.hello["client"]) == 36
        assert (client.hello["ping"], client.hello["pong"]) == (25, True)
        assert "expires" not in client.hello


async def test_a_publication_reaches_every_subscriber_with_its_publisher() -> None:
    async with open_house(INSECURE) as house:
        alice, bob = await house.connected(), await house.connected()
        for client in (alice, bob):
            assert (await client.ask(subscribe={"channel": "chat"}))["subscribe"] == {}
        reply = await alice.ask(publish={"channel": "chat", "data": {"text": "hi"}})
        assert reply["publish"] == {}
        info = {"user": "", "client": alice.hello["client"]}
        for client in (alice, bob):
            assert await client.push() == {"channel": "chat", "pub": {"data": {"text": "hi"}, "info": info}}


async def test_subscribe_and_publish_in_one_frame_are_answered_before_the_push() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        await client.send(
            {"id": 11, "subscribe": {"channel": "chat"}},
            {"id": 12, "publish": {"channel": "chat", "data": 1}},
        )
        assert (await client.next())["id"] == 11
        assert (await client.next())["push"]["pub"]["data"] == 1
        assert (await client.next())["id"] == 12


async def test_an_api_publication_has_no_publisher_and_the_bytes_it_came_with() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "chat"})
        assert await house.api("publish", channel="chat", data={"n": 10**30}) == {"result": {}}
        assert await client.push() == {"channel": "chat", "pub": {"data": {"n": 10**30}}}


async def test_history_gives_positions_and_the_first_publication_its_epoch() -> None:
    async with open_house(options(HISTORY)) as house:
        client = await house.connected()
        reply = (await client.ask(subscribe={"channel": "chat"}))["subscribe"]
        epoch = reply["epoch"]
        assert reply == {"recoverable": True, "epoch": epoch, "positioned": True}
        for n in (1, 2):
            result = await house.api("publish", channel="chat", data=n)
            assert result["result"] == {"offset": n, "epoch": epoch}
        assert (await client.push())["pub"] == {"data": 1, "offset": 1, "epoch": epoch}
        assert (await client.push())["pub"] == {"data": 2, "offset": 2}


async def test_unsubscribing_is_final_and_always_succeeds() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "chat"})
        assert (await client.ask(unsubscribe={"channel": "chat"}))["unsubscribe"] == {}
        assert (await client.ask(unsubscribe={"channel": "never"}))["unsubscribe"] == {}
        await house.api("publish", channel="chat", data=1)
        await client.nothing()
        assert (await client.ask(subscribe={"channel": "chat"}))["subscribe"] == {}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"subscribe": {"channel": "nope:x"}}, 102),
        ({"subscribe": {"channel": "größe"}}, 107),
        ({"subscribe": {"channel": "x" * 256}}, 107),
        ({"subscribe": {"channel": "$private"}}, 103),
        ({"subscribe": {"channel": "chat", "type": 1}}, 103),
        ({"subscribe": {"channel": "chat", "type": 4}}, 108),
        ({"subscribe": {"channel": "chat", "tf": {"key": "a", "cmp": "eq", "val": "b"}}}, 107),
        ({"subscribe": {"channel": "taken"}}, 105),
        ({"publish": {"channel": "chat"}}, 107),
        ({"publish": {"channel": "nope:x", "data": 1}}, 102),
        ({"presence": {"channel": "chat"}}, 108),
        ({"presence_stats": {"channel": "chat"}}, 108),
        ({"history": {"channel": "chat"}}, 108),
        ({"rpc": {"method": "any"}}, 108),
        ({"sub_refresh": {"channel": "chat", "token": "x"}}, 103),
    ],
)
async def test_errors_keep_the_connection(command: dict[str, object], code: int) -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "taken"})
        assert (await client.ask(**command))["error"]["code"] == code
        assert (await client.ask(subscribe={"channel": "alive"}))["subscribe"] == {}


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b'{"id":5,"subscribe":{}}', 3501),
        (b'{"id":5,"subscribe":{"channel":"a","delta":"other"}}', 3501),
        (b'{"id":5,"publish":{"data":1}}', 3501),
        (b'{"id":5}', 3501),
        (b'{"id":5,"ping":{}}', 3501),
        (b'{"id":5,"connect":{}}', 3501),
        (b'{"id":5,"refresh":{}}', 3501),
        (b'{"send":{"data":1}}', 3508),
        (b"{}", 3501),
        (b"", 3501),
        (b"not json", 3501),
        (b'{"id":5,"subscribe":{"channel":"a"}}\n\n{}', 3501),
        (b"[" * 5000, 3501),
    ],
)
async def test_misuse_of_the_protocol_ends_the_connection(frame: bytes, code: int) -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        await client.send_frame(frame)
        assert (await client.wait_closed())[0] == code


@pytest.mark.parametrize("frame", [b'{"id":1,"subscribe":{"channel":"a"}}', b'{"connect":{}}', b"{}", b"\n"])
async def test_the_first_command_must_be_a_connect_with_an_id(frame: bytes) -> None:
    async with open_house(INSECURE) as house:
        client = await house.client()
        await client.send_frame(frame)
        assert (await client.wait_closed())[0] == 3501


async def test_commands_before_the_bad_one_in_a_frame_count() -> None:
    async with open_house(INSECURE) as house:
        other = await house.connected()
        await other.ask(subscribe={"channel": "chat"})
        client = await house.connected()
        await client.send_frame(b'{"id":5,"publish":{"channel":"chat","data":1}}\nbroken')
        assert await client.next() == {"id": 5, "publish": {}}
        assert (await client.wait_closed())[0] == 3501
        assert (await other.push())["pub"]["data"] == 1


async def test_the_channel_limit_counts_subscriptions() -> None:
    async with open_house(options(client={"channel_limit": 2})) as house:
        client = await house.connected()
        for channel in ("a", "b"):
            await client.ask(subscribe={"channel": channel})
        assert (await client.ask(subscribe={"channel": "c"}))["error"]["code"] == 106
        await client.ask(unsubscribe={"channel": "a"})
        assert (await client.ask(subscribe={"channel": "c"}))["subscribe"] == {}


async def test_presence_and_join_leave_follow_subscriptions() -> None:
    async with open_house(options({"presence": True, "join_leave": True, "force_push_join_leave": True})) as house:
        alice = await house.connected()
        await alice.ask(subscribe={"channel": "room"})
        alice_info = {"user": "", "client": alice.hello["client"]}
        assert await alice.push() == {"channel": "room", "join": {"info": alice_info}}
        bob = await house.connected()
        await bob.ask(subscribe={"channel": "room"})
        bob_info = {"user": "", "client": bob.hello["client"]}
        for client in (alice, bob):
            assert await client.push() == {"channel": "room", "join": {"info": bob_info}}
        reply = await alice.ask(presence={"channel": "room"})
        assert reply["presence"]["presence"] == {info["client"]: info for info in (alice_info, bob_info)}
        assert (await alice.ask(presence_stats={"channel": "room"}))["presence_stats"] == {
            "num_clients": 2,
            "num_users": 1,
        }
        await bob.ask(unsubscribe={"channel": "room"})
        assert await alice.push() == {"channel": "room", "leave": {"info": bob_info}}
        await bob.nothing()
        await bob.ask(subscribe={"channel": "room"})
        await alice.push()
        await bob.leave()
        assert (await alice.push())["leave"]["info"] == bob_info


async def test_a_payload_that_is_no_json_ends_only_json_subscribers() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "chat"})
        assert await house.api("publish", channel="chat", b64data="AAEC") == {"result": {}}
        assert (await client.wait_closed())[0] == 3506


async def test_line_feeds_of_a_payload_do_not_end_a_message() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "chat"})
        stream = await house.open_stream()
        body = b'{"channel":"chat","data":{\n"a":\n1}}'
        await stream.send_all(b"POST /api/publish HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert (await client.push())["pub"]["data"] == {"a": 1}
        await stream.aclose()


async def test_many_subscribers_are_served_by_the_pump_in_order() -> None:
    async with open_house(options(HISTORY)) as house:
        clients = [await house.connected() for _ in range(40)]
        for client in clients:
            await client.ask(subscribe={"channel": "hot"})
        async with trio.open_nursery() as nursery:
            for n in range(30):
                nursery.start_soon(lambda n=n: house.api("publish", channel="hot", data=n))
        for client in clients:
            assert [(await client.push())["pub"]["offset"] for _ in range(30)] == list(range(1, 31))
