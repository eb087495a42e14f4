"""Transports that only tell: one-way server-sent events, HTTP streaming and WebSocket."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.clock import seconds
from tests.support.peers import NO_PINGS, WALL, House, RawClient, open_house, options, secured, token
from tests.support.streams import ON, StreamClient, open_stream, request

pytestmark = pytest.mark.virtual_time

PERSONAL = {"subscribe_to_user_personal_channel": {"enabled": True}}
EXPIRED = {"disconnect": {"code": 3005, "reason": "connection expired"}}


def on(channel: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    return options(channel, **{**ON, **sections})


async def websocket(house: House, query: str = "") -> RawClient:
    stream = await house.open_stream()
    await stream.send_all(
        f"GET /connection/uni_websocket{query} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n".encode()
    )
    client = RawClient(stream)
    await client.read_handshake()
    house.clients.append(client)
    return client


async def opened(house: House, transport: str, connect: dict[str, Any]) -> StreamClient | RawClient:
    """A connection that has sent `connect`, in one of the ways its transport has."""
    if transport == "uni_websocket":
        client = await websocket(house)
        await client.send(connect)
        return client
    if transport == "uni_websocket by address":
        return await websocket(house, "?cf_connect=" + quote(json.dumps(connect)))
    name, _, how = transport.partition(" ")
    stream = await open_stream(house, name, connect, get=how == "by address")
    if stream.hello:
        stream._units.insert(0, {"connect": stream.hello})
    return stream


WAYS = [
    "uni_sse",
    "uni_sse by address",
    "uni_http_stream",
    "uni_websocket",
    "uni_websocket by address",
]
each_way = pytest.mark.parametrize("way", WAYS)


@each_way
async def test_pushes_stand_bare(way: str) -> None:
    channel = {"history_size": 5, "history_ttl": "60s", "allow_subscribe_for_client": True}
    async with open_house(on(channel, client={"ping_interval": "20s", "pong_timeout": "8s"})) as house:
        client = await opened(house, way, {"subs": {"news": {}}, "name": "curl"})
        hello = (await client.next())["connect"]
        assert set(hello) == {"client", "version", "subs", "ping", "session"}
        assert hello["ping"] == 20
        assert hello["session"] != hello["client"]
        await house.api("publish", channel="news", data={"n": 1})
        push = await client.next()
        assert push["channel"] == "news"
        assert push["pub"]["data"] == {"n": 1}
        await house.api("subscribe", user="", channel="more", session=hello["session"])
        assert await client.next() == {"channel": "more", "subscribe": {}}
        await house.api("unsubscribe", user="", channel="more")
        unsubscribed = await client.next()
        assert unsubscribed == {"channel": "more", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}
        await house.api("disconnect", user="")
        assert await client.next() == {"disconnect": {"code": 3503, "reason": "force disconnect"}}
        with pytest.raises(EOFError):
            await client.next()


@pytest.mark.parametrize("way", WAYS[:3])
async def test_pings_need_no_pong(way: str) -> None:
    async with open_house(on(client={"ping_interval": "20s", "pong_timeout": "8s"})) as house:
        client = await opened(house, way, {})
        await client.next()
        for _ in range(4):
            assert await client.next(pings=True) == {}


@pytest.mark.parametrize("way", WAYS)
async def test_a_token_that_expires(way: str) -> None:
    house_options = {**ON, **secured(client={**PERSONAL, **NO_PINGS})}
    async with open_house(house_options) as house:
        client = await opened(house, way, {"token": token("alice", exp=WALL + 10)})
        hello = (await client.next())["connect"]
        assert (hello["expires"], hello["ttl"]) == (True, 10)
        assert list(hello["subs"]) == ["#alice"]
        if "websocket" in way:
            return  # its pings want an answer meanwhile: that is another test
        with seconds(35):  # and 25 s of grace
            assert await client.next() == EXPIRED


@each_way
@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"exp": WALL - 10}, EXPIRED),
        ({"subs": {"unknown:x": {}}}, {"disconnect": {"code": 3004, "reason": "internal server error"}}),
    ],
)
async def test_errors_of_connect_are_disconnects(way: str, claims: dict[str, Any], told: dict[str, Any]) -> None:
    async with open_house({**ON, **secured()}) as house:
        client = await opened(house, way, {"token": token("alice", **claims)})
        assert await client.next() == told
        with pytest.raises(EOFError):
            await client.next()


async def test_disconnects_by_configuration() -> None:
    transforms = [{"code": 109, "to": {"code": 4555, "reason": "come again"}}]
    client_options = {"connect_code_to_unidirectional_disconnect": {"enabled": True, "transforms": transforms}}
    async with open_house({**ON, **secured(client=client_options)}) as house:
        client = await opened(house, "uni_sse", {"token": token("alice", exp=WALL - 10)})
        assert await client.next() == {"disconnect": {"code": 4555, "reason": "come again"}}


@pytest.mark.parametrize("transport", ["uni_sse", "uni_http_stream"])
async def test_statuses_by_configuration(transport: str) -> None:
    transforms = [
        {"code": 109, "to": {"status_code": 401, "body": "log in"}},
        {"code": 3500, "to": {"status_code": 403}},
    ]
    section = {"enabled": True, "connect_code_to_http_response": {"enabled": True, "transforms": transforms}}
    async with open_house({**secured(), transport: section}) as house:
        path = f"/connection/{transport}"
        for body, status, text in [
            ({"token": token("alice", exp=WALL - 10)}, 401, b"log in"),
            ({"token": "broken"}, 403, b"invalid token"),
            ({}, 500, b"Internal Server Error"),
        ]:
            answer = await house.http("POST", path, json.dumps(body).encode())
            assert (answer.status, answer.body) == (status, text)
        client = await open_stream(house, transport, {"token": token("alice")})
        assert client.status == 200
        assert client.hello["session"]


@pytest.mark.parametrize("transport", ["uni_sse", "uni_http_stream"])
async def test_bodies_that_are_no_connect(transport: str) -> None:
    async with open_house(on()) as house:
        for body in (b"", b"hello", b"[]", b'{"token":1}'):
            assert (await house.http("POST", f"/connection/{transport}", body)).status == 400
        assert (await house.http("POST", f"/connection/{transport}", b"x" * 65_537)).status == 413
        stream = await house.open_stream()
        await stream.send_all(request(transport, b"null"))
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        await stream.aclose()


async def test_an_address_without_a_connect_is_an_empty_one() -> None:
    async with open_house(on()) as house:
        stream = await house.open_stream()
        await stream.send_all(request("uni_sse", b"", method="GET"))
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        await stream.aclose()
        assert (await house.http("GET", "/connection/uni_sse?cf_connect=x")).status == 400


# ---- WebSocket ----------------------------------------------------------------------------------------------------


async def test_websocket_is_pinged_in_both_ways_and_has_to_answer_one() -> None:
    async with open_house(on(client={"ping_interval": "20s", "pong_timeout": "8s"})) as house:
        client = await websocket(house, "?cf_connect=%7B%7D")
        await client.next()
        for count in (1, 2):
            unit = await client.next(pings=True)
            assert (unit, client.native_pings) == ({}, count) or client.native_pings == count - 1
            await client.send_frame(b"", 10)
        await client.next(pings=True)
        with seconds(8), pytest.raises(EOFError):
            await client.next(pings=True)
        assert client.closed == (1006, "")


async def test_websocket_ignores_what_follows_its_connect() -> None:
    async with open_house(on()) as house:
        client = await websocket(house)
        await client.send_frame(b"null")
        await client.next()
        for frame in (b"hello", b'{"id":2,"publish":{"channel":"x","data":1}}', b""):
            await client.send_frame(frame)
        await client.nothing()


async def test_websocket_with_a_connect_that_is_none() -> None:
    async with open_house(on()) as house:
        client = await websocket(house)
        await client.send_frame(b"hello")
        assert await client.wait_closed() == (3501, "bad request")
        stream = await house.open_stream()
        await stream.send_all(b"GET /connection/uni_websocket?cf_connect=x HTTP/1.1\r\nHost: test\r\n\r\n")
        answer = await stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b"\r\n\r\ninvalid connect request\n")
        await stream.aclose()


@pytest.mark.parametrize(
    ("section", "pushed", "closed"),
    [
        ({}, True, (3503, "force disconnect")),
        ({"disable_disconnect_push": True}, False, (3503, "force disconnect")),
        ({"disable_closing_handshake": True}, True, (1006, "")),
        ({"disable_disconnect_push": True, "disable_closing_handshake": True}, False, (1006, "")),
    ],
)
async def test_how_websocket_ends(section: dict[str, bool], pushed: bool, closed: tuple[int, str]) -> None:
    async with open_house(on(uni_websocket={"enabled": True, **section})) as house:
        client = await websocket(house, "?cf_connect=%7B%7D")
        await client.next()
        await house.api("disconnect", user="")
        if pushed:
            assert await client.next() == {"disconnect": {"code": 3503, "reason": "force disconnect"}}
        with pytest.raises(EOFError):
            await client.next()
        assert client.closed == closed


@pytest.mark.parametrize("joined", [False, True])
async def test_pushes_of_websocket_in_one_frame_or_several(joined: bool) -> None:
    section = {"enabled": True, "join_push_messages": joined}
    channel = {"allow_subscribe_for_client": True}
    async with open_house(on(channel, uni_websocket=section)) as house:
        client = await websocket(house, "?cf_connect=%7B%22subs%22%3A%7B%22news%22%3A%7B%7D%7D%7D")
        await client.next()
        many = [{"publish": {"channel": "news", "data": n}} for n in range(3)]
        await house.api("batch", commands=many, parallel=True)
        assert [(await client.next())["pub"]["data"] for _ in range(3)] == [0, 1, 2]
