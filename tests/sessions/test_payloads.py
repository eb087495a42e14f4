"""Payloads from client to client: the bytes that were sent, or a documented refusal (T07)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.peers import HISTORY, RawClient, open_house, options

pytestmark = pytest.mark.virtual_time


async def raw_frame(client: RawClient) -> bytes:
    """The payload of the next frame."""
    while (frame := client._frame()) is None:
        client.buffer += await client.stream.receive_some()
    return frame[1]


JSON_PAYLOADS = [
    rb'{"a":1,"a":2}',
    b'{\t"spaces" : [ 1 , 2 ]\r}',
    b"123456789012345678901234567890",
    b"1e999",
    b"-0.0",
    rb'"\ud800"',
    rb'["\uDFFF", "\ud83d\ude00", "\\ud800"]',
    rb'"\u0041\/"',
    '"é🐙\u2028"'.encode(),
    b"null",
    b"0",
    b'""',
]


@pytest.mark.parametrize("data", JSON_PAYLOADS)
async def test_json_arrives_byte_for_byte(data: bytes) -> None:
    async with open_house(options(HISTORY)) as house:
        publisher = await house.connected()
        reader, other = await house.connected(), await house.connected(protobuf=True)
        await reader.ask(subscribe={"channel": "chat"})
        await other.ask(subscribe={"channel": "chat"})
        await publisher.send_frame(b'{"id":9,"publish":{"channel":"chat","data":  %b }}' % data)
        assert await publisher.next() == {"id": 9, "publish": {}}
        assert b'"pub":{"data":%b,"info":' % data in await raw_frame(reader)
        assert (await other.push())["pub"]["data"] == data
        await reader.send({"id": 9, "history": {"channel": "chat", "limit": 1}})
        assert b'"publications":[{"data":%b,"info":' % data in await raw_frame(reader)
        late = await house.connected()
        await late.send_frame(b'{"id":9,"subscribe":{"channel":"chat","recover":true,"epoch":""}}')
        assert b'"publications":[{"data":%b,"info":' % data in await raw_frame(late)


@pytest.mark.parametrize("data", [b"boom", b"\xff\x00\x01", b"{", b'"\xff"', rb'"\ud8"', b"\xef\xbb\xbf1"])
async def test_what_is_no_json_reaches_protobuf_and_ends_json_subscriptions(data: bytes) -> None:
    async with open_house(options()) as house:
        publisher, reader = await house.connected(protobuf=True), await house.connected(protobuf=True)
        other = await house.connected()
        await reader.ask(subscribe={"channel": "chat"})
        await other.ask(subscribe={"channel": "chat"})
        await publisher.ask(publish={"channel": "chat", "data": data})
        assert (await reader.push())["pub"]["data"] == data
        assert await other.wait_closed() == (3506, "inappropriate protocol")


@pytest.mark.parametrize("data", JSON_PAYLOADS)
async def test_protobuf_that_is_json_reaches_json(data: bytes) -> None:
    async with open_house(options()) as house:
        publisher, reader = await house.connected(protobuf=True), await house.connected()
        await reader.ask(subscribe={"channel": "chat"})
        await publisher.ask(publish={"channel": "chat", "data": data})
        assert b'"pub":{"data":%b,"info":' % data in await raw_frame(reader)


@pytest.mark.parametrize(
    ("frame", "answer"),
    [
        (rb'{"id":9,"publish":{"channel":"\ud800","data":1}}', 107),
        (rb'{"id":9,"subscribe":{"channel":"a\udfff"}}', 107),
        (rb'{"id":9,"presence":{"channel":"\ud800"}}', 107),
        (rb'{"id":9,"history":{"channel":"\ud800"}}', 107),
        (rb'{"id":9,"history":{"channel":"chat","limit":1,"since":{"offset":1,"epoch":"\ud800"}}}', 112),
        (rb'{"id":9,"rpc":{"method":"\ud800","data":"\ud800"}}', 108),
        (b'{"id":9,"publish":{"channel":"chat"}}', 107),
        (b'{"id":9,"publish":{"channel":"chat","data":"\xff"}}', 3501),
        (b'{"id":4294967296,"publish":{"channel":"chat","data":1}}', 3501),
        (b'{"id":9,"history":{"channel":"chat","since":{"offset":9223372036854775808}}}', 3501),
        (b'{"id":9,"publish":{"channel":"chat","data":' + b"[" * 30_000 + b"]" * 30_000 + b"}}", 3501),
    ],
)
async def test_odd_commands(frame: bytes, answer: int) -> None:
    async with open_house(options(HISTORY)) as house:
        client: Any = await house.connected()
        await client.send_frame(frame, 2)
        if answer > 3000:
            assert (await client.wait_closed())[0] == answer
        else:
            reply = await client.next()
            assert (reply["id"], reply["error"]["code"]) == (9, answer)
