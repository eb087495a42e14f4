"""A round's load: connections opened and subscribed, publications posted, deliveries waited for."""

from __future__ import annotations

import gc
import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, final

from benchmarks.frames import HIGHEST_NUMBER, client_frame, data_of, handshake, post, split_frames
from benchmarks.servers import Server
from benchmarks.sockets import BUFFER, ApiPool, Audience, Poll, Probe, Stuck, Subscriber, read, send

OPENING_AT_ONCE = 128
"""Connections whose handshake is under way: fewer than any server's accept queue holds."""

PROBES = 10
"""Subscribers of a channel whose latencies are taken, spread evenly among the others."""

_IP_BIND_ADDRESS_NO_PORT = 24
_ADDRESSES = 250

Commands = list[dict[str, Any]]


@final
class _Opening:
    """A connection from the upgrade request to the last reply to its first commands."""

    def __init__(
        self, sock: socket.socket, frame: bytes, replies: int, on_open: Callable[[socket.socket], None]
    ) -> None:
        self.sock = sock
        self._frame = frame
        self._missing = replies
        self._on_open = on_open
        self._data = b""
        self._upgraded = False

    def readable(self) -> None:
        self._data += bytes(BUFFER[: read(self.sock)])
        if not self._upgraded:
            head, separator, rest = self._data.partition(b"\r\n\r\n")
            if not separator:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                raise ConnectionError(f"the server refused the upgrade: {head.decode(errors='replace')}")
            self._upgraded, self._data = True, rest
            send(self.sock, self._frame)
        payloads, self._data = split_frames(self._data)
        for reply in (json.loads(line) for payload in payloads for line in payload.split(b"\n")):
            if "error" in reply:
                raise ConnectionError(f"the server answered {reply}")
            self._missing -= bool(reply.get("id"))
        if not self._missing:
            self._on_open(self.sock)


@final
class Load:
    """All sockets of one round. Open it with `with`: leaving closes them."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.poll = Poll()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self.poll.close()

    def open_links(
        self, count: int, commands: Callable[[int], Commands], use: Callable[[int, socket.socket], None]
    ) -> None:
        """Open `count` WebSocket connections and send `commands(i)` on each, in one frame.

        `use(i, sock)` is called as soon as all commands of connection i are answered; it has to `poll.replace`.
        """
        upgrade = handshake(self._server.host, self._server.port, self._server.path)
        under_way: set[int] = set()

        def opened(number: int, sock: socket.socket) -> None:
            under_way.remove(number)
            use(number, sock)

        for number in range(count):
            asked = commands(number)
            sock = self._dial()
            under_way.add(number)
            self.poll.add(_Opening(sock, client_frame(*asked), len(asked), partial(opened, number)))
            send(sock, upgrade)
            if len(under_way) >= OPENING_AT_ONCE:
                self.poll.turn_until(lambda: len(under_way) < OPENING_AT_ONCE, "handshakes")
        self.poll.turn_until(lambda: not under_way, "handshakes")

    def subscribe(self, count: int, channel: Callable[[int], str], *, probes: int = 0) -> Audience:
        """Open `count` connections, each with one subscription; `probes` of them take latencies."""
        audience = Audience()
        every = max(count // probes, 1) if probes else 0

        def use(number: int, sock: socket.socket) -> None:
            probing = every and number % every == 0
            self.poll.replace(Probe(sock, audience) if probing else Subscriber(sock, audience))

        self.open_links(count, lambda number: [connect(), subscribe(channel(number))], use)
        return audience

    def open_api(self, count: int) -> ApiPool:
        return ApiPool(self.poll, [self._dial() for _ in range(count)])

    def _dial(self) -> socket.socket:
        server = self._server
        sock = socket.socket()
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if server.host.startswith("127."):
                # One address has 28,000 ports, and a closed connection keeps its port for a minute.
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((f"127.0.1.{1 + sock.fileno() % _ADDRESSES}", 0))
            sock.settimeout(10)
            sock.connect((server.host, server.port))
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock


@final
class Publications:
    """Numbered publications, as requests that are ready to be sent."""

    def __init__(
        self, server: Server, audience: Audience, channels: Sequence[str], size: int, per_request: int = 1
    ) -> None:
        data = data_of(size)
        self._audience = audience
        self._per_request = per_request
        self._requests = [_request(server, channel, data, per_request) for channel in channels]
        self.made = 0

    def make(self, at: float | None = None) -> bytes:
        """The next request; its publications count as sent at `at`, or now."""
        first = self.made
        numbers = tuple(number % HIGHEST_NUMBER for number in range(first, first + self._per_request))
        request = self._requests[(first // self._per_request) % len(self._requests)] % numbers
        self.made += self._per_request
        sent_at = self._audience.sent_at
        now = time.perf_counter() if at is None else at
        for number in numbers:
            sent_at[number] = now
        return request

    def make_until(self, end: float) -> Callable[[], bytes | None]:
        return lambda: self.make() if time.perf_counter() < end else None


def _request(server: Server, channel: str, data: bytes, per_request: int) -> bytes:
    body = b'{"channel":%s,"data":' % json.dumps(channel).encode() + data + b"}"
    method = "publish"
    if per_request > 1:
        body = b'{"commands":[' + b",".join([b'{"publish":' + body + b"}"] * per_request) + b"]}"
        method = "batch"
    return post(server.host, server.port, f"{server.api_path}/{method}", server.api_key, body)


def drain(load: Load, api: ApiPool, audience: Audience, expected: Callable[[], int]) -> None:
    """Wait until every request is answered and all `expected()` deliveries are read.

    Raises:
        Stuck: fewer arrived, or more.
    """
    load.poll.turn_until(lambda: api.idle and audience.deliveries >= expected(), "deliveries")
    load.poll.turn(0)
    if audience.deliveries != expected():
        raise Stuck(f"{audience.deliveries} deliveries were counted where {expected()} are due")


def connect(token: str = "") -> dict[str, Any]:
    return {"id": 1, "connect": {"token": token} if token else {}}


def subscribe(channel: str) -> dict[str, Any]:
    return {"id": 2, "subscribe": {"channel": channel}}


@contextmanager
def calm() -> Iterator[None]:
    """No garbage collection in the load while it lasts."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
