"""SockJS over WebSocket: the same frames as over HTTP, and a session that lives as long as its connection.

Facts: https://github.com/sockjs/sockjs-protocol (WebSocket protocols).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

import trio

from broker.hub import TimerWheel
from broker.protocol import JSON, FrameReader, close_frame, codes
from broker.protocol.sockjs import HEARTBEAT, OPEN, BrokenMessages, SockJsWire, close_array, read_frame
from broker.protocol.websocket import text_frame
from broker.sessions import Context
from broker.transports.connection import Connection
from broker.transports.websocket import WebSocketMachine

__all__ = ["SockJsWebSocketMachine"]

_WIRE: Final = SockJsWire(JSON)
_OPEN: Final = text_frame(OPEN)
_HEARTBEAT: Final = text_frame(HEARTBEAT)


@final
class SockJsWebSocketMachine(WebSocketMachine):
    """A `Timed` as well, for heartbeats."""

    __slots__ = ("_heartbeat", "_timers", "slot")
    transport = "sockjs"

    def __init__(
        self,
        connection: Connection,
        context: Context,
        frames: FrameReader,
        *,
        heartbeat: float,
        header_user: str | None,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(
            connection, context, _WIRE, frames, native_ping=False, header_user=header_user, headers=headers
        )
        self._heartbeat = heartbeat
        self._timers: TimerWheel = context.node.timers
        self.slot: int | None = None
        self.outbox.offer(_OPEN)
        if heartbeat:
            self._timers.arm(self, trio.current_time() + heartbeat)

    def _handle(self, message: bytes) -> None:
        try:
            frame = read_frame(message) if message else b""
        except BrokenMessages:
            self._connection.drop()
            return
        if frame:
            super()._handle(frame)

    def _last_word(self, why: codes.Disconnect) -> bytes:
        return text_frame(close_array(why)) + close_frame(1000, "")

    def ended(self) -> None:
        self._timers.disarm(self)
        super().ended()

    def on_timer(self, now: float) -> None:
        self.outbox.offer(_HEARTBEAT)
        self._timers.arm(self, now + self._heartbeat)
