"""A session whose pushes are the body of one response. What its client says comes with the request, and then, where
the transport lets it speak at all, by requests of its own (emulation.py).

Facts: client protocol §1.2, §1.6, §5.1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Generic, TypeVar, final

from broker.http1 import LAST_CHUNK, TEXT_TYPE, response
from broker.protocol import codes
from broker.protocol.wire import Wire
from broker.sessions import Context, HearingPeer, Session
from broker.transports.connection import Connection
from broker.transports.peer import SessionCarrier

__all__ = ["WRITE_TIMEOUT", "StreamMachine"]

WRITE_TIMEOUT: Final = 1.0
"""Seconds that a peer has to take what was written."""
_MOST_IGNORED: Final = 65_536
"""Bytes that a peer may send on a connection on which nothing is read any more."""
_FRAME_COST: Final = 128
"""Bytes that a waiting frame takes beside its own."""

S = TypeVar("S", bound=Session)


@final
class StreamMachine(SessionCarrier, Generic[S]):
    """The machine of a connection from the request on, and the `Peer` of its session.

    Args:
        opening: the head of the response and what comes before the first unit. It leaves at once with `open`, or when
            the connect has succeeded.
        last: what ends the body.
        make_session: makes the session that this is the peer of.
    """

    __slots__ = (
        "_goodbye",
        "_ignored",
        "_last",
        "_opening",
        "_waiting",
        "_waiting_bytes",
        "header_user",
        "headers",
        "transport",
        "wire",
    )
    native_ping: Final = False
    session: S

    def __init__(
        self,
        connection: Connection,
        context: Context,
        wire: Wire,
        make_session: Callable[[HearingPeer, Context], S],
        *,
        transport: str,
        opening: bytes,
        chunked: bool,
        header_user: str | None,
        headers: Mapping[str, str],
    ) -> None:
        self._connection = connection
        self._opening = opening
        self._last = LAST_CHUNK if chunked else b""
        self._goodbye = b""
        self._ignored = 0
        self._waiting: deque[bytes] | None = None  # frames that came while one is being handled
        self._waiting_bytes = 0
        self.transport = transport
        self.wire = wire
        self.header_user = header_user
        self.headers = headers
        connection.machine = self
        connection.outbox.write_timeout = WRITE_TIMEOUT
        self.session = make_session(self, context)

    def open(self) -> None:
        """Begin the response, if it has not begun."""
        opening, self._opening = self._opening, b""
        if opening:
            self.outbox.offer(opening)

    def run_first(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what the request itself asks for."""
        self._connection.run_in_order(work)

    def refuse(self, answer: bytes) -> None:
        """Answer with a response that ends, in place of the stream that has not begun."""
        self._opening = b""
        self._goodbye = answer
        self.session.peer_gone()
        self._connection.end()

    # ---- a Machine ------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """There is nothing to say on this connection: the response ends it."""
        self._ignored += len(data)
        if self._ignored > _MOST_IGNORED:
            self._connection.drop()

    def advance(self) -> None:
        connection, waiting = self._connection, self._waiting
        while waiting and not connection.busy and not connection.ending:
            frame = waiting.popleft()
            self._waiting_bytes -= len(frame) + _FRAME_COST
            connection.handle_in_order(self.session.handle, frame)
        if not waiting:
            self._waiting = None

    def ended(self) -> None:
        self._waiting = None
        super().ended()

    def farewell(self) -> bytes:
        return self._goodbye

    async def wait_farewell(self, receive: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        await self._connection.drain()

    # ---- a Peer ---------------------------------------------------------------------------------------------------

    def take(self, frame: bytes) -> None:
        if self._connection.ending:
            return
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(frame)
        self._waiting_bytes += len(frame) + _FRAME_COST
        if self._waiting_bytes > self.session.context.rules.client.queue_max_size:
            self.session.disconnect(codes.FLOOD)
            return
        try:
            self.advance()
        except Exception:  # whoever brought the frame has no part in it, so the wall is here
            self._connection.crashed()

    def welcome(self) -> None:
        self.open()

    def close(self, why: codes.Disconnect) -> None:
        if why.code == codes.CONNECTION_CLOSED.code:
            self._connection.drop()
            return
        if not self._goodbye:
            if self._opening:
                self._goodbye = response(503, b"Service Unavailable", content_type=TEXT_TYPE, close=True)
            else:
                wire = self.wire
                self._goodbye = wire.pack_one(wire.codec.push_disconnect(why)) + self._last
            self.session.context.node.counters.transport_closed[self.transport, why.code] += 1
        self._connection.end()

    def hang_up(self) -> None:
        """It has the error, and cannot say anything more here: the stale timer ends it."""
