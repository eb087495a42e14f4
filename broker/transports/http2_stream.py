"""One stream of HTTP/2 as a link: its connection reads and writes HTTP/1.1, its peer HTTP/2. What carries it stands in
http2.py.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol, final

import trio
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from broker.hub import Outbox, TrySend
from broker.reader import Readable
from broker.transports.http2_request import ResponseParts
from broker.transports.links import Spawn

__all__ = ["StreamLink"]


class Carrier(Protocol):
    """The connection that carries the stream, as the stream sees it."""

    @property
    def h2(self) -> H2Connection: ...

    @property
    def outbox(self) -> Outbox: ...

    @property
    def crowded(self) -> bool:
        """Whether so much waits for the peer that streams have to wait."""
        ...

    def flush(self) -> None:
        """Send what h2 has to say."""

    def room(self, stream_id: int) -> int:
        """How many bytes of a body may be sent now."""
        ...

    def acknowledge(self, stream_id: int, size: int) -> None:
        """The peer may send as much again."""

    def over(self, stream_id: int) -> None:
        """A stream's connection has ended."""


@final
class StreamLink:
    """One stream as a `Link`: HTTP/1.1 for its connection, HTTP/2 for the peer."""

    __slots__ = (
        "_came",
        "_chunked",
        "_closed",
        "_gone",
        "_id",
        "_machine",
        "_over",
        "_parts",
        "_paused",
        "_readable",
        "_unacknowledged",
        "_window",
        "peer",
        "try_send",
    )
    secure = True
    socket = None
    alpn = None

    def __init__(self, machine: Carrier, id: int, head: bytes, *, chunked: bool, peer: str) -> None:
        self.peer = peer
        self._machine = machine
        self._id = id
        self._came = bytearray(head)
        self._chunked = chunked
        self._unacknowledged = 0
        self._paused = True  # until it is started
        self._gone = self._closed = False
        self._over = False
        self._readable: Readable | None = None
        self._window: trio.Event | None = None
        self._parts = ResponseParts(bodiless=head.startswith(b"HEAD "))
        self.try_send: TrySend | None = self._try_send

    # ---- from the machine -----------------------------------------------------------------------------------------

    def came(self, data: bytes, size: int) -> None:
        """A piece of the body, that took `size` bytes of the window."""
        self._unacknowledged += size
        if data:
            self._came += b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
        self._read()

    def came_all(self) -> None:
        if self._chunked:
            self._came += b"0\r\n\r\n"
            self._chunked = False
        self._read()

    def gone(self) -> None:
        """The peer is not interested any more, or gone."""
        self._gone = True
        self.wake()
        if self._readable is not None:
            self._readable.hung_up()

    def wake(self) -> None:
        """There may be room to send."""
        if self._window is not None:
            self._window.set()

    def _read(self) -> None:
        readable = self._readable
        if readable is not None and not self._paused and self._came:
            try:
                readable.readable()
            except Exception:  # the wall of the stream's connection, not of the one that carries it
                readable.crashed()

    # ---- a Link ---------------------------------------------------------------------------------------------------

    def start(self, readable: Readable, spawn: Spawn) -> None:
        self._readable = readable
        self._paused = False
        if self._gone:
            readable.hung_up()
        self._read()

    def receive(self) -> bytes | None:
        came, self._came = bytes(self._came), bytearray()
        size, self._unacknowledged = self._unacknowledged, 0
        self._machine.acknowledge(self._id, size)
        self._machine.flush()
        return came or None

    def pending(self) -> bool:
        return bool(self._came)

    def admit(self) -> None:
        """What carries it decides when it is read."""

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def stop(self) -> None:
        self._paused = True

    async def receive_some(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return b""

    def _try_send(self, data: bytes | memoryview) -> int:
        if self._gone:
            raise BrokenPipeError
        machine, parts, view = self._machine, self._parts, memoryview(data)
        at = 0
        try:
            while at < len(view):
                read, what = parts.next(view[at:], min(machine.room(self._id), machine.h2.max_outbound_frame_size))
                if not read:
                    break
                at += read
                if isinstance(what, memoryview):
                    machine.h2.send_data(self._id, bytes(what), end_stream=parts.done)
                elif what is not None:
                    machine.h2.send_headers(self._id, what, end_stream=parts.done)
                elif parts.done and not self._over:
                    machine.h2.end_stream(self._id)
                self._over = parts.done
        except ProtocolError as error:
            raise BrokenPipeError from error
        machine.flush()
        return at

    async def wait_writable(self) -> None:
        machine = self._machine
        while not self._gone and not machine.room(self._id):
            if machine.crowded:
                await machine.outbox.wait_sent()
            else:
                self._window = trio.Event()
                await self._window.wait()

    async def send_all(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            sent = self._try_send(rest)
            if not sent:
                await self.wait_writable()
            rest = rest[sent:]
        await trio.lowlevel.checkpoint()

    async def shut_down(self) -> None:
        """The end of the connection may be the end of the response."""
        if not self._over and not self._gone and self._parts.until_close:
            self._over = True
            with suppress(ProtocolError):
                self._machine.h2.end_stream(self._id)
            self._machine.flush()

    async def aclose(self) -> None:
        machine = self._machine
        if self._closed:
            return
        self._closed = True
        stream = machine.h2.streams.get(self._id)
        if not self._gone and stream is not None and not stream.closed:
            # the rest of a body that nobody reads, or a response that was cut off
            why = ErrorCodes.NO_ERROR if self._over else ErrorCodes.INTERNAL_ERROR
            with suppress(ProtocolError):
                machine.h2.reset_stream(self._id, why)
        machine.acknowledge(self._id, self._unacknowledged)
        machine.flush()
        self._gone = True
        machine.over(self._id)
