"""The WebSocket endpoint: who may come in, and with which wire. Facts: client protocol §1.3."""

from __future__ import annotations

from typing import final

from broker.http1 import TEXT_TYPE, Head, response
from broker.observe import Counters
from broker.protocol import FrameReader, Handshake, HandshakeError, Inflater, handshake, wants_protobuf
from broker.sessions import Context
from broker.transports.admission import Admission
from broker.transports.connection import Connection
from broker.transports.options import WebSocketOptions
from broker.transports.origin import Origins
from broker.transports.websocket import WebSocketMachine, wires

__all__ = ["UpgradeGate", "WebSocketEndpoint"]


@final
class UpgradeGate:
    """Who may come in by WebSocket.

    Args:
        user_header: a header that names the user, for those who trust it; empty for none.
        deflate: whether compression may be agreed on.
    """

    def __init__(
        self, origins: Origins, admission: Admission, counters: Counters, user_header: str, *, deflate: bool
    ) -> None:
        self._origins = origins
        self._admission = admission
        self._counters = counters
        self._user_header = user_header.lower().encode()
        self._deflate = deflate
        self.agreed: Handshake | None = None
        """What was agreed on with the last one that was welcome: it is accepted in the same breath."""

    def refusal(self, head: Head) -> bytes | None:
        """The response that refuses this handshake, or None if it is welcome."""
        if not self._admission.admit():
            self._counters.connection_limit += 1
            return response(503, b"Service Unavailable", content_type=TEXT_TYPE, close=True)
        try:
            agreed = handshake(head.method, head.headers, deflate=self._deflate)
        except HandshakeError as error:
            return response(
                error.status,
                error.text.encode(),
                content_type=TEXT_TYPE,
                headers=[("Sec-Websocket-Version", "13")],
                close=True,
            )
        if not self._origins.allow(head.headers.get(b"origin")):
            return response(403, b"Forbidden", content_type=TEXT_TYPE, close=True)
        self.agreed = agreed
        return None

    def user(self, head: Head) -> str | None:
        """The user that the trusted header names."""
        user = head.headers.get(self._user_header) if self._user_header else None
        return user.decode("utf-8", "replace") if user else None


@final
class WebSocketEndpoint:
    """An `Upgrade` for `/connection/websocket`."""

    def __init__(
        self,
        context: Context,
        options: WebSocketOptions,
        origins: Origins,
        admission: Admission,
        counters: Counters,
        user_header: str,
    ) -> None:
        self._context = context
        self._options = options
        self._gate = UpgradeGate(origins, admission, counters, user_header, deflate=options.compression)
        self._wires = wires(options)
        self._most = options.message_size_limit
        self._inflater = Inflater(options.decompressed_message_size_limit or 10 * options.message_size_limit)

    def refusal(self, head: Head) -> bytes | None:
        return self._gate.refusal(head)

    def accept(self, connection: Connection, head: Head) -> None:
        agreed = self._gate.agreed
        assert agreed is not None
        machine = WebSocketMachine(
            connection,
            self._context,
            self._wires.choose(protobuf=wants_protobuf(agreed.subprotocol, head.query), deflate=agreed.deflate),
            FrameReader(self._most, self._inflater if agreed.deflate else None),
            native_ping=bool(head.query) and "cf_ws_frame_ping_pong=true" in head.query.split("&"),
            header_user=self._gate.user(head),
            headers=self._context.kept_headers(head.headers),
        )
        connection.outbox.offer(agreed.response)
        connection.machine = machine
