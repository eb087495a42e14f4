"""The load's side of a connection: plain sockets in one epoll set, in one process."""

from __future__ import annotations

import re
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, final

from benchmarks.frames import NUMBERED, PING, PONG, MarkCounter, split_frames

PATIENCE = 30.0
"""Seconds without any progress after which a round is given up."""

_CONTENT_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
BUFFER = bytearray(1 << 18)
"""One for all: the load reads one socket at a time and keeps nothing of what it read."""


class Stuck(RuntimeError):
    """The server stopped doing what was waited for."""


class Handler(Protocol):
    """What an epoll set calls."""

    sock: socket.socket

    def readable(self) -> None: ...


@final
class Poll:
    """One level-triggered epoll set: whoever has bytes is called, everybody once per turn."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}

    def add(self, handler: Handler) -> None:
        self._handlers[handler.sock.fileno()] = handler
        self._epoll.register(handler.sock.fileno(), select.EPOLLIN)

    def replace(self, handler: Handler) -> None:
        """From now on `handler` is called for its socket, which is in the set already."""
        self._handlers[handler.sock.fileno()] = handler

    def turn(self, timeout: float) -> int:
        """Call all that are readable now, or after at most `timeout` seconds; how many they were."""
        handlers = self._handlers
        events = self._epoll.poll(timeout, max(len(handlers), 1))
        for descriptor, _ in events:
            handlers[descriptor].readable()
        return len(events)

    def turn_until(self, done: Callable[[], bool], what: str) -> None:
        """Turn until `done()`.

        Raises:
            Stuck: nothing at all came in for `PATIENCE` seconds.
        """
        last = time.monotonic()
        while not done():
            if self.turn(0.25):
                last = time.monotonic()
            elif time.monotonic() - last > PATIENCE:
                raise Stuck(f"nothing came from the server for {PATIENCE:.0f} s while waiting for {what}")

    def close(self) -> None:
        """Close every socket of the set with a reset, so that no port stays behind in TIME_WAIT."""
        self._epoll.close()
        for handler in self._handlers.values():
            handler.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            handler.sock.close()
        self._handlers.clear()


def read(sock: socket.socket) -> int:
    """Read what is there into the shared buffer; how many bytes it is.

    Raises:
        ConnectionError: the server hung up.
    """
    try:
        size = sock.recv_into(BUFFER)
    except BlockingIOError:
        return 0
    if not size:
        raise ConnectionError("the server hung up: it ended, or took the load for too slow a reader")
    return size


def send(sock: socket.socket, data: bytes) -> None:
    """Send all of `data`; what does not fit at once waits for the server to read."""
    sent = sock.send(data)
    if sent < len(data):
        sock.settimeout(PATIENCE)
        sock.sendall(data[sent:])
        sock.setblocking(False)


@final
class Audience:
    """What all subscribers of a round have received together."""

    def __init__(self) -> None:
        self.deliveries = 0
        self.sent_at: dict[int, float] = {}
        """When publication n was meant to be sent."""
        self.latencies: list[float] = []
        """Seconds from then to the reading, as the probes saw them."""


@final
class Subscriber:
    """Counts deliveries and answers pings."""

    __slots__ = ("_audience", "_marks", "sock")

    def __init__(self, sock: socket.socket, audience: Audience) -> None:
        self.sock = sock
        self._audience = audience
        self._marks = MarkCounter()

    def readable(self) -> None:
        size = read(self.sock)
        if size == 4 and BUFFER.startswith(PING):
            self.sock.send(PONG)
            return
        self._audience.deliveries += self._marks.feed(BUFFER, size)


@final
class Probe:
    """A subscriber that also reads the numbers, to tell how long each publication took."""

    __slots__ = ("_audience", "_rest", "sock")

    def __init__(self, sock: socket.socket, audience: Audience) -> None:
        self.sock = sock
        self._audience = audience
        self._rest = b""

    def readable(self) -> None:
        size = read(self.sock)
        now = time.perf_counter()
        data = self._rest + BUFFER[:size]
        if size == 4 and data.endswith(PING):
            self.sock.send(PONG)
            return
        audience, end = self._audience, 0
        for match in NUMBERED.finditer(data):
            end = match.end()
            audience.deliveries += 1
            sent = audience.sent_at.get(int(match[1]))
            if sent is not None:
                audience.latencies.append(now - sent)
        self._rest = data[max(end, len(data) - 32) :]


@final
class Caller:
    """Sends one frame, again each time it has been answered."""

    __slots__ = ("_data", "_frame", "_on_answer", "sock")

    def __init__(self, sock: socket.socket, frame: bytes, on_answer: Callable[[Caller, bytes], None]) -> None:
        self.sock = sock
        self._frame = frame
        self._on_answer = on_answer
        self._data = b""

    def call(self) -> None:
        send(self.sock, self._frame)

    def readable(self) -> None:
        size = read(self.sock)
        payloads, self._data = split_frames(self._data + BUFFER[:size])
        for payload in payloads:
            if payload == b"{}":
                self.sock.send(PONG)
            else:
                self._on_answer(self, payload)


@final
class ApiLink:
    """One keep-alive HTTP connection of an `ApiPool`."""

    __slots__ = ("_asked_at", "_data", "_pool", "sock")

    def __init__(self, sock: socket.socket, pool: ApiPool) -> None:
        self.sock = sock
        self._pool = pool
        self._data = b""
        self._asked_at = 0.0

    def ask(self, request: bytes) -> None:
        self._asked_at = time.perf_counter()
        send(self.sock, request)

    def readable(self) -> None:
        size = read(self.sock)
        data = self._data + BUFFER[:size]
        body_at = data.find(b"\r\n\r\n") + 4
        if body_at < 4:
            self._data = data
            return
        length = _CONTENT_LENGTH.search(data, 0, body_at)
        if len(data) < body_at + int(length[1]) if length else not data.endswith(b"\r\n0\r\n\r\n"):
            self._data = data
            return
        if not data.startswith(b"HTTP/1.1 200") or data.find(b'"error"', body_at) >= 0:
            raise ConnectionError(f"the API answered {data.decode(errors='replace')}")
        self._data = b""
        self._pool.latencies.append(time.perf_counter() - self._asked_at)
        self._pool.answered(self)


@final
class ApiPool:
    """HTTP requests, at most one per connection in flight; a request that finds no free connection waits in line."""

    def __init__(self, poll: Poll, socks: list[socket.socket]) -> None:
        self._free: list[ApiLink] = []
        self._waiting: deque[bytes] = deque()
        self._next: Callable[[], bytes | None] | None = None
        self.answers = 0
        self.requests = 0
        self.latencies: list[float] = []
        """Seconds from sending a request to its whole answer."""
        for sock in socks:
            link = ApiLink(sock, self)
            poll.add(link)
            self._free.append(link)

    @property
    def idle(self) -> bool:
        return self.answers == self.requests

    def post(self, request: bytes) -> None:
        self.requests += 1
        if self._free:
            self._free.pop().ask(request)
        else:
            self._waiting.append(request)

    def keep_busy(self, make: Callable[[], bytes | None], in_flight: int) -> None:
        """Have `in_flight` requests of `make` under way, a new one per answer, until it gives None."""
        self._next = make
        for _ in range(in_flight):
            request = make()
            if request is not None:
                self.post(request)

    def answered(self, link: ApiLink) -> None:
        self.answers += 1
        self._free.append(link)
        if self._waiting:
            self._free.pop().ask(self._waiting.popleft())
        elif self._next is not None and (request := self._next()) is not None:
            self.post(request)
