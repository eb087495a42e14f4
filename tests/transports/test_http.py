"""HTTP/1.1 of one connection: requests after each other, their limits and their time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, final

import pytest
import trio

from broker.eager import own_task
from broker.http1 import Request, response
from broker.transports import Route
from tests.conftest import ErrorLog
from tests.support.clock import seconds
from tests.support.peers import INSECURE, House, open_house

pytestmark = pytest.mark.virtual_time

GET = b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n"


def get(path: str, *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = "".join(f"{field}\r\n" for field in fields)
    return f"{method} {path} HTTP/{version}\r\nHost: test\r\n{lines}\r\n".encode()


def post(body: bytes, *fields: str, path: str = "/echo") -> bytes:
    return get(path, f"Content-Length: {len(body)}", *fields, method="POST") + body


@final
class Peer:
    """The client's end of one connection."""

    def __init__(self, house: House, stream: Any) -> None:
        self.house = house
        self.stream = stream
        self._came = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self, *, body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """The next response: status, headers, body."""
        while b"\r\n\r\n" not in self._came:
            await self._receive()
        head, _, self._came = self._came.partition(b"\r\n\r\n")
        status, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        length = int(headers["content-length"]) if body else 0
        while len(self._came) < length:
            await self._receive()
        content, self._came = self._came[:length], self._came[length:]
        return int(status.split(" ")[1]), headers, content

    async def status(self) -> int:
        return (await self.answer())[0]

    async def ended(self) -> None:
        """The connection ends, and nothing more comes."""
        assert self._came == b""
        assert await self.stream.receive_some() == b""

    async def _receive(self) -> None:
        data = await self.stream.receive_some()
        assert data, f"the connection ended behind {self._came!r}"
        self._came += data


async def echo(request: Request) -> bytes:
    return response(200, request.body)


@asynccontextmanager
async def open_peer(settings: dict[str, Any] | None = None) -> AsyncIterator[Peer]:
    async with open_house({**INSECURE, "health": {"enabled": True}, **(settings or {})}) as house:
        house.server.sites[0].routes["/echo"] = Route(frozenset({"POST"}), echo, 1000)
        peer = Peer(house, await house.open_stream())
        yield peer
        await peer.stream.aclose()


# ---- one after another -----------------------------------------------------------------------------------------------


async def test_a_connection_is_kept_for_the_next_request() -> None:
    async with open_peer() as peer:
        for n in range(5):
            await peer.send(post(b"%d" % n))
            status, headers, body = await peer.answer()
            assert (status, body) == (200, b"%d" % n)
            assert "connection" not in headers


async def test_requests_that_came_together_are_answered_in_order() -> None:
    async with open_peer() as peer:
        await peer.send(b"".join(post(b"%d" % n) for n in range(50)))
        assert [(await peer.answer())[2] for _ in range(50)] == [b"%d" % n for n in range(50)]


async def test_a_request_may_come_byte_by_byte() -> None:
    async with open_peer() as peer:
        for byte in post(b"slowly") + GET:
            await peer.send(bytes((byte,)))
        assert (await peer.answer())[2] == b"slowly"
        assert (await peer.answer())[2] == b"{}"


async def test_requests_behind_one_that_waits_are_answered_after_it() -> None:
    gate = trio.Event()

    async def wait(request: Request) -> bytes:
        await own_task()
        await gate.wait()
        return response(200, b"waited")

    async with open_peer() as peer:
        peer.house.server.sites[0].routes["/wait"] = Route(frozenset({"GET"}), wait)
        await peer.send(get("/wait") + post(b"first"))
        await peer.send(post(b"second"))
        await trio.sleep(100)  # an answer takes what it takes
        gate.set()
        assert [(await peer.answer())[2] for _ in range(3)] == [b"waited", b"first", b"second"]


async def test_a_client_that_goes_takes_its_request_along() -> None:
    seen: list[str] = []

    async def wait(request: Request) -> bytes:
        await own_task()
        try:
            await trio.sleep_forever()
        finally:
            seen.append("cancelled")

    async with open_peer() as peer:
        peer.house.server.sites[0].routes["/wait"] = Route(frozenset({"GET"}), wait)
        await peer.send(get("/wait"))
        await trio.testing.wait_all_tasks_blocked()
        await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert seen == ["cancelled"]


async def test_a_handler_with_a_bug_is_answered_for(error_log: ErrorLog) -> None:
    error_log.expect("a connection crashed(.|\n)*a bug")
    moved: list[bool] = []

    async def fail(request: Request) -> bytes:
        if moved:
            await own_task()
            await trio.sleep(1)
        raise LookupError("a bug")

    async with open_peer() as peer:
        peer.house.server.sites[0].routes["/fail"] = Route(frozenset({"GET"}), fail)
        await peer.send(get("/fail") + GET)
        assert (await peer.status()) == 500
        await peer.ended()
        moved.append(True)
        other = Peer(peer.house, await peer.house.open_stream())
        await other.send(GET + get("/fail") + GET)
        assert [await other.status(), await other.status()] == [200, 500]
        await other.ended()


# ---- the end of a connection -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "connection", "ends"),
    [
        (get("/health"), None, False),
        (get("/health", "Connection: close"), "close", True),
        (get("/health", "Connection: foo, CLOSE"), "close", True),
        (get("/health", version="1.0"), "close", True),
        (get("/health", "Connection: keep-alive", version="1.0"), "keep-alive", False),
    ],
)
async def test_who_ends_the_connection(request_: bytes, connection: str | None, ends: bool) -> None:
    async with open_peer() as peer:
        await peer.send(request_)
        status, headers, _ = await peer.answer()
        assert (status, headers.get("connection")) == (200, connection)
        if ends:
            await peer.ended()
        else:
            await peer.send(GET)
            assert await peer.status() == 200


async def test_nothing_behind_the_last_request_is_answered() -> None:
    async with open_peer() as peer:
        await peer.send(post(b"last", "Connection: close") + post(b"never"))
        await peer.send(post(b"never"))
        assert (await peer.answer())[2] == b"last"
        await peer.ended()


async def test_nothing_behind_a_refused_request_is_answered() -> None:
    async with open_peer() as peer:
        await peer.send(b"GET /health HTTP/1.1\r\nHost: test\r\nbad header\r\n\r\n" + GET)
        await peer.send(GET)
        assert await peer.status() == 400
        await peer.ended()


# ---- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/nothing"), 404),
        (get("/health/"), 404),
        (get("//health"), 404),
        (post(b"", path="/health"), 405),
        (get("/api/publish"), 405),
        (get("/health", method="OPTIONS"), 405),
        (get("/health", method="CONNECT"), 405),
        (post(b"x" * 1001), 413),
        (get("/echo", "Transfer-Encoding: chunked", method="POST") + b"3e9\r\n" + b"x" * 1001, 413),
        (get("/health", f"X: {'x' * 17000}"), 431),
        (get("/health", *[f"X{n}: x" for n in range(120)]), 431),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)
async def test_what_is_refused_is_answered_once_and_ends_the_connection(request_: bytes, status: int) -> None:
    async with open_peer() as peer:
        await peer.send(request_)
        given, headers, _ = await peer.answer()
        assert (given, headers["connection"]) == (status, "close")
        await peer.ended()
        assert peer.house.server.node.counters.http_refused[status] == 1


async def test_a_body_may_be_as_long_as_its_route_allows() -> None:
    async with open_peer() as peer:
        await peer.send(post(b"x" * 1000))
        assert (await peer.answer())[2] == b"x" * 1000
        await peer.send(get("/echo", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n0\r\n\r\n")
        assert (await peer.answer())[2] == b"abc"


async def test_a_client_that_expects_it_is_told_to_go_on() -> None:
    async with open_peer() as peer:
        await peer.send(get("/echo", "Content-Length: 3", "Expect: 100-continue", method="POST"))
        assert (await peer.answer(body=False))[0] == 100
        await peer.send(b"abc")
        assert (await peer.answer())[2] == b"abc"
        await peer.send(get("/echo", "Content-Length: 3000", "Expect: 100-continue", method="POST"))
        assert await peer.status() == 413


async def test_head_is_get_without_its_body() -> None:
    async with open_peer() as peer:
        await peer.send(get("/health", method="HEAD") + GET)
        status, headers, _ = await peer.answer(body=False)
        assert (status, headers["content-length"]) == (200, "2")
        assert (await peer.answer())[2] == b"{}"


# ---- large answers ---------------------------------------------------------------------------------------------------


async def test_an_answer_may_be_larger_than_what_may_wait_for_a_client() -> None:
    large = bytes(range(256)) * 20_000

    async def give(request: Request) -> bytes:
        return response(200, large)

    async with open_peer() as peer:
        peer.house.server.sites[0].routes["/large"] = Route(frozenset({"GET"}), give)
        for last in (False, True):
            await peer.send(get("/large", *(["Connection: close"] if last else [])))
            assert (await peer.answer())[2] == large
        await peer.ended()


# ---- time ------------------------------------------------------------------------------------------------------------


async def trickle(peer: Peer, data: bytes, pause: float) -> None:
    """Send byte by byte until the server has had enough."""
    try:
        for byte in data * 1000:
            await peer.send(bytes((byte,)))
            await trio.sleep(pause)
    except trio.BrokenResourceError:
        return
    raise AssertionError("the server has patience without end")


@pytest.mark.parametrize("begin", [b"", b"G", b"GET /health HTTP/1.1\r\nHost: test\r\n"])
async def test_the_first_head_has_ten_seconds(begin: bytes) -> None:
    async with open_peer() as peer:
        with seconds(10):
            await peer.send(begin)
            await peer.ended()


async def test_a_head_that_trickles_has_no_more() -> None:
    async with open_peer() as peer:
        with seconds(10, within=3):
            await trickle(peer, b"X: x\r\n", 1)


async def test_the_next_head_has_ten_seconds_from_its_first_byte_on() -> None:
    async with open_peer() as peer:
        await peer.send(GET)
        assert await peer.status() == 200
        await trio.sleep(17)
        with seconds(10, within=3):
            await trickle(peer, b"GET /health?", 2)


async def test_the_next_request_has_thirty_seconds() -> None:
    async with open_peer() as peer:
        for _ in range(5):
            await peer.send(GET)
            assert await peer.status() == 200
            await trio.sleep(29)
        with seconds(1):
            await peer.ended()


async def test_a_body_has_thirty_seconds_from_its_head_on() -> None:
    async with open_peer() as peer:
        for _ in range(2):
            await trio.sleep(5)
            await peer.send(post(b"x" * 100)[:-1])
            await trio.sleep(29)
            await peer.send(b"x")
            assert await peer.status() == 200
        await peer.send(get("/echo", "Content-Length: 1000", method="POST"))
        with seconds(30, within=3):
            await trickle(peer, b"x", 1)


async def test_a_slow_answer_is_waited_for_and_the_next_request_has_its_time() -> None:
    async def wait(request: Request) -> bytes:
        await own_task()
        await trio.sleep(75)
        return response(200, b"late")

    async with open_peer() as peer:
        peer.house.server.sites[0].routes["/wait"] = Route(frozenset({"GET"}), wait)
        await peer.send(get("/wait"))
        with seconds(75):
            assert (await peer.answer())[2] == b"late"
        with seconds(30):
            await peer.ended()


# ---- upgrades --------------------------------------------------------------------------------------------------------

UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


async def test_a_request_may_come_before_the_upgrade() -> None:
    async with open_peer() as peer:
        await peer.send(GET)
        assert await peer.status() == 200
        await peer.send(get("/connection/websocket", *UPGRADE))
        status, headers, _ = await peer.answer(body=False)
        assert (status, headers["sec-websocket-accept"]) == (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        await trio.sleep(9)  # HTTP's time no longer counts: the session has ten seconds of its own
        assert len(peer.house.server.doors.connections) == 1


async def test_bytes_behind_the_handshake_are_refused() -> None:
    async with open_peer() as peer:
        await peer.send(get("/connection/websocket", *UPGRADE) + b"\x81")
        assert await peer.status() == 400
        await peer.ended()


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ((), 400),
        (UPGRADE[1:], 400),
        ((*UPGRADE[:2], "Sec-WebSocket-Version: 12", UPGRADE[3]), 400),
        (UPGRADE[:3], 400),
        ((*UPGRADE, "Origin: http://evil.example"), 403),
    ],
)
async def test_a_refused_upgrade_ends_the_connection(fields: tuple[str, ...], status: int) -> None:
    async with open_peer() as peer:
        await peer.send(get("/connection/websocket", *fields))
        assert await peer.status() == status
        await peer.send(GET)
        await peer.ended()


# ---- who may come in -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        ([], None, 101),
        ([], "https://example.com", 403),
        (["https://example.com"], "https://example.com", 101),
        (["https://example.com"], "https://EXAMPLE.com", 101),
        (["https://example.com"], "http://example.com", 403),
        (["https://example.com"], "https://example.com.evil.example", 403),
        (["https://example.com"], "null", 403),
        (["https://*.example.com"], "https://chat.example.com", 101),
        (["https://*.example.com"], "https://example.com", 403),
        (["*"], "https://anything.example", 101),
        (["*"], "null", 101),
    ],
)
async def test_pages_of_other_sites_are_refused(allowed: list[str], origin: str | None, status: int) -> None:
    async with open_peer({"client": {"insecure": True, "allowed_origins": allowed}}) as peer:
        fields = [f"Origin: {origin}"] if origin is not None else []
        await peer.send(get("/connection/websocket", *UPGRADE, *fields))
        assert (await peer.answer(body=False))[0] == status


async def test_connections_come_in_a_burst_and_then_one_by_one() -> None:
    async with open_house({"client": {"insecure": True, "connection_rate_limit": 3}}) as house:

        async def attempt() -> int:
            peer = Peer(house, await house.open_stream())
            await peer.send(get("/connection/websocket", *UPGRADE))
            status = (await peer.answer(body=False))[0]
            await peer.stream.aclose()
            return status

        assert [await attempt() for _ in range(5)] == [101, 101, 101, 503, 503]
        await trio.sleep(1)
        assert [await attempt() for _ in range(2)] == [101, 503]
        await trio.sleep(0.5)
        assert await attempt() == 503
        await trio.sleep(60)
        assert [await attempt() for _ in range(5)] == [101, 101, 101, 503, 503]
        assert house.server.node.counters.connection_limit == 6


async def test_so_many_connections_and_no_more() -> None:
    async with open_house({"client": {"insecure": True, "connection_limit": 2}}) as house:
        first, _second = await house.connected(), await house.connected()
        peer = Peer(house, await house.open_stream())
        await peer.send(get("/connection/websocket", *UPGRADE))
        status, _, body = await peer.answer()
        assert (status, body) == (503, b"Service Unavailable")
        await peer.ended()
        await first.leave()
        await trio.sleep(1)
        await house.connected()
