"""WebSocket: frames to sessions and back. Facts: client protocol §1.3 to §1.8."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, final

import attrs
import trio

from broker.eager import own_task
from broker.protocol import (
    JSON,
    PROTOBUF,
    FrameReader,
    Ping,
    Pong,
    WebSocketError,
    close_frame,
    codes,
    pong_frame,
)
from broker.protocol.wire import DeflateWire, FrameWire, Wire
from broker.sessions import Context, Peer, Session
from broker.transports.connection import Connection
from broker.transports.options import WebSocketOptions
from broker.transports.peer import SessionCarrier

__all__ = ["WebSocketMachine", "Wires", "wires"]

_CLOSE_TIMEOUT: Final = 5.0
"""Seconds that the peer has to answer a close frame."""
_HANG_UP_TIMEOUT: Final = 5.0
"""Seconds that the peer has to leave after a connect that was refused with an error."""


@final
@attrs.frozen
class Wires:
    """The wires of one WebSocket endpoint: connections with the same codec and compression share one."""

    json: Wire
    protobuf: Wire
    json_deflate: Wire
    protobuf_deflate: Wire

    def choose(self, *, protobuf: bool, deflate: bool) -> Wire:
        if deflate:
            return self.protobuf_deflate if protobuf else self.json_deflate
        return self.protobuf if protobuf else self.json


def wires(options: WebSocketOptions) -> Wires:
    """The wires for these options."""
    level, least = options.compression_level, options.compression_min_size
    return Wires(
        FrameWire(JSON), FrameWire(PROTOBUF), DeflateWire(JSON, level, least), DeflateWire(PROTOBUF, level, least)
    )


class WebSocketMachine(SessionCarrier):
    """The machine of an upgraded connection, and the `Peer` of its session."""

    __slots__ = (
        "_broken",
        "_frames",
        "_goodbye",
        "_hanging_up",
        "header_user",
        "headers",
        "native_ping",
        "wire",
    )
    transport = "websocket"

    def __init__(
        self,
        connection: Connection,
        context: Context,
        wire: Wire,
        frames: FrameReader,
        *,
        native_ping: bool,
        header_user: str | None,
        headers: Mapping[str, str],
        make_session: Callable[[Peer, Context], Session] = Session,
    ) -> None:
        self._connection = connection
        self._frames = frames
        self._goodbye = b""
        self._broken = False  # the peer sent what is no frame: what else it sends cannot be read
        self._hanging_up = False
        self.wire = wire
        self.native_ping = native_ping
        self.header_user = header_user
        self.headers = headers
        self.session = make_session(self, context)

    # ---- a Machine ------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        self._frames.feed(data)
        self.advance()

    def advance(self) -> None:
        connection, frames = self._connection, self._frames
        try:
            while frames.waiting and not connection.busy and not connection.ending:
                message = frames.next_message()
                if message is None:
                    return
                if isinstance(message, bytes):
                    if self._hanging_up:
                        continue  # its connect was refused: nothing it asks for counts
                    self._handle(message)
                elif isinstance(message, Ping):
                    self.outbox.offer(pong_frame(message.payload))
                elif isinstance(message, Pong):
                    if self.native_ping:
                        self.session.ponged()
                else:
                    self._goodbye = close_frame(message.code, "")
                    self.session.peer_gone()
                    connection.end()
        except WebSocketError as error:
            self._broken = True
            self._goodbye = close_frame(error.code, error.reason)
            self.session.peer_gone()
            connection.end()

    def _handle(self, message: bytes) -> None:
        self._connection.handle_in_order(self.session.handle, message)

    def _last_word(self, why: codes.Disconnect) -> bytes:
        return close_frame(why.code, why.reason)

    def farewell(self) -> bytes:
        return self._goodbye

    async def wait_farewell(self, receive: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        if not self._goodbye:
            return
        with trio.move_on_after(_CLOSE_TIMEOUT):
            if not self._broken:
                await self._wait_close(receive)
            if self._broken:
                # to close with bytes unread would be a reset, and the peer might lose the close frame to it
                await self._connection.link.shut_down()
                while await receive():
                    pass

    async def _wait_close(self, receive: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        """Read, and pass over, until the peer's close frame or its end."""
        frames = self._frames
        try:
            while True:
                while frames.next_message() is not None:
                    pass
                if frames.closed:
                    return
                data = await receive()
                if not data:
                    return
                frames.feed(data)
        except WebSocketError:
            self._broken = True

    # ---- a Peer ---------------------------------------------------------------------------------------------------

    def close(self, why: codes.Disconnect) -> None:
        if why.code == codes.CONNECTION_CLOSED.code:
            self._connection.drop()
            return
        if not self._goodbye:
            self._goodbye = self._last_word(why)
            self.session.context.node.counters.transport_closed[self.transport, why.code] += 1
        self._connection.end()

    def welcome(self) -> None:
        """The way is open since the handshake, and no longer one of a newcomer."""
        self._connection.admit()

    def hang_up(self) -> None:
        self._hanging_up = True
        self._connection.run_beside(self._wait_hang_up())

    async def _wait_hang_up(self) -> None:
        await own_task()
        await trio.sleep(_HANG_UP_TIMEOUT)
        self._connection.drop()
