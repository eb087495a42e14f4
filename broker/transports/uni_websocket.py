"""One-way WebSocket: pushes in frames, a connect request in the address or in the first frame, and nothing after it.

It is asked for its pongs, by pings of WebSocket itself, and gets the pings of the protocol as well.

Facts: client protocol §5.3.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, final

from broker.http1 import TEXT_TYPE, Head, response
from broker.observe import Counters
from broker.protocol import (
    ONE_WAY_JSON,
    ConnectRequest,
    FrameReader,
    Inflater,
    MalformedFrame,
    codes,
    read_connect,
)
from broker.protocol.wire import UNITS_PER_FRAME, DeflateWire, FrameWire, Wire
from broker.sessions import Context, OneWaySession
from broker.transports.admission import Admission
from broker.transports.connection import Connection
from broker.transports.endpoint import UpgradeGate
from broker.transports.options import UniWebSocketOptions
from broker.transports.origin import Origins
from broker.transports.query import connect_parameter
from broker.transports.websocket import WebSocketMachine

__all__ = ["UniWebSocketEndpoint"]


@final
class UniWebSocketMachine(WebSocketMachine):
    """The machine of an upgraded connection, and the `Peer` of a session that only listens."""

    __slots__ = ("_handshakes", "_pushes")
    transport = "uni_websocket"
    session: OneWaySession

    def __init__(
        self,
        connection: Connection,
        context: Context,
        wire: Wire,
        frames: FrameReader,
        options: UniWebSocketOptions,
        header_user: str | None,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(
            connection,
            context,
            wire,
            frames,
            native_ping=True,
            header_user=header_user,
            headers=headers,
            make_session=OneWaySession,
        )
        self._handshakes = not options.disable_closing_handshake
        self._pushes = not options.disable_disconnect_push

    def _last_word(self, why: codes.Disconnect) -> bytes:
        word = self.wire.pack_one(self.wire.codec.push_disconnect(why)) if self._pushes else b""
        return word + super()._last_word(why) if self._handshakes else word

    async def wait_farewell(self, receive: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        if self._handshakes:
            await super().wait_farewell(receive)

    def begin(self, wanted: ConnectRequest) -> None:
        """Connect by what stood in the address."""
        self._connection.run_in_order(self.session.begin(wanted))


@final
class UniWebSocketEndpoint:
    """An `Upgrade` for `/connection/uni_websocket`."""

    def __init__(
        self,
        context: Context,
        options: UniWebSocketOptions,
        origins: Origins,
        admission: Admission,
        counters: Counters,
        user_header: str,
    ) -> None:
        self._context = context
        self._options = options
        self._gate = UpgradeGate(origins, admission, counters, user_header, deflate=options.compression)
        units = UNITS_PER_FRAME if options.join_push_messages else 1
        self._wire = FrameWire(ONE_WAY_JSON, units)
        self._deflate_wire = DeflateWire(ONE_WAY_JSON, options.compression_level, options.compression_min_size, units)
        self._most = options.message_size_limit or 65_536
        self._inflater = Inflater(options.decompressed_message_size_limit or 10 * self._most)

    def refusal(self, head: Head) -> bytes | None:
        given = connect_parameter(head.query)
        if given:
            try:
                read_connect(given)
            except MalformedFrame:
                return response(400, b"invalid connect request\n", content_type=TEXT_TYPE, close=True)
        return self._gate.refusal(head)

    def accept(self, connection: Connection, head: Head) -> None:
        agreed = self._gate.agreed
        assert agreed is not None
        connection.outbox.write_timeout = self._options.write_timeout or 1.0
        connection.outbox.offer(agreed.response)
        machine = UniWebSocketMachine(
            connection,
            self._context,
            self._deflate_wire if agreed.deflate else self._wire,
            FrameReader(self._most, self._inflater if agreed.deflate else None),
            self._options,
            self._gate.user(head),
            self._context.kept_headers(head.headers),
        )
        connection.machine = machine
        given = connect_parameter(head.query)
        if given:
            machine.begin(read_connect(given))
