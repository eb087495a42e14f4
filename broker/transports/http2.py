"""HTTP/2: each stream is a connection of its own, over a link whose other end is this machine.

A stream's request is said in HTTP/1.1 to an `HttpMachine`, and what that connection sends is taken apart again, so
that every endpoint, limit and deadline is the one that HTTP/1.1 has. Frames, HPACK and flow control are h2's; what h2
leaves to its user is here: floods, malformed fields, the time that nothing may happen, and who waits for which window.

Facts: RFC 9113; CVE-2023-44487 (rapid reset), CVE-2024-27316 (CONTINUATION), CVE-2019-9512, -9515, -9518 (floods).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, final

import trio
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

from broker.eager import own_task
from broker.hub import Outbox, TimerWheel, TrySend
from broker.protocol import codes
from broker.transports.connection import Connection, Machine
from broker.transports.http2_request import Malformed, ResponseParts, as_request
from broker.transports.links import Spawn
from broker.transports.reader import Readable
from broker.transports.site import Begin

__all__ = ["Http2Machine"]

_MOST_STREAMS: Final = 100
_MOST_HEADERS: Final = 16_384
_LARGEST_FRAME: Final = 9 + 16_384
_FIRST: Final = 10.0
"""Seconds until the first request."""
_IDLE: Final = 30.0
"""Seconds without a stream."""
_QUEUED: Final = 131_072
"""Bytes that may wait for the peer before streams have to wait, too."""
_DRAIN: Final = 1.0
_PERIOD: Final = 10.0
_PATIENCE: Final = 10_000
"""What a peer may cost in a period without asking for anything, by the weights below."""
_RESET: Final = 100
_CONTROL: Final = 10
_WINDOW: Final = 1
_CONTROLS: Final = (
    events.PingReceived,
    events.RemoteSettingsChanged,
    events.PriorityUpdated,
    events.UnknownFrameReceived,
)


@final
class Http2Machine:
    """The machine of a connection that speaks HTTP/2, and a `Timed`.

    Args:
        begin: begins the connections of streams.
        http: the machine of such a connection.
    """

    __slots__ = (
        "_begin",
        "_connection",
        "_cost",
        "_h2",
        "_http",
        "_leaving",
        "_period",
        "_streams",
        "_timers",
        "slot",
    )

    def __init__(
        self, connection: Connection, begin: Begin, http: Callable[[Connection], Machine], timers: TimerWheel
    ) -> None:
        self._connection = connection
        self._begin = begin
        self._http = http
        self._timers = timers
        self._streams: dict[int, StreamLink] = {}
        self._leaving = False
        self._cost = 0
        self._period = 0.0
        self.slot: int | None = None
        self._h2 = h2 = H2Connection(
            H2Configuration(client_side=False, header_encoding=None, validate_outbound_headers=False)
        )
        h2.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = _MOST_STREAMS
        h2.local_settings[SettingCodes.MAX_HEADER_LIST_SIZE] = _MOST_HEADERS
        h2.local_settings.acknowledge()
        h2.decoder.max_header_list_size = _MOST_HEADERS
        h2.initiate_connection()
        timers.arm(self, trio.current_time() + _FIRST)

    # ---- a Machine ------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        outbox = self._connection.outbox
        outbox.cork()
        try:
            for event in self._h2.receive_data(data):
                self._handle(event)
            if len(self._h2.incoming_buffer._data) > _LARGEST_FRAME:
                # h2 looks at the length of a frame when all of it has come, which may be 16 MiB
                self._h2.close_connection(ErrorCodes.FRAME_SIZE_ERROR)
                raise ProtocolError
        except ProtocolError:  # h2 has said goodbye already
            self._connection.end()
        finally:
            self.flush()
            outbox.uncork()

    def _handle(self, event: events.Event) -> None:
        if isinstance(event, events.DataReceived):
            link = self._streams.get(event.stream_id)
            if link is None:  # of a stream that is over
                self.acknowledge(event.stream_id, event.flow_controlled_length)
                return
            if not event.data:
                self._costs(_CONTROL)
            link.came(event.data, event.flow_controlled_length)
        elif isinstance(event, events.RequestReceived):
            self._open(event)
        elif isinstance(event, events.StreamEnded):
            link = self._streams.get(event.stream_id)
            if link is not None:
                link.came_all()
        elif isinstance(event, events.WindowUpdated):
            self._costs(_WINDOW)
            self._wake(event.stream_id)
        elif isinstance(event, events.StreamReset):
            self._costs(_RESET)
            link = self._streams.get(event.stream_id)
            if link is not None:
                link.gone()
        elif isinstance(event, _CONTROLS):
            self._costs(_CONTROL)
            self._wake(0)  # settings may have made windows larger
        elif isinstance(event, events.ConnectionTerminated):
            self._connection.end()

    def _open(self, event: events.RequestReceived) -> None:
        id = event.stream_id
        try:
            head, chunked = as_request(event.headers, ended=event.stream_ended is not None)
        except Malformed:
            self._costs(_RESET)
            self._h2.reset_stream(id, ErrorCodes.PROTOCOL_ERROR)
            return
        if self._connection.ending or self._leaving:
            self._h2.reset_stream(id, ErrorCodes.REFUSED_STREAM)
            return
        link = self._streams[id] = StreamLink(self, id, head, chunked=chunked)
        self._timers.disarm(self)
        self._connection.carries = True
        self._begin(link, self._http)

    def _costs(self, weight: int) -> None:
        """A peer that only keeps us busy is sent away.

        Raises:
            ProtocolError: it is.
        """
        now = trio.current_time()
        if now - self._period >= _PERIOD:
            self._period, self._cost = now, 0
        self._cost += weight
        if self._cost > _PATIENCE:
            self._h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            raise ProtocolError

    def _wake(self, stream_id: int) -> None:
        links = self._streams.values() if not stream_id else [self._streams.get(stream_id)]
        for link in links:
            if link is not None:
                link.wake()

    def advance(self) -> None:
        """Nothing waits here: streams have links of their own."""

    def failed(self, why: codes.Disconnect) -> None:
        if why is codes.SHUTDOWN:
            self._leave()

    def _leave(self) -> None:
        """Take no more streams; end with the last one."""
        if not self._leaving:
            self._leaving = True
            self.flush()
            # by hand: after h2's own goodbye it would refuse to go on with the streams there are
            goodbye = GoAwayFrame(0, last_stream_id=self._h2.highest_inbound_stream_id)
            self._connection.outbox.offer(goodbye.serialize())
        if not self._streams:
            self._connection.end()

    async def _end_when_sent(self) -> None:
        await own_task()
        await self._connection.outbox.wait_sent()
        self._connection.end()

    def ended(self) -> None:
        self._timers.disarm(self)
        for link in list(self._streams.values()):
            link.gone()

    def farewell(self) -> bytes:
        return b""

    async def wait_farewell(self, receive: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        with trio.move_on_after(_DRAIN):
            await self._connection.link.shut_down()
            while await receive():
                pass

    async def cleanup(self) -> None:
        """Streams clean up after themselves."""

    # ---- a Timed --------------------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        self._leave()

    def crashed(self) -> None:
        self._connection.crashed()

    # ---- for its streams ------------------------------------------------------------------------------------------

    @property
    def h2(self) -> H2Connection:
        return self._h2

    @property
    def outbox(self) -> Outbox:
        return self._connection.outbox

    def flush(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._connection.outbox.offer(data)

    def room(self, stream_id: int) -> int:
        """How many bytes of a body may be sent now."""
        if self.crowded:
            return 0
        try:
            return max(0, self._h2.local_flow_control_window(stream_id))
        except ProtocolError:
            return 1  # it is over: who tries to send will see

    @property
    def crowded(self) -> bool:
        """Whether so much waits for the peer that streams have to wait."""
        return self._connection.outbox.queued > _QUEUED

    def acknowledge(self, stream_id: int, size: int) -> None:
        """The peer may send as much again."""
        if size:
            with suppress(ProtocolError):
                self._h2.acknowledge_received_data(size, stream_id)

    def over(self, stream_id: int) -> None:
        """A stream's connection has ended."""
        del self._streams[stream_id]
        if not self._streams:
            self._connection.carries = False
            if self._leaving:
                self._connection.run_beside(self._end_when_sent())
            elif not self._connection.ending:
                self._timers.arm(self, trio.current_time() + _IDLE)


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
        "try_send",
    )
    secure = True
    socket = None

    def __init__(self, machine: Http2Machine, id: int, head: bytes, *, chunked: bool) -> None:
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
