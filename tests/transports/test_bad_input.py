"""Every road in against every bad input: the answer that docs/clients.md has, in ten seconds, and nothing is kept."""

from __future__ import annotations

import json
import struct
from typing import Any, Final
from urllib.parse import quote

import pytest
import trio

from tests.support import protobuf
from tests.support.clock import seconds
from tests.support.http2 import http2
from tests.support.peers import NO_PINGS, House, masked, open_house, options
from tests.support.streams import ON, emulate, open_stream

pytestmark = pytest.mark.virtual_time

LIMIT: Final = 65_536
CHANNEL: Final = {"presence": True, "allow_subscribe_for_client": True}
ALLOWED: Final = "https://app.example"
CONNECT: Final = {"id": 1, "connect": {}}
SOCKJS: Final = "/connection/sockjs/000/abcdefgh"
BINARY: Final = "Content-Type: application/octet-stream\r\n"

HTTP_ROADS: Final = {
    "http_stream": ("POST", "/connection/http_stream", ""),
    "http_stream protobuf": ("POST", "/connection/http_stream", BINARY),
    "sse": ("POST", "/connection/sse", ""),
    "sse by address": ("GET", "/connection/sse", ""),
    "uni_sse": ("POST", "/connection/uni_sse", ""),
    "uni_sse by address": ("GET", "/connection/uni_sse", ""),
    "uni_http_stream": ("POST", "/connection/uni_http_stream", ""),
    "emulation": ("POST", "/emulation", ""),
    "emulation protobuf": ("POST", "/emulation", BINARY),
    "sockjs xhr": ("POST", f"{SOCKJS}/xhr", ""),
    "sockjs xhr_streaming": ("POST", f"{SOCKJS}/xhr_streaming", ""),
    "sockjs xhr_send": ("POST", f"{SOCKJS}/xhr_send", ""),
    "sockjs eventsource": ("GET", f"{SOCKJS}/eventsource", ""),
}
WEBSOCKETS: Final = {
    "websocket": ("/connection/websocket", ""),
    "websocket protobuf": ("/connection/websocket", "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n"),
    "uni_websocket": ("/connection/uni_websocket", ""),
    "sockjs websocket": (f"{SOCKJS}/websocket", ""),
}
POSTS: Final = [road for road, (method, _, _) in HTTP_ROADS.items() if method == "POST"]

BAD: Final = (200, b"bad request")
"""The stream begins, and ends with 3501."""
MALFORMED: Final[dict[str, tuple[int, bytes]]] = {
    "http_stream": BAD,
    "http_stream protobuf": BAD,
    "sse": BAD,
    "sse by address": BAD,
    "uni_sse": (400, b""),
    "uni_sse by address": (400, b""),
    "uni_http_stream": (400, b""),
    "emulation": (400, b""),
    "emulation protobuf": (400, b""),
    "sockjs xhr_send": (400, b"Broken JSON encoding."),
}
EMPTY: Final = MALFORMED | {
    "sse by address": (400, b""),
    "emulation protobuf": (404, b""),  # a request of Protobuf, to no node
    "sockjs xhr_send": (400, b"Payload expected."),
}
WRONG_CODEC: Final = {road: MALFORMED[road] for road in MALFORMED if "address" not in road}

AS_JSON: Final = json.dumps(CONNECT).encode()
AS_PROTOBUF: Final = protobuf.commands([CONNECT])
EMULATED_JSON: Final = b'{"node":"x","session":"y","data":"{}"}'
EMULATED_PROTOBUF: Final = b"\x0a\x01x\x12\x01y\x1a\x01\x00"


def house_of(**sections: Any) -> Any:
    client = {"allowed_origins": [ALLOWED], **sections.pop("client", {})}
    return open_house(options(CHANNEL, client=client, sockjs={"enabled": True}, **{**ON, **sections}))


def request(road: str, body: bytes, more: str = "") -> bytes:
    method, path, kind = HTTP_ROADS[road]
    if method == "GET":
        path, body = f"{path}?cf_connect={quote(body)}", b""
    fields = f"Host: t\r\nConnection: close\r\n{kind}{more}Content-Length: {len(body)}\r\n"
    return f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode() + body


def chunked(road: str, size: int) -> bytes:
    method, path, kind = HTTP_ROADS[road]
    head = f"{method} {path} HTTP/1.1\r\nHost: t\r\n{kind}Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n"
    return head.encode() + b"x" * size


async def said(house: House, sent: bytes) -> bytes:
    """All that the server says to a connection; within ten seconds it ends, and nothing of it is kept."""
    stream = await house.open_stream()
    with seconds(0, within=10.0):
        await stream.send_all(sent)
        came = b""
        while data := await stream.receive_some():
            came += bytes(data)
        await stream.aclose()
        while house.server.doors.connections:  # noqa: ASYNC110 (a SockJS session may have a moment more)
            await trio.sleep(0.1)
    assert house.server.node.registry.clients == {}
    return came


def check(came: bytes, status: int, text: bytes) -> None:
    assert came.startswith(b"HTTP/1.1 %d " % status), came
    assert text in came


@pytest.mark.parametrize("road", POSTS)
async def test_a_body_that_is_too_long(road: str) -> None:
    async with house_of() as house:
        check(await said(house, request(road, b"x" * (LIMIT + 1))), 413, b"")
        check(await said(house, chunked(road, LIMIT + 1)), 413, b"")


@pytest.mark.parametrize("road", [road for road in HTTP_ROADS if "address" in road])
async def test_an_address_that_is_too_long(road: str) -> None:
    async with house_of() as house:
        check(await said(house, request(road, b"x" * 16_384)), 431, b"")


@pytest.mark.parametrize("road", MALFORMED)
async def test_a_malformed_body(road: str) -> None:
    async with house_of() as house:
        for body in (b"hello", b"\xff\xff\xff", b'{"id":1,"connect":{'):
            check(await said(house, request(road, body)), *MALFORMED[road])


@pytest.mark.parametrize("road", EMPTY)
async def test_nothing_where_something_is_due(road: str) -> None:
    if road == "uni_sse by address":
        return  # that is an empty connect, and welcome
    async with house_of() as house:
        check(await said(house, request(road, b"")), *EMPTY[road])


@pytest.mark.parametrize("road", WRONG_CODEC)
async def test_the_other_codec(road: str) -> None:
    to_json, to_protobuf = (EMULATED_PROTOBUF, EMULATED_JSON) if "emulation" in road else (AS_PROTOBUF, AS_JSON)
    async with house_of() as house:
        check(await said(house, request(road, to_protobuf if "protobuf" in road else to_json)), *WRONG_CODEC[road])


@pytest.mark.parametrize("road", HTTP_ROADS)
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://app.example.evil.example", ALLOWED + ":8"])
async def test_a_foreign_page(road: str, origin: str) -> None:
    async with house_of() as house:
        traffic = house.server.node.counters.received_from
        received = {transport: each.frames for transport, each in traffic.items()}
        check(await said(house, request(road, AS_JSON, f"Origin: {origin}\r\n")), 403, b"")
        assert {transport: each.frames for transport, each in traffic.items()} == received, "its body was not looked at"


# ---- WebSocket ---------------------------------------------------------------------------------------------------


def upgrade(road: str, more: str = "") -> bytes:
    path, kind = WEBSOCKETS[road]
    return (
        f"GET {path} HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{kind}{more}"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n"
    ).encode()


@pytest.mark.parametrize("road", WEBSOCKETS)
async def test_a_foreign_page_over_websocket(road: str) -> None:
    async with house_of() as house:
        check(await said(house, upgrade(road, "Origin: https://evil.example\r\n")), 403, b"Forbidden")


JSON_FRAME: Final = masked(AS_JSON)
PROTOBUF_FRAME: Final = masked(AS_PROTOBUF, 2)


@pytest.mark.parametrize(
    ("road", "frame", "code"),
    [
        *((road, masked(b"x" * (LIMIT + 1)), 1009) for road in WEBSOCKETS),
        ("websocket", masked(b"hello"), 3501),
        ("websocket", PROTOBUF_FRAME, 3501),
        ("websocket protobuf", masked(b"\xff\xff", 2), 3501),
        ("websocket protobuf", JSON_FRAME, 3501),
        ("uni_websocket", masked(b"hello"), 3501),
        ("uni_websocket", PROTOBUF_FRAME, 3501),
        ("sockjs websocket", masked(b"hello"), 0),  # SockJS has no code for that: the connection is dropped
        ("sockjs websocket", PROTOBUF_FRAME, 0),
        ("sockjs websocket", masked(b'["hello"]'), 3501),
    ],
)
async def test_frames_over_websocket(road: str, frame: bytes, code: int) -> None:
    async with house_of() as house:
        stream = await house.open_stream()
        await stream.send_all(upgrade(road))
        came = b""
        while b"\r\n\r\n" not in came:
            came += bytes(await stream.receive_some())
        with seconds(0, within=10.0):
            await stream.send_all(frame)
            while data := await stream.receive_some():
                came += bytes(data)
            await stream.aclose()
            await trio.testing.wait_all_tasks_blocked()
        if code:
            assert struct.pack("!H", code) in came or b"c[%d," % code in came
        else:
            assert came.endswith(b"\x81\x01o"), "nothing but what it began with"
        assert house.server.node.registry.clients == {}


# ---- who is not there, who does not read, who says too much ------------------------------------------------------


async def test_sessions_that_there_are_not() -> None:
    async with house_of() as house:
        for _ in range(200):
            node = house.server.node.uid
            for sent, status in (
                ({"node": node, "session": "0" * 36, "data": "{}"}, 204),
                ({"node": "another", "session": "0" * 36, "data": "{}"}, 404),
            ):
                check(await said(house, request("emulation", json.dumps(sent).encode())), status, b"")
            check(await said(house, request("sockjs xhr_send", b'["{}"]')), 404, b"session not found")


SUBSCRIBE: Final = {"id": 2, "subscribe": {"channel": "news"}}


async def stopped(house: House, road: str) -> trio.abc.Stream:
    """A client that is subscribed, and reads no more."""
    if road in ("http_stream", "sse", "http_stream protobuf"):
        name, _, binary = road.partition(" ")
        client = await open_stream(house, name, CONNECT, SUBSCRIBE, lockstep=True, binary=bool(binary))
        await client.next()
        return client.stream  # type: ignore[no-any-return]
    if road in ("uni_sse", "uni_http_stream"):
        client = await open_stream(house, road, {"subs": {"news": {}}}, lockstep=True)
        return client.stream  # type: ignore[no-any-return]
    stream = await house.open_stream(lockstep=True)

    async def read_until(sign: bytes) -> None:
        came = b""
        while sign not in came:
            came += bytes(await stream.receive_some())  # type: ignore[attr-defined]

    if road == "uni_websocket":
        await stream.send_all(upgrade(road))
        await read_until(b"\r\n\r\n")
        await stream.send_all(masked(b'{"subs":{"news":{}}}'))
        await read_until(b'"connect"')
    elif road == "websocket":
        await stream.send_all(upgrade(road))
        await read_until(b"\r\n\r\n")
        await stream.send_all(masked(b"\n".join(json.dumps(each).encode() for each in (CONNECT, SUBSCRIBE))))
        await read_until(b'"subscribe"')
    elif road == "sockjs websocket":
        await stream.send_all(upgrade(road))
        await read_until(b"\x81\x01o")
        await stream.send_all(masked(json.dumps([json.dumps(CONNECT), json.dumps(SUBSCRIBE)]).encode()))
        await read_until(rb"\"subscribe\"")
    else:
        await stream.send_all(request(road, b""))
        await read_until(b"o\n" if "xhr" in road else b"data: o")
        sent = json.dumps(["\n".join([json.dumps(CONNECT), json.dumps(SUBSCRIBE)])]).encode()

        async def send() -> None:
            assert (await house.http("POST", f"{SOCKJS}/xhr_send", sent)).status == 204

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            if road != "sockjs xhr":
                await read_until(rb"\"subscribe\"")
    return stream


STREAMS: Final = [
    "websocket",
    "uni_websocket",
    "http_stream",
    "http_stream protobuf",
    "sse",
    "uni_sse",
    "uni_http_stream",
    "sockjs websocket",
    "sockjs xhr_streaming",
    "sockjs eventsource",
    "sockjs xhr",
]


@pytest.mark.parametrize("road", STREAMS)
async def test_a_reader_that_stops(road: str) -> None:
    """By the deadline of one write; who polls no more, by that of SockJS."""
    async with house_of(client={**NO_PINGS}) as house:
        stream = await stopped(house, road)
        assert len(house.server.node.registry.clients) == 1
        for number in range(3):
            await house.api("publish", channel="news", data=[number, "x" * 1000])
        with seconds(5 if road == "sockjs xhr" else 1, within=1.2):
            while house.server.node.registry.clients:  # noqa: ASYNC110 (nobody tells us)
                await trio.sleep(0.05)
        with seconds(0, within=8.0):
            while house.server.doors.connections:  # noqa: ASYNC110
                await trio.sleep(0.1)
        await stream.aclose()


@pytest.mark.parametrize("road", STREAMS)
async def test_more_than_may_wait_for_a_reader_that_stops(road: str) -> None:
    async with house_of(client={**NO_PINGS, "queue_max_size": 50_000}) as house:
        stream = await stopped(house, road)
        for number in range(6):
            await house.api("publish", channel="news", data=[number, "x" * 20_000])
        assert house.server.node.registry.clients == {}, "at once"
        assert house.server.node.counters.server_disconnects[3008] == 1
        with seconds(0, within=8.0):
            while house.server.doors.connections:  # noqa: ASYNC110
                await trio.sleep(0.1)
        await stream.aclose()


@pytest.mark.parametrize("transport", ["sse", "http_stream"])
async def test_an_emulation_flood(transport: str) -> None:
    """Answers to commands of one who does not read are bounded like everything that waits for a reader."""
    async with house_of(client={**NO_PINGS, "queue_max_size": 20_000}) as house:
        client = await open_stream(house, transport, lockstep=True)
        sent = 0
        while house.server.node.registry.clients:
            sent += 1
            assert sent < 50
            commands = [{"id": 2 + number, "rpc": {"method": "none"}} for number in range(100)]
            assert (await emulate(house, client, *commands)).status == 204
        assert house.server.node.counters.server_disconnects[3008] == 1
        assert (await emulate(house, client, {"id": 2, "rpc": {"method": "none"}})).status == 204, "it tells nobody"
        await client.leave()


async def test_a_flood_of_emulation_from_many_connections() -> None:
    async with house_of(client={**NO_PINGS}) as house:
        client = await open_stream(house, "sse")
        answered: list[int] = []

        async def one(number: int) -> None:
            answered.append((await emulate(house, client, {"id": number, "rpc": {"method": "none"}})).status)

        async with trio.open_nursery() as nursery:
            for number in range(2, 302):
                nursery.start_soon(one, number)
            ids = {(await client.next())["id"] for _ in range(300)}
        assert answered == [204] * 300
        assert ids == set(range(2, 302))
        await client.leave()


async def test_the_same_over_http_2() -> None:
    async with house_of() as house:
        client = await http2(house)
        for path, body, kind, status in (
            ("/connection/http_stream", AS_PROTOBUF, "text/plain", 200),
            ("/connection/http_stream", AS_JSON, "application/octet-stream", 200),
            ("/connection/uni_sse", b"hello", "", 400),
            ("/emulation", b"hello", "", 400),
            ("/emulation", EMULATED_JSON, "", 404),
        ):
            id = await client.send("POST", path, body, content_type=kind)
            while id not in client.ended:
                await client.read()
            assert client.status[id] == status
            assert status != 200 or b"bad request" in client.body[id]
        id = await client.send("POST", "/connection/http_stream", end=False, content_length=str(LIMIT + 1))
        while id not in client.ended:
            await client.read()
        assert client.status[id] == 413
        for path in ("/connection/sse", "/emulation", f"{SOCKJS}/xhr"):
            id = await client.send("POST", path, AS_JSON, origin="https://evil.example")
            while id not in client.ended:
                await client.read()
            assert client.status[id] == 403
        await client.stream.aclose()
        await trio.sleep(2)
        assert house.server.doors.connections == set()
