"""A WebSocket client that is strict about all that it gets: the protocol of `websockets`, on a Trio stream."""

from __future__ import annotations

from typing import final

import trio
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.http11 import Response
from websockets.protocol import Event, State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from tests.support.patience import PATIENCE


@final
class Judge:
    """One connection to a server under test. `protocol` sends what is correct; anything else goes through `pour`."""

    def __init__(
        self, stream: trio.abc.Stream, path: str = "/", *, deflate: bool = False, subprotocol: str = ""
    ) -> None:
        self._stream = stream
        self._sending = trio.Lock()
        self.protocol = ClientProtocol(
            parse_uri(f"ws://127.0.0.1{path}"),
            extensions=[ClientPerMessageDeflateFactory()] if deflate else None,
            subprotocols=[Subprotocol(subprotocol)] if subprotocol else None,
            max_size=None,
        )

    async def open(self) -> Response:
        """The handshake."""
        self.protocol.send_request(self.protocol.connect())
        [response] = await self.talk(1)
        assert isinstance(response, Response)
        assert self.protocol.handshake_exc is None
        assert self.protocol.state is State.OPEN
        return response

    async def pour(self, data: bytes) -> None:
        """Send bytes that `protocol` never would, as many as the server takes."""
        try:
            async with self._sending:
                await self._stream.send_all(data)
        except trio.BrokenResourceError:
            return

    async def talk(self, count: int) -> list[Event]:
        """Send what is to be sent, and read until so many frames (or the response) have come, or the end."""
        events: list[Event] = []
        while len(events) < count and await self._exchange():
            events += self.protocol.events_received()
        return events

    async def wait_closed(self) -> int:
        """Read to the end, and answer the close frame in between: its code, or 1006 if there was none."""
        while await self._exchange():
            pass
        return self.protocol.close_code or 1006

    async def _exchange(self) -> bool:
        """Send, then receive something; False at the end."""
        with trio.fail_after(PATIENCE):
            try:
                async with self._sending:
                    await self._stream.send_all(b"".join(self.protocol.data_to_send()))
                data = bytes(await self._stream.receive_some())
            except trio.BrokenResourceError:
                data = b""
        if not data:
            self.protocol.receive_eof()
            return False
        self.protocol.receive_data(data)
        if self.protocol.parser_exc is not None:
            raise self.protocol.parser_exc  # what the server sent is not WebSocket
        return True
