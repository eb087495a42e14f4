"""Clients of a load: who counts deliveries, and who sends commands."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import final

from broker.bench.journal import Journal, Wrong
from broker.bench.marks import KEY, find_keys, tail_of
from broker.bench.opening import Stream
from broker.bench.records import Latencies
from broker.bench.sockets import Sock, read, send
from broker.bench.wire import Wire, split_frames

__all__ = ["Audience", "Caller", "Subscriber", "answer_ping"]


def answer_ping(data: bytes, sock: Sock, stream: Stream | None, wire: Wire) -> bool:
    """Answer the ping in `data`, if there is one."""
    if (wire.ping if stream is None else stream.ping) not in data:
        return False
    if stream is None:
        send(sock, wire.pong)
    else:
        stream.pong()
    return True


MUCH = 16_384
"""Bytes of one read after which there is probably more: a record of TLS has no more."""


@final
class Audience:
    """What all subscribers of a process have received together."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.deliveries = 0
        self.sent_at: dict[bytes, float] = {}
        """When the publication with a key was meant to be sent."""
        self.latencies = Latencies()
        """From then to the reading, as some of the subscribers saw them."""


@final
class Subscriber:
    """Reads one channel, compares it with what others read from it, and answers pings."""

    __slots__ = ("_at", "_audience", "_journal", "_rest", "_stream", "_timed", "sock")

    def __init__(
        self, sock: Sock, stream: Stream | None, audience: Audience, journal: Journal, *, timed: bool = False
    ) -> None:
        """`timed`: take latencies too."""
        self.sock = sock
        self._stream = stream
        self._audience = audience
        self._journal = journal
        self._timed = timed
        self._rest = b""
        self._at = 0

    @property
    def behind(self) -> int:
        """Publications that others of its channel have read and it has not."""
        return (len(self._journal.order) - self._at) // KEY

    def readable(self) -> None:
        # All that waits: a single reader of a busy channel, read as often as everybody else, would fall behind.
        while self._read() >= MUCH:
            pass

    def _read(self) -> int:
        data = read(self.sock)
        size = len(data)
        if self._stream is not None:
            data = self._stream.feed(data)
        if self._rest:
            data = self._rest + data
        journal = self._journal
        if not self._timed:
            last, before, count, after, rest = journal.last
            if data == last and before == self._at:
                self._at, self._rest = after, rest
                self._audience.deliveries += count
                return size
        before = self._at
        keys = find_keys(data)
        self._at = journal.follow(before, b"".join(keys))
        self._rest = tail_of(data)
        self._audience.deliveries += len(keys)
        if self._timed:
            self._note(keys)
        if not answer_ping(data, self.sock, self._stream, self._audience.wire) and keys:
            journal.last = (data, before, len(keys), self._at, self._rest)
        return size

    def _note(self, keys: list[bytes]) -> None:
        now, sent_at, latencies = time.perf_counter(), self._audience.sent_at, self._audience.latencies
        for key in keys:
            if key in sent_at:
                latencies.add(now, sent_at[key])


@final
class Caller:
    """Sends a command, and the next one as soon as it has been answered."""

    __slots__ = ("_asked_at", "_data", "_frames", "_latencies", "_on_answer", "_turn", "_wire", "sock")

    def __init__(
        self,
        sock: Sock,
        wire: Wire,
        frames: dict[int, bytes],
        latencies: Latencies,
        on_answer: Callable[[Caller], None],
    ) -> None:
        """`frames`: command id -> its frame; they are sent in turn."""
        self.sock = sock
        self._wire = wire
        self._frames = list(frames.items())
        self._latencies = latencies
        self._on_answer = on_answer
        self._data = b""
        self._turn = 0
        self._asked_at = 0.0

    def call(self) -> None:
        self._asked_at = time.perf_counter()
        send(self.sock, self._frames[self._turn][1])

    def readable(self) -> None:
        payloads, self._data = split_frames(self._data + read(self.sock))
        for payload in payloads:
            ids = self._wire.answers(payload)
            if not ids:
                if self._wire.ping.endswith(payload):
                    send(self.sock, self._wire.pong)
                continue
            if ids == [-1]:
                raise ConnectionError(f"the server answered {self._wire.replies(payload)}")
            if ids != [self._frames[self._turn][0]]:
                raise Wrong(f"replies to {ids} came where one to {self._frames[self._turn][0]} is due")
            self._turn = (self._turn + 1) % len(self._frames)
            self._latencies.add(time.perf_counter(), self._asked_at)
            self._on_answer(self)
