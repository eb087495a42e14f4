"""Bytes to one peer: straight to the socket while nothing waits, else a memory channel and a writer.

`offer` is synchronous and never waits for a peer. What the socket does not take at once goes into the connection's
memory channel; a writer task, started for that backlog, drains it in batches and ends. Every write has a deadline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, final

import trio

from broker.eager import own_task
from broker.protocol import codes

__all__ = ["Outbox", "OutboxOwner", "Sink"]

_BATCH_ITEMS = 64
_BATCH_BYTES = 131072


TrySend = Callable[["bytes | memoryview"], int]


class Sink(Protocol):
    """Where the bytes go: one peer's socket or stream. All of it raises OSError or Trio's errors for a peer gone."""

    try_send: TrySend | None
    """Send what fits without waiting, return how much (or raise BlockingIOError). None where that cannot be done."""

    async def wait_writable(self) -> None:
        """Wait until `try_send` may take something."""

    async def send_all(self, data: bytes) -> None:
        """Send everything, however long it takes; for sinks without `try_send`."""


class OutboxOwner(Protocol):
    """The connection an outbox belongs to."""

    def write_failed(self, why: codes.Disconnect) -> None:
        """The peer is too slow or gone. Called once."""

    def spawn(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the writer in the connection's nursery."""


@final
class Outbox:
    """The bounded way out of one connection.

    While corked (a frame of this client is being handled), offers are held and leave in one write, in the order
    in which they arose. `queued` is the number of bytes that have not reached the socket. `write_timeout` is in
    seconds.
    """

    __slots__ = (
        "_held",
        "_limit",
        "_owner",
        "_rest",
        "_rx",
        "_sent",
        "_sink",
        "_straight",
        "_torn",
        "_tx",
        "queued",
        "write_timeout",
    )

    def __init__(self, sink: Sink, owner: OutboxOwner, *, limit: int, write_timeout: float) -> None:
        self._sink = sink
        self._owner: OutboxOwner | None = owner
        self._limit = limit
        self.write_timeout = write_timeout
        self._straight = sink.try_send
        self._held: list[bytes] | None = None
        self._tx: trio.MemorySendChannel[bytes] | None = None
        self._rx: trio.MemoryReceiveChannel[bytes] | None = None
        self._rest: bytes | memoryview = b""  # what the writer has taken from the channel but not sent
        self._torn = False  # a write may have gone half way
        self._sent: trio.Event | None = None  # somebody waits for the end of the backlog
        self.queued = 0

    def offer(self, data: bytes) -> None:
        """Send `data` now if the socket takes it, else queue it. Cuts the connection off when too much waits."""
        straight = self._straight
        if straight is not None:
            try:
                sent = straight(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._fail(codes.CONNECTION_CLOSED)
                return
            if sent == len(data):
                return
            data = data[sent:]
        elif self._held is not None:
            self.queued += len(data)
            if self.queued > self._limit:
                self._fail(codes.SLOW)
                return
            self._held.append(data)
            return
        self._enqueue(data)

    def cork(self) -> None:
        """Hold what is offered until `uncork`."""
        if self._tx is None and self._held is None and self._owner is not None:
            self._held = []
            self._straight = None

    def uncork(self) -> None:
        """Let go of what was held, in one write."""
        held = self._held
        if held is None:
            return
        self._held = None
        self._straight = self._sink.try_send
        if held:
            self.queued = 0
            self.offer(held[0] if len(held) == 1 else b"".join(held))

    async def send_whole(self, data: bytes) -> None:
        """Send what may be more than may wait, as fast as the peer takes it: each part has the deadline of a write.

        Returns when all of it has left, or when the connection was cut off.
        """
        await own_task()
        for start in range(0, len(data), _BATCH_BYTES):
            self.offer(data[start : start + _BATCH_BYTES])
            if self._tx is not None:
                await self.wait_sent()
            else:
                await trio.lowlevel.checkpoint()

    async def wait_sent(self) -> None:
        """Wait until nothing waits for the peer. Cancel it when the connection ends."""
        if self._tx is not None:
            if self._sent is None or self._sent.is_set():
                self._sent = trio.Event()
            await self._sent.wait()

    def close(self) -> bytes | None:
        """Take no more bytes. Returns those that still wait, or None if a write was cut off half way: then nothing
        may follow it. Call it when the writer has ended or was cancelled."""
        parts: list[bytes | memoryview] = [self._rest]
        if self._held is not None:
            parts += self._held
        if self._rx is not None:
            while True:
                try:
                    parts.append(self._rx.receive_nowait())
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
        self._stop()
        return None if self._torn else b"".join(parts)

    def _stop(self) -> None:
        self._owner = self._straight = self._held = None
        self._rest = b""
        self.queued = 0
        if self._tx is not None and self._rx is not None:
            self._tx.close()
            self._rx.close()
            self._tx = self._rx = None

    def _enqueue(self, data: bytes) -> None:
        if self._owner is None:
            return
        self.queued += len(data)
        if self.queued > self._limit:
            self._fail(codes.SLOW)
            return
        if self._tx is None:
            self._straight = None
            self._tx, self._rx = trio.open_memory_channel[bytes](math.inf)  # bounded by bytes, above
            self._owner.spawn(self._drain)
        self._tx.send_nowait(data)

    def _fail(self, why: codes.Disconnect) -> None:
        owner, self._owner = self._owner, None
        self._straight = self._held = None
        if owner is not None:
            owner.write_failed(why)

    async def _drain(self) -> None:
        """The writer: lives while there is a backlog."""
        waiting = self._rx
        assert waiting is not None
        while True:
            parts: list[bytes] = []
            size = 0
            while len(parts) < _BATCH_ITEMS and size < _BATCH_BYTES:
                try:
                    part = waiting.receive_nowait()
                except trio.WouldBlock:
                    break
                parts.append(part)
                size += len(part)
            if not parts:
                # no await between the empty channel and this: an offer in between would be overtaken
                self._tx = self._rx = None
                self._straight = self._sink.try_send
                if self._sent is not None:
                    self._sent.set()
                return
            self._rest = b"".join(parts)
            with trio.move_on_after(self.write_timeout) as deadline:
                try:
                    await self._send_rest()
                except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                    self._fail(codes.CONNECTION_CLOSED)
                    return
            if deadline.cancelled_caught:
                self._fail(codes.WRITE_ERROR)
                return

    async def _send_rest(self) -> None:
        try_send = self._sink.try_send
        if try_send is None:
            await trio.lowlevel.checkpoint_if_cancelled()  # nothing has left yet: `close` still gives it to the peer
            self._torn = True
            await self._sink.send_all(bytes(self._rest))
            self._torn = False
            self.queued -= len(self._rest)
            self._rest = b""
            return
        while self._rest:
            try:
                sent = try_send(self._rest)
            except BlockingIOError:
                sent = 0
            if sent == 0:
                await self._sink.wait_writable()
                continue
            self.queued -= sent
            self._rest = memoryview(self._rest)[sent:]
