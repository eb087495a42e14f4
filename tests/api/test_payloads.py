"""What backends may send through the API, and that it arrives as it was sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.peers import HISTORY, House, RawClient, open_house, options

pytestmark = pytest.mark.virtual_time

OPEN = options(HISTORY)


async def post(house: House, path: str, body: bytes) -> tuple[int, Any]:
    answer = await house.http("POST", path, body)
    return answer.status, answer.json() if answer.status == 200 else answer.body


async def raw_push(client: RawClient) -> bytes:
    """The bytes of the next push."""
    while (frame := client._frame()) is None:
        client.buffer += await client.stream.receive_some()
    return frame[1]


PAYLOADS = [
    rb'{"a":1,"a":2}',
    rb'{ "spaces" : [ 1 , 2 ] }',
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


@pytest.mark.parametrize("data", PAYLOADS)
async def test_a_payload_arrives_byte_for_byte(data: bytes) -> None:
    async with open_house(OPEN) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "chat"})
        for n, (path, body) in enumerate(
            [
                ("/api/publish", b'{"channel":"chat","data":%b}' % data),
                ("/api/broadcast", b'{"channels":["chat"],"data":%b}' % data),
                ("/api/batch", b'{"commands":[{"publish":{"channel":"chat","data":%b}}]}' % data),
                ("/api", b'{"method":"publish","params":{"channel":"chat","data":%b}}' % data),
                ("/api", b'{"channel":"chat","data":%b}' % data),
            ],
            start=1,
        ):
            status, _ = await post(house, path, body)
            assert status == 200
            assert b'"pub":{"data":%b,"offset":%d' % (data, n) in await raw_push(client)
        answer = await house.http("POST", "/api/history", b'{"channel":"chat","limit":1}')
        assert b'"publications":[{"data":%b,"offset":1}]' % data in answer.body


async def test_lone_surrogates_in_names_become_replacement_characters() -> None:
    async with open_house(OPEN) as house:
        status, _ = await post(house, "/api/publish", rb'{"channel":"\ud800","data":1,"tags":{"\udfff":"\ud800"}}')
        assert status == 200
        answer = await house.api("history", channel="\ufffd", limit=1)
        assert answer["result"]["publications"] == [{"data": 1, "offset": 1, "tags": {"\ufffd": "\ufffd"}}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"channel":"chat","data":"\xff"}',
        b'{"channel":"\xff","data":1}',
        b'{"channel":"chat","data":NaN}',
        rb'{"channel":"chat","data":"\ud8"}',
        b'{"channel":"chat","data":' + b"[" * 20_000,
        b'{"channel":"chat","data":1,"version":-1}',
        b'{"channel":"chat","data":1,"version":9223372036854775808}',
        b'{"channel":"chat","data":1,"version":1000000000000000000000000000000}',
    ],
)
async def test_what_is_not_read_is_a_bad_request(body: bytes) -> None:
    async with open_house(OPEN) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "chat"})
        assert await post(house, "/api/publish", body) == (400, b"Bad Request")
        await client.nothing()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/history", {"channel": "chat", "limit": 2**31}),
        ("/api/history", {"channel": "chat", "since": {"offset": -1}}),
        ("/api/subscribe", {"channel": "chat", "user": "", "expire_at": 2**63}),
        ("/api/subscribe", {"channel": "chat", "user": "", "recover_since": {"offset": 2**64}}),
        ("/api/refresh", {"user": "", "expire_at": -(2**63) - 1}),
    ],
)
async def test_numbers_out_of_range_are_a_bad_request(path: str, body: dict[str, Any]) -> None:
    async with open_house(OPEN) as house:
        assert await post(house, path, json.dumps(body).encode()) == (400, b"Bad Request")
