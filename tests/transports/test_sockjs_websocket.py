"""SockJS over WebSocket."""

from __future__ import annotations

import json
from typing import Any, final

import pytest
import trio

from tests.support.peers import NO_PINGS, House, RawClient
from tests.support.sockjs import ALLOWED, CONNECT, PREFIX, open_sockjs, quiet

pytestmark = pytest.mark.virtual_time


@final
class SockJsClient:
    """Frames as texts."""

    def __init__(self, raw: RawClient) -> None:
        self.raw = raw

    async def frame(self) -> str:
        while (frame := self.raw._frame()) is None:
            data = await self.raw.stream.receive_some()
            assert data, "gone"
            self.raw.buffer += data
        opcode, payload = frame
        if opcode == 8:
            return f"close {int.from_bytes(payload[:2], 'big')}"
        assert opcode == 1
        return payload.decode()

    async def units(self) -> list[dict[str, Any]]:
        frame = await self.frame()
        assert frame[0] == "a", frame
        return [json.loads(line) for message in json.loads(frame[1:]) for line in message.split("\n")]

    async def send(self, text: str) -> None:
        await self.raw.send_frame(text.encode())

    async def command(self, **command: Any) -> None:
        await self.send(json.dumps([json.dumps(command)]))

    async def connect(self) -> None:
        assert await self.frame() == "o"
        await self.command(**CONNECT)
        assert "connect" in (await self.units())[0]


async def websocket(house: House, path: str = "/000/abc/websocket", headers: str = "") -> RawClient:
    stream = await house.open_stream()
    await stream.send_all(
        f"GET {PREFIX}{path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n{headers}\r\n".encode()
    )
    client = RawClient(stream)
    await client.read_handshake()
    house.clients.append(client)
    return client


async def test_a_session() -> None:
    async with open_sockjs() as house:
        client = SockJsClient(await websocket(house))
        await client.connect()
        await client.command(id=2, subscribe={"channel": "news"})
        await client.units()
        await house.api("publish", channel="news", data="a\u2028")
        assert (await client.units())[0]["push"]["pub"]["data"] == "a\u2028"
        (session,) = house.server.node.registry.clients.values()
        assert session.peer.transport == "sockjs"  # type: ignore[attr-defined]


async def test_several_messages_in_one_frame_and_one_without_an_array() -> None:
    async with open_sockjs() as house:
        client = SockJsClient(await websocket(house))
        await client.connect()
        publish = [json.dumps({"id": number, "publish": {"channel": "news", "data": 1}}) for number in (2, 3, 4)]
        await client.send(json.dumps(publish[:2]))
        assert [unit["id"] for unit in await client.units() + await client.units()] == [2, 3]
        await client.send(json.dumps(publish[2]))
        assert [unit["id"] for unit in await client.units()] == [4]


async def test_frames_that_say_nothing_are_passed_over() -> None:
    async with open_sockjs() as house:
        client = SockJsClient(await websocket(house))
        await client.connect()
        for nothing in ("", "[]", '[""]'):
            await client.send(nothing)
        await client.command(id=2, publish={"channel": "news", "data": 1})
        assert [unit["id"] for unit in await client.units()] == [2]


@pytest.mark.parametrize("broken", ['["a', "[1]", "{}"])
async def test_what_cannot_be_read_ends_it(broken: str) -> None:
    async with open_sockjs() as house:
        client = SockJsClient(await websocket(house))
        await client.connect()
        await client.send(broken)
        assert await client.raw.stream.receive_some() == b""
        await quiet()
        assert house.server.node.registry.clients == {}


async def test_the_end_is_told_in_a_frame_before_the_close() -> None:
    async with open_sockjs() as house:
        client = SockJsClient(await websocket(house))
        assert await client.frame() == "o"
        await client.command(id=1, connect={"token": "none"})
        assert await client.frame() == 'c[3500,"invalid token"]'
        assert await client.frame() == "close 1000"
        await client.raw.leave()


async def test_two_sessions_may_have_the_same_id() -> None:
    async with open_sockjs() as house:
        for client in [SockJsClient(await websocket(house)) for _ in range(2)]:
            await client.connect()
        assert len(house.server.node.registry.clients) == 2


async def test_heartbeats() -> None:
    async with open_sockjs(client=NO_PINGS) as house:
        client = SockJsClient(await websocket(house))
        await client.connect()
        for number in (1, 2):
            assert await client.frame() == "h"
            assert trio.current_time() == pytest.approx(25 * number, abs=0.2)
    async with open_sockjs(client=NO_PINGS, sockjs={"heartbeat_delay": "-1s"}) as house:
        client = SockJsClient(await websocket(house))
        await client.connect()
        with trio.move_on_after(100):
            raise AssertionError(await client.frame())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({"Upgrade": "WebSocket", "Connection": "close"}, 400),
        (
            {
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "A" * 22 + "==",
                "Origin": "https://elsewhere.example",
            },
            403,
        ),
    ],
)
async def test_handshakes_that_are_none(headers: dict[str, str], status: int) -> None:
    async with open_sockjs() as house:
        stream = await house.open_stream()
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        await stream.send_all(f"GET {PREFIX}/0/0/websocket HTTP/1.1\r\nHost: test\r\n{lines}\r\n".encode())
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 %d " % status)
        await stream.aclose()


async def test_the_raw_websocket_has_no_frames_of_its_own() -> None:
    async with open_sockjs() as house:
        raw = await websocket(house, "/websocket", f"Origin: {ALLOWED}\r\n")
        reply = await raw.ask(connect={})
        assert "connect" in reply
        await house.api("disconnect", user="")
        assert (await raw.wait_closed())[0] == 3503
