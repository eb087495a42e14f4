"""Publications and calls through the HTTP API, over keep-alive connections."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import final

from broker.bench.journal import Journal
from broker.bench.marks import data_of, key_of
from broker.bench.records import Latencies
from broker.bench.sockets import Poll, Sock, read, send
from broker.bench.target import Address

__all__ = ["ApiPool", "Publications", "Request", "post", "request_to"]

_CONTENT_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)

OnAnswer = Callable[[bytes], None]
Request = tuple[bytes, float, OnAnswer | None]
"""Bytes, when they were meant to be sent, and who is told the body of the answer."""


def post(address: Address, method: str, api_key: str, body: bytes) -> bytes:
    """A keep-alive POST. Each `%015d` in `body` is to be filled in later."""
    key = f"X-API-Key: {api_key}\r\n" if api_key else ""
    size = len(body) + (15 - len(b"%015d")) * body.count(b"%015d")
    head = _head(address, f"/{method}", f"{key}Content-Type: application/json\r\n", size)
    return head.replace("%", "%%").encode() + body


def request_to(address: Address, content_type: str, body: bytes) -> bytes:
    """A keep-alive POST to `address` itself."""
    return _head(address, "", f"Content-Type: {content_type}\r\n", len(body)).encode() + body


def _head(address: Address, below: str, fields: str, size: int) -> str:
    first = f"POST {address.path}{below} HTTP/1.1\r\nHost: {address.authority}\r\n"
    return f"{first}{fields}Content-Length: {size}\r\n\r\n"


@final
class ApiLink:
    """One connection of an `ApiPool`."""

    __slots__ = ("_data", "_due", "_on_answer", "_pool", "sock")

    def __init__(self, sock: Sock, pool: ApiPool) -> None:
        self.sock = sock
        self._pool = pool
        self._data = b""
        self._due = 0.0
        self._on_answer: OnAnswer | None = None

    def ask(self, request: Request) -> None:
        data, self._due, self._on_answer = request
        send(self.sock, data)

    def readable(self) -> None:
        data = self._data + read(self.sock)
        body_at = data.find(b"\r\n\r\n") + 4
        if body_at < 4:
            self._data = data
            return
        length = _CONTENT_LENGTH.search(data, 0, body_at)
        bodiless = data.startswith(b"HTTP/1.1 204")
        if len(data) < body_at + int(length[1]) if length else not (bodiless or data.endswith(b"\r\n0\r\n\r\n")):
            self._data = data
            return
        if not (bodiless or data.startswith(b"HTTP/1.1 200")) or data.find(b'"error"', body_at) >= 0:
            raise ConnectionError(f"the API answered {data.decode(errors='replace')}")
        self._data = b""
        self._pool.latencies.add(time.perf_counter(), self._due)
        if self._on_answer is not None:
            self._on_answer(data[body_at:])
        self._pool.answered(self)


@final
class ApiPool:
    """HTTP requests, at most one per connection in flight; a request that finds no free connection waits in line."""

    def __init__(self, poll: Poll, socks: Sequence[Sock]) -> None:
        self._free: list[ApiLink] = []
        self._waiting: deque[Request] = deque()
        self._next: Callable[[], Request | None] | None = None
        self.answers = 0
        self.requests = 0
        self.latencies = Latencies()
        """From when a request was meant to be sent to its whole answer."""
        for sock in socks:
            link = ApiLink(sock, self)
            poll.add(link)
            self._free.append(link)

    @property
    def idle(self) -> bool:
        return self.answers == self.requests

    def post(self, request: Request) -> None:
        self.requests += 1
        if self._free:
            self._free.pop().ask(request)
        else:
            self._waiting.append(request)

    def keep_busy(self, make: Callable[[], Request | None], in_flight: int) -> None:
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


@final
class Publications:
    """Numbered publications, as requests that are ready to be sent.

    A request goes to the next channel in turn. Its journal comes from `journals`, its name from `names`.
    """

    def __init__(
        self, address: Address, api_key: str, journals: Sequence[Journal], names: Sequence[str], size: int
    ) -> None:
        self._address, self._api_key = address, api_key
        self._journals = journals
        self._names = [json.dumps(name).encode() for name in names]
        self._data = data_of(size)
        self._requests: dict[int, list[bytes]] = {}
        body = b'{"channels":[' + b",".join(self._names) + b'],"data":' + self._data + b"}"
        self._broadcast = post(address, "broadcast", api_key, body)
        self._turn = 0
        self.made = 0
        self.sent_at: dict[bytes, float] = {}
        """Key -> when it was meant to be sent."""

    def make(self, at: float | None = None, *, batch: int = 1) -> Request:
        """The next request; its publications count as sent at `at`, or now."""
        due = time.perf_counter() if at is None else at
        turn = self._turn
        self._turn = (turn + 1) % len(self._journals)
        journal = self._journals[turn]
        numbers = [journal.post() for _ in range(batch)]
        first = key_of(journal.channel, numbers[0])
        keys = range(first, first + batch)
        for key in keys:
            self.sent_at[b"%015d" % key] = due
        self.made += batch

        def answered(_: bytes) -> None:
            for number in numbers:
                journal.answered(number)

        return self._templates(batch)[turn] % tuple(keys), due, answered

    def spread(self, count: int, at: float | None = None) -> Request:
        """One publication to each of the next `count` channels, in one request; they count as sent at `at`, or now."""
        due = time.perf_counter() if at is None else at
        places = [(self._turn + step) % len(self._journals) for step in range(count)]
        self._turn = (self._turn + count) % len(self._journals)
        posted, commands = [], []
        for place in places:
            journal = self._journals[place]
            number = journal.post()
            key = key_of(journal.channel, number)
            self.sent_at[b"%015d" % key] = due
            posted.append((journal, number))
            commands.append(b'{"publish":{"channel":%s,"data":%s}}' % (self._names[place], self._data % key))
        self.made += count

        def answered(_: bytes) -> None:
            for journal, number in posted:
                journal.answered(number)

        if count == 1:
            body, method = commands[0][len(b'{"publish":') : -1], "publish"
        else:
            body, method = b'{"commands":[' + b",".join(commands) + b"]}", "batch"
        return post(self._address, method, self._api_key, body).replace(b"%%", b"%"), due, answered

    def broadcast(self) -> Request:
        """One publication to all channels, with the key that it has in the first of them."""
        due = time.perf_counter()
        numbers = [journal.post() for journal in self._journals]
        key = key_of(self._journals[0].channel, numbers[0])
        self.sent_at[b"%015d" % key] = due
        self.made += len(self._journals)

        def answered(_: bytes) -> None:
            for journal, number in zip(self._journals, numbers, strict=True):
                journal.answered(number)

        return self._broadcast % key, due, answered

    def make_until(self, end: float, batch: int = 1) -> Callable[[], Request | None]:
        return lambda: self.make(batch=batch) if time.perf_counter() < end else None

    def _templates(self, batch: int) -> list[bytes]:
        if batch not in self._requests:
            self._requests[batch] = [self._template(name, batch) for name in self._names]
        return self._requests[batch]

    def _template(self, name: bytes, batch: int) -> bytes:
        body = b'{"channel":%s,"data":' % name + self._data + b"}"
        method = "publish"
        if batch > 1:
            body = b'{"commands":[' + b",".join([b'{"publish":' + body + b"}"] * batch) + b"]}"
            method = "batch"
        return post(self._address, method, self._api_key, body)
