"""Clients of every transport at once come, are told, and go in every way there is: nothing of them remains.

Real sockets, one process: so that tasks, timers, descriptors and bytes can be counted as well as what the hub holds.
"""

from __future__ import annotations

import gc
import json
import os
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, final
from urllib.parse import quote

import attrs
import pytest
import trio

from broker.tls import TlsOptions, listener_context
from broker.transports import Listening, bind_tcp
from broker.values import Pem
from tests.support import protobuf
from tests.support.certificates import make_certificate
from tests.support.http2 import Http2Client
from tests.support.peers import House, masked, open_house, secured, token
from tests.support.streams import ON

pytestmark = [pytest.mark.virtual_time(idle=0.01), pytest.mark.e2e]

CHANNEL: Final = "square"
MARK: Final = b"for everybody"
GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, EOFError)


@final
@attrs.define
class Town:
    """A house with two listening sockets: a plain one, and one with TLS and HTTP/2."""

    house: House
    plain: int
    tls: int
    trusting: ssl.SSLContext

    async def dial(self, *, tls: bool = False) -> trio.abc.Stream:
        stream = await trio.open_tcp_stream("127.0.0.1", self.tls if tls else self.plain)
        if not tls:
            return stream
        over = trio.SSLStream(stream, self.trusting, server_hostname="127.0.0.1")
        await over.do_handshake()
        return over


@final
@attrs.define
class Visit:
    """One client: an open way in, and how its transport says goodbye, if it has a word for it."""

    stream: trio.abc.Stream
    goodbye: bytes = b""
    came: bytes = b""
    tls: bool = False

    async def until(self, *signs: bytes) -> bytes:
        """Read until one of `signs` has come."""
        while not any(sign in self.came for sign in signs):
            data = await self.stream.receive_some()
            if not data:
                raise EOFError(self.came)
            self.came += bytes(data)
        return self.came

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)


Open = Callable[[Town, str], Awaitable[Visit]]


def connect_of(user: str) -> dict[str, Any]:
    return {"id": 1, "connect": {"token": token(user, subs={CHANNEL: {}})}}


def upgrade(path: str, more: str = "") -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{more}"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n"
    ).encode()


def post(path: str, body: bytes, more: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: t\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


BINARY: Final = "Content-Type: application/octet-stream\r\n"
CLOSE_FRAME: Final = masked(struct.pack("!H", 1000), 8)


async def websocket(town: Town, user: str, *, binary: bool = False) -> Visit:
    visit = Visit(await town.dial(), CLOSE_FRAME)
    await visit.say(upgrade("/connection/websocket", "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n" * binary))
    command = connect_of(user)
    await visit.until(b"\r\n\r\n")
    await visit.say(masked(protobuf.commands([command]), 2) if binary else masked(json.dumps(command).encode()))
    return visit


async def stream(town: Town, user: str, *, path: str, binary: bool = False, get: bool = False) -> Visit:
    visit = Visit(await town.dial())
    command = connect_of(user)
    body = protobuf.commands([command]) if binary else json.dumps(command).encode()
    if path.startswith("uni_"):
        body = json.dumps(command["connect"]).encode()
    if get:
        await visit.say(f"GET /connection/{path}?cf_connect={quote(body)} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
    else:
        await visit.say(post(f"/connection/{path}", body, BINARY * binary))
    return visit


async def emulating(town: Town, user: str) -> Visit:
    """A stream whose client subscribes and publishes by requests, too."""
    visit = await stream(town, user, path="sse")
    await visit.until(b'"node"')
    said = await visit.until(b"}}\n\n")
    hello = json.loads(said[said.index(b"data: ") + 6 :].split(b"\n")[0])["connect"]
    for command in ({"id": 2, "subscribe": {"channel": "lane"}}, {"id": 3, "publish": {"channel": "lane", "data": 1}}):
        sent = {"node": hello["node"], "session": hello["session"], "data": json.dumps(command)}
        request = await town.dial()
        await request.send_all(post("/emulation", json.dumps(sent).encode()))
        assert bytes(await request.receive_some()).startswith(b"HTTP/1.1 204")
        await trio.aclose_forcefully(request)
    await visit.until(b'"id":3')
    return visit


async def uni_websocket(town: Town, user: str) -> Visit:
    visit = Visit(await town.dial(), CLOSE_FRAME)
    connect = quote(json.dumps(connect_of(user)["connect"]))
    await visit.say(upgrade(f"/connection/uni_websocket?cf_connect={connect}"))
    return visit


def sockjs_path(user: str) -> str:
    return f"/connection/sockjs/000/{user}"


async def sockjs_send(town: Town, user: str, command: dict[str, Any]) -> None:
    request = await town.dial()
    await request.send_all(post(f"{sockjs_path(user)}/xhr_send", json.dumps([json.dumps(command)]).encode()))
    await request.receive_some()
    await trio.aclose_forcefully(request)


async def sockjs_websocket(town: Town, user: str) -> Visit:
    visit = Visit(await town.dial(), CLOSE_FRAME)
    await visit.say(upgrade(f"{sockjs_path(user)}/websocket"))
    await visit.until(b"\x81\x01o")
    await visit.say(masked(json.dumps([json.dumps(connect_of(user))]).encode()))
    return visit


async def sockjs_stream(town: Town, user: str, *, way: str) -> Visit:
    visit = Visit(await town.dial())
    if way == "eventsource":
        await visit.say(f"GET {sockjs_path(user)}/{way} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        await visit.until(b"data: o")
    else:
        await visit.say(post(f"{sockjs_path(user)}/{way}", b""))
        await visit.until(b"\no\n")
    await sockjs_send(town, user, connect_of(user))
    return visit


async def sockjs_polling(town: Town, user: str) -> Visit:
    """Its last poll waits for what is published."""
    visit = Visit(await town.dial())
    await visit.say(post(f"{sockjs_path(user)}/xhr", b""))
    await visit.until(b"\no\n", b"o\n")
    await sockjs_send(town, user, connect_of(user))
    await visit.say(post(f"{sockjs_path(user)}/xhr", b""))
    await visit.until(b"connect")
    await visit.say(post(f"{sockjs_path(user)}/xhr", b""))
    return visit


@final
class Http2Visit:
    """Streams of one connection look like visits: the second of two is the one that is watched."""

    def __init__(self, client: Http2Client, id: int) -> None:
        self.client = client
        self.id = id

    async def receive_some(self, most: int | None = None) -> bytes:
        while not self.client.body[self.id]:
            if self.id in self.client.ended or self.id in self.client.reset:
                return b""
            await self.client.read()
        data, self.client.body[self.id] = self.client.body[self.id], b""
        return data


async def http2_stream(town: Town, user: str, *, path: str) -> Visit:
    plain = await town.dial(tls=True)
    client = Http2Client(plain)
    body = json.dumps(connect_of(user)).encode()
    await client.send("POST", f"/connection/{path}", body)
    id = await client.send("POST", f"/connection/{path}", body)
    visit = Visit(plain, tls=True)
    watched: Any = Http2Visit(client, id)
    while MARK not in visit.came and b"connect" not in visit.came:
        visit.came += await watched.receive_some()
    visit.stream = _Watched(plain, watched)
    return visit


@final
class _Watched(trio.abc.HalfCloseableStream):
    """What is read is the stream's, what is closed is the connection."""

    def __init__(self, carrier: trio.abc.Stream, watched: Http2Visit) -> None:
        self.carrier = carrier
        self._watched = watched

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._watched.receive_some()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.carrier.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.carrier.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """TLS has none: the socket's own."""
        await _socket_of(self.carrier).send_eof()

    async def aclose(self) -> None:
        await self.carrier.aclose()


WAYS_IN: Final[dict[str, Open]] = {
    "websocket": websocket,
    "websocket protobuf": partial(websocket, binary=True),
    "http_stream": partial(stream, path="http_stream"),
    "http_stream protobuf": partial(stream, path="http_stream", binary=True),
    "sse": partial(stream, path="sse", get=True),
    "sse by post": partial(stream, path="sse"),
    "emulation": emulating,
    "uni_websocket": uni_websocket,
    "uni_sse": partial(stream, path="uni_sse", get=True),
    "uni_http_stream": partial(stream, path="uni_http_stream"),
    "sockjs websocket": sockjs_websocket,
    "sockjs xhr_streaming": partial(sockjs_stream, way="xhr_streaming"),
    "sockjs eventsource": partial(sockjs_stream, way="eventsource"),
    "sockjs xhr": sockjs_polling,
    "http/2 sse": partial(http2_stream, path="sse"),
    "http/2 http_stream": partial(http2_stream, path="http_stream"),
}


# ---- ways out ----------------------------------------------------------------------------------------------------


def _socket_of(stream: Any) -> trio.SocketStream:
    while not isinstance(stream, trio.SocketStream):
        stream = getattr(stream, "carrier", None) or stream.transport_stream
    return stream


async def close(town: Town, visit: Visit, user: str) -> None:
    """With the transport's own goodbye, where it has one."""
    if visit.goodbye:
        await visit.say(visit.goodbye)
        await read_out(visit)
    await trio.aclose_forcefully(_socket_of(visit.stream))


async def reset(town: Town, visit: Visit, user: str) -> None:
    plain = _socket_of(visit.stream)
    plain.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(plain)


async def half_close(town: Town, visit: Visit, user: str) -> None:
    await _socket_of(visit.stream).send_eof()
    await read_out(visit)
    await trio.aclose_forcefully(_socket_of(visit.stream))


async def be_disconnected(town: Town, visit: Visit, user: str) -> None:
    await town.house.api("disconnect", user=user)
    await say_goodbye(visit)


async def expire(town: Town, visit: Visit, user: str) -> None:
    await town.house.api("refresh", user=user, expired=True)
    await say_goodbye(visit)


async def vanish_in_the_middle(town: Town, visit: Visit, user: str) -> None:
    """What is published as it goes meets a socket that is closing."""
    await trio.aclose_forcefully(_socket_of(visit.stream))
    await town.house.api("publish", channel=CHANNEL, data="late")


async def say_goodbye(visit: Visit) -> None:
    if visit.goodbye:
        await visit.say(visit.goodbye)
    await read_out(visit)
    await trio.aclose_forcefully(_socket_of(visit.stream))


async def read_out(visit: Visit) -> None:
    with suppress(*GONE):
        while await visit.stream.receive_some():
            pass


WAYS_OUT: Final = (close, reset, half_close, be_disconnected, expire, vanish_in_the_middle)


# ---- what there is -----------------------------------------------------------------------------------------------


def inventory(town: Town) -> dict[str, int]:
    """Everything that a client could leave behind."""
    house = town.house
    node, doors = house.server.node, house.server.doors
    sockjs: Any = house.server.sites[0].folders["/connection/sockjs"]
    return {
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "connections": len(doors.connections),
        "bytes that wait": sum(connection.outbox.queued for connection in doors.connections),
        "clients": len(node.registry.clients),
        "users": len(node.registry.users),
        "sessions": len(node.registry.sessions),
        "channels": len(node.registry.channels),
        "timers": len(node.timers),
        "presence": sum(len(channel) for channel in house.presence.values()),
        "channels with presence": len(house.presence),
        "sockjs sessions": len(sockjs.sessions),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


@asynccontextmanager
async def open_town(folder: Path) -> AsyncIterator[Town]:
    cert, key = make_certificate(folder)
    tls = listener_context(TlsOptions(cert_pem=Pem(cert.read_text()), key_pem=Pem(key.read_text())), http2=True)
    trusting = ssl.create_default_context(cafile=str(cert))
    trusting.set_alpn_protocols(["h2"])
    channel = {
        "presence": True,
        "join_leave": True,
        "history_size": 10,
        "history_ttl": "60s",
        "allow_subscribe_for_client": True,
        "allow_publish_for_client": True,
    }
    # a test's second may be over before the kernel has moved a byte
    sections = {"websocket": {"write_timeout": "1h"}, "sockjs": {"enabled": True}, **ON}
    async with open_house(secured(channel, **sections)) as house:
        socks = [bind_tcp("127.0.0.1", 0), bind_tcp("127.0.0.1", 0)]
        site, doors = house.server.sites[0], house.server.doors
        acceptors = [doors.listen(Listening(socks[0], site)), doors.listen(Listening(socks[1], site, tls, http2=True))]
        try:
            yield Town(house, *(sock.getsockname()[1] for sock in socks), trusting)
        finally:
            for acceptor in acceptors:
                acceptor.stop()


async def nobody_left(town: Town, base: dict[str, int]) -> None:
    """Returns when everything is as it was; what stays for more than a minute will stay."""
    with trio.move_on_after(60):
        while inventory(town) != base:  # noqa: ASYNC110 (nobody tells us)
            await trio.sleep(0.2)
    gc.collect()
    assert inventory(town) == base


async def visit(town: Town, way: str, leave: Any, user: str, ready: list[str], told: trio.Event) -> None:
    guest = await WAYS_IN[way](town, user)
    await guest.until(b"connect", b"6.9.1 OSS")
    ready.append(user)
    await told.wait()
    await guest.until(MARK)
    await leave(town, guest, user)


async def churn(town: Town, seed: int, count: int) -> None:
    """`count` clients of each transport; their order, and how each of them leaves, are drawn."""
    rng = random.Random(seed)
    plans = [(way, WAYS_OUT[number % len(WAYS_OUT)]) for way in WAYS_IN for number in range(count)]
    rng.shuffle(plans)
    ready: list[str] = []
    told = trio.Event()
    async with trio.open_nursery() as nursery:
        for number, (way, leave) in enumerate(plans):
            nursery.start_soon(visit, town, way, leave, f"u{seed}x{number}", ready, told)
            if rng.random() < 0.3:
                await trio.lowlevel.checkpoint()
        while len(ready) < len(plans):  # noqa: ASYNC110 (real sockets: the kernel tells)
            await trio.sleep(0.01)
        assert inventory(town)["users"] == len(plans)
        await town.house.api("publish", channel=CHANNEL, data=MARK.decode())
        told.set()


@pytest.mark.parametrize("seed", range(2))
async def test_everybody_comes_and_goes_and_nothing_remains(seed: int, tmp_path: Path) -> None:
    async with open_town(tmp_path) as town:
        await churn(town, 1000 + seed, 1)  # what is made once is there
        await trio.sleep(20)
        base = inventory(town)
        assert {name: count for name, count in base.items() if count and name not in ("tasks", "descriptors")} == {}
        for round in range(2):
            await churn(town, 10 * seed + round, len(WAYS_OUT))
            await nobody_left(town, base)


@pytest.mark.parametrize("way", WAYS_IN)
async def test_the_check_sees_who_stays(way: str, tmp_path: Path) -> None:
    """The check would fail: one client of this transport that has not gone is in all it counts."""
    async with open_town(tmp_path) as town:
        base = inventory(town)
        guest = await WAYS_IN[way](town, "guest")
        await guest.until(b"connect", b"6.9.1 OSS")
        now = inventory(town)
        for what in ("connections", "clients", "users", "channels", "timers", "presence", "descriptors"):
            assert now[what] > base[what], what
        await close(town, guest, "guest")
