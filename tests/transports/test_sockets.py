"""Real sockets, read by the shared reader, with and without TLS. The clock is still the test's."""

from __future__ import annotations

import errno
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, final

import attrs
import pytest
import trio

from broker.transports import Listening, bind_tcp, host
from broker.transports import links as links_module
from tests.support.certificates import make_certificate
from tests.support.clock import seconds
from tests.support.peers import NO_PINGS, House, RawClient, masked, open_house, options
from tests.support.slow_engine import Gates

pytestmark = [pytest.mark.virtual_time(idle=0.01), pytest.mark.e2e]

UPGRADE = (
    b"GET /connection/websocket HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@final
@attrs.frozen
class Street:
    """A house with a listening socket."""

    house: House
    port: int
    client_tls: ssl.SSLContext | None
    gates: Gates

    async def socket(self, *, receive_buffer: int = 0) -> trio.SocketStream:
        """A TCP connection."""
        sock = trio.socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await sock.connect(("127.0.0.1", self.port))
        return trio.SocketStream(sock)

    async def stream(self, *, receive_buffer: int = 0) -> trio.abc.Stream:
        """A connection that speaks TLS where the server does."""
        plain = await self.socket(receive_buffer=receive_buffer)
        if self.client_tls is None:
            return plain
        stream = trio.SSLStream(plain, self.client_tls, server_hostname="127.0.0.1")
        await stream.do_handshake()
        return stream

    async def client(self, *, receive_buffer: int = 0) -> RawClient:
        """A WebSocket connection whose connect was answered."""
        stream = await self.stream(receive_buffer=receive_buffer)
        await stream.send_all(UPGRADE)
        client = RawClient(stream)
        await client.read_handshake()
        self.house.clients.append(client)
        client.hello = (await client.ask(connect={}))["connect"]
        return client

    async def vanish(self, client: RawClient, *, rude: bool) -> None:
        """Close a client's socket, under TLS if there is any, with a reset where it is `rude`."""
        plain = getattr(client.stream, "transport_stream", client.stream)
        if rude:
            plain.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(plain)
        self.house.clients.remove(client)

    async def others_are_served(self) -> None:
        stream = await self.stream()
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        assert (await read_all(stream)).startswith(b"HTTP/1.1 200")
        await stream.aclose()

    async def nobody_is_left(self) -> None:
        while self.house.server.doors.connections:  # noqa: ASYNC110 (nobody tells us)
            await trio.sleep(0.01)


async def read_all(stream: trio.abc.Stream) -> bytes:
    came = b""
    while data := await stream.receive_some():
        came += bytes(data)
    return came


@asynccontextmanager
async def open_street(tls: bool, folder: Path, **client: Any) -> AsyncIterator[Street]:
    gates = Gates()
    sections: dict[str, Any] = {
        "client": {**NO_PINGS, **client},
        "health": {"enabled": True},
        # a test's second may be over before the kernel has moved a byte
        "websocket": {"message_size_limit": 4 << 20, "write_timeout": "1h"},
    }
    ours = theirs = None
    if tls:
        cert, key = make_certificate(folder)
        ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ours.load_cert_chain(cert, key)
        theirs = ssl.create_default_context(cafile=str(cert))
    async with open_house(options({"history_size": 10, "history_ttl": "60s"}, **sections), pace=gates) as house:
        sock = bind_tcp("127.0.0.1", 0)
        acceptor = house.server.doors.listen(Listening(sock, house.server.sites[0], ours))
        try:
            yield Street(house, sock.getsockname()[1], theirs, gates)
        finally:
            acceptor.stop()


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# ---- both ------------------------------------------------------------------------------------------------------------


async def test_a_conversation(tls: bool, tmp_path: Path) -> None:
    async with open_street(tls, tmp_path) as street:
        alice, bob = await street.client(), await street.client()
        assert (await alice.ask(subscribe={"channel": "a"}))["subscribe"] == {}
        await bob.ask(publish={"channel": "a", "data": "hi"})
        assert (await alice.push())["pub"]["data"] == "hi"
        await street.others_are_served()


async def test_payloads_may_be_large_both_ways(tls: bool, tmp_path: Path) -> None:
    async with open_street(tls, tmp_path, queue_max_size=8 << 20) as street:
        client = await street.client()
        await client.ask(subscribe={"channel": "a"})
        for size in (10_000, 16_384, 100_000, 3_000_000):
            data = "x" * size
            assert "publish" in await client.ask(publish={"channel": "a", "data": data})
            assert (await client.push())["pub"]["data"] == data


async def test_what_the_socket_does_not_take_at_once_follows_in_order(tls: bool, tmp_path: Path) -> None:
    """Small buffers: nearly every write is short, and OpenSSL wants the same bytes again."""
    async with open_street(tls, tmp_path, queue_max_size=8 << 20) as street:
        client = await street.client(receive_buffer=20_000)
        for connection in street.house.server.doors.connections:
            assert connection.link.socket is not None
            connection.link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        await client.ask(subscribe={"channel": "a"})
        sent = [str(n) * (1 + 977 * n % 50_000) for n in range(60)]
        for data in sent:
            await street.house.api("publish", channel="a", data=data)
        assert [(await client.push())["pub"]["data"] for _ in sent] == sent


async def test_many_commands_in_one_segment(tls: bool, tmp_path: Path) -> None:
    async with open_street(tls, tmp_path) as street:
        client = await street.client()
        frames = [masked(json.dumps({"id": n, "rpc": {}}).encode()) for n in range(10, 2010)]
        await client.stream.send_all(b"".join(frames))
        assert [(await client.next())["id"] for _ in frames] == list(range(10, 2010))


async def test_what_was_received_before_a_pause_is_read_after_it(
    tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what TLS has decrypted already, of which the socket says nothing."""
    monkeypatch.setattr(links_module, "_RECEIVE", 64)
    async with open_street(tls, tmp_path) as street:
        client = await street.client()
        street.gates.hold("publish")
        publish = {"publish": {"channel": "a", "data": 1}}
        commands = [{"id": n, **(publish if n % 7 == 0 else {"rpc": {}})} for n in range(10, 60)]
        await client.stream.send_all(b"".join(masked(json.dumps(command).encode()) for command in commands))
        await street.gates.wait_until_held("publish")
        street.gates.open("publish")
        assert [(await client.next())["id"] for _ in range(50)] == list(range(10, 60))


@pytest.mark.parametrize("rude", [False, True])
async def test_a_client_that_goes_while_it_is_not_read_is_noticed(tls: bool, tmp_path: Path, rude: bool) -> None:
    async with open_street(tls, tmp_path) as street:
        client = await street.client()
        street.gates.hold("publish")
        await client.send({"id": 5, "publish": {"channel": "a", "data": 1}})
        await street.gates.wait_until_held("publish")
        await street.vanish(client, rude=rude)
        with seconds(0, within=0.1):
            await street.nobody_is_left()
        street.gates.open("publish")


async def test_a_reset_is_no_crash(tls: bool, tmp_path: Path) -> None:
    async with open_street(tls, tmp_path) as street:
        for _ in range(5):
            await street.vanish(await street.client(), rude=True)
        await street.nobody_is_left()
        await street.others_are_served()
        assert street.house.server.node.counters.connection_crashes == 0


async def test_a_peer_that_is_gone_before_it_is_accepted_is_no_crash(tls: bool, tmp_path: Path) -> None:
    async with open_street(tls, tmp_path) as street:
        for data in (b"", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01"):
            with socket.create_connection(("127.0.0.1", street.port)) as sock:
                sock.send(data)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await street.others_are_served()
        await street.nobody_is_left()


async def test_a_reader_that_stops_is_cut_off_and_nobody_else_feels_it(tls: bool, tmp_path: Path) -> None:
    async with open_street(tls, tmp_path, queue_max_size=100_000) as street:
        slow, other = await street.client(receive_buffer=4096), await street.client()
        for client in (slow, other):
            await client.ask(subscribe={"channel": "a"})
        counters = street.house.server.node.counters
        published = 0
        while not counters.server_disconnects[3008]:
            await street.house.api("publish", channel="a", data="x" * 60_000)
            published += 1
            assert len((await other.push())["pub"]["data"]) == 60_000
            assert published < 300
        assert list(street.house.server.node.registry.clients) == [other.hello["client"]]


async def test_a_reason_arrives_although_the_rest_is_never_read(tls: bool, tmp_path: Path) -> None:
    """To close with bytes unread would be a reset, and the close frame would be lost to it."""
    async with open_street(tls, tmp_path) as street:
        client = await street.client()
        await client.stream.send_all(b"\x81\xff" + (5 << 20).to_bytes(8, "big") + bytes(4) + bytes(1 << 20))
        assert await client.wait_closed() == (1009, "")


async def test_the_end_of_a_connection_is_told_to_tls_as_well(tmp_path: Path) -> None:
    async with open_street(True, tmp_path) as street:
        stream = await street.stream()
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in await read_all(stream)  # without it: BrokenResourceError
        await stream.aclose()
        client = await street.client()
        await client.send_frame(b"\x03\xe8", 8)
        assert await read_all(client.stream) == b"\x88\x02\x03\xe8"


async def test_the_scheme_that_an_application_sees(tls: bool, tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        address = f"{scope['scheme']} {scope['client'][0]} {scope['server'][1]}"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": address.encode()})

    async with open_street(tls, tmp_path) as street:
        street.house.server.sites[0].app = host(app)
        stream = await street.stream()
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        scheme = "https" if tls else "http"
        assert f"{scheme} 127.0.0.1 {street.port}".encode() in await read_all(stream)
        await stream.aclose()


# ---- handshakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n",
        b"\x00" * 100,
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x15\x03\x01\x00\x02\x02\x28",
    ],
    ids=["http", "zeros", "a bad hello", "an alert"],
)
async def test_garbage_instead_of_a_handshake_ends_the_connection(garbage: bytes, tmp_path: Path) -> None:
    async with open_street(True, tmp_path) as street:
        sock = await street.socket()
        await sock.send_all(garbage)
        with seconds(0, within=0.1):
            await street.nobody_is_left()
        await sock.aclose()
        await street.others_are_served()


@pytest.mark.parametrize("begin", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32)])
async def test_a_handshake_has_ten_seconds(begin: bytes, tmp_path: Path) -> None:
    async with open_street(True, tmp_path) as street:
        sock = await street.socket()
        with seconds(10):
            await sock.send_all(begin)
            assert await read_all(sock) == b""
        await sock.aclose()
        await street.nobody_is_left()


async def test_a_client_that_stops_in_the_middle_of_a_handshake_and_goes(tmp_path: Path) -> None:
    async with open_street(True, tmp_path) as street:
        sock = await street.socket()
        await sock.send_all(b"\x16\x03\x01\x02\x00\x01")
        await sock.aclose()
        with seconds(0, within=0.1):
            await street.nobody_is_left()
        await street.others_are_served()


async def test_an_old_protocol_is_refused(tmp_path: Path) -> None:
    async with open_street(True, tmp_path) as street:
        assert street.client_tls is not None
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname = False
        old.verify_mode = ssl.CERT_NONE
        old.set_ciphers("PSK")  # none that the server has
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        stream = trio.SSLStream(await street.socket(), old, server_hostname="127.0.0.1")
        with pytest.raises((trio.BrokenResourceError, ssl.SSLError)):
            await stream.do_handshake()
        await trio.aclose_forcefully(stream)
        await street.others_are_served()


async def test_a_port_that_is_taken_says_so() -> None:
    with bind_tcp("127.0.0.1", 0) as taken, pytest.raises(OSError) as caught:  # noqa: PT011 (by its number, below)
        bind_tcp("127.0.0.1", taken.getsockname()[1])
    assert caught.value.errno == errno.EADDRINUSE
