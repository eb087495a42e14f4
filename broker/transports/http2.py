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
from broker.hub import Outbox, TimerWheel
from broker.protocol import codes
from broker.transports.connection import Connection, Machine
from broker.transports.http2_request import Malformed, as_request
from broker.transports.http2_stream import StreamLink
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
        connection.admit()

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
        link = self._streams[id] = StreamLink(self, id, head, chunked=chunked, peer=self._connection.link.peer)
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
        await self._connection.drain()

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
