"""The requests that frames are the answer to: polls, which end with one frame, and streams, which end after many.

Facts: https://github.com/sockjs/sockjs-protocol (XhrPolling, XhrStreaming, EventSource).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, final

import attrs
import trio

from broker.eager import own_task
from broker.http1 import LAST_CHUNK, Head, chunk, stream_head
from broker.protocol import codes
from broker.transports.connection import Connection
from broker.transports.origin import Headers
from broker.transports.sockjs.pages import NOT_CACHED
from broker.transports.sockjs.session import SessionLink

__all__ = ["EVENT_SOURCE", "XHR", "Framing", "Poll", "StreamMachine"]

_RESPONSE_LIMIT: Final = 128 * 1024
"""Bytes after which a stream ends: clients keep all of a response until it does."""


@final
@attrs.frozen
class Framing:
    """How frames stand in a response. `prelude` comes first, for browsers that show nothing of short responses."""

    content_type: str
    prelude: bytes
    wrap: Callable[[bytes], bytes]


XHR: Final = Framing("application/javascript; charset=UTF-8", b"h" * 2048 + b"\n", lambda frame: frame + b"\n")
EVENT_SOURCE: Final = Framing(
    "text/event-stream; charset=UTF-8",
    b"\r\n",
    lambda frame: b"data: %b\r\n\r\n" % frame.replace(b"%", b"%25"),  # clients take percent escapes out of events
)


@final
class Poll:
    """A `Receiver` of one frame."""

    __slots__ = ("_come", "_frame")

    def __init__(self) -> None:
        self._frame = b""
        self._come: trio.Event | None = None

    def take(self, frame: bytes) -> bool:
        self._frame = frame
        if self._come is not None:
            self._come.set()
        return False

    def finish(self) -> None:
        """The one frame was the end."""

    async def frame(self, link: SessionLink) -> bytes:
        """The next frame of a session, whenever it comes."""
        link.attach(self)
        if not self._frame:
            try:
                await own_task()
                while not self._frame:
                    self._come = trio.Event()
                    await self._come.wait()
            finally:
                if not self._frame:
                    link.interrupted(self)
        return self._frame


@final
class StreamMachine:
    """A `Receiver` of many frames, and the machine of the connection that they leave by, from the request on."""

    __slots__ = ("_chunked", "_connection", "_left", "_link", "_over", "_wrap")

    def __init__(self, connection: Connection, link: SessionLink, framing: Framing, head: Head, cors: Headers) -> None:
        self._connection = connection
        self._link = link
        self._wrap = framing.wrap
        self._left = _RESPONSE_LIMIT
        self._over = False
        self._chunked = head.http_version != "1.0"
        connection.machine = self
        connection.outbox.offer(
            stream_head(
                200,
                content_type=framing.content_type,
                headers=[*cors, *NOT_CACHED, ("X-Accel-Buffering", "no")],  # nginx would keep it back
                chunked=self._chunked,
            )
            + self._framed(framing.prelude)
        )
        link.attach(self)

    def _framed(self, data: bytes) -> bytes:
        return chunk(data) if self._chunked else data

    # ---- a Receiver -----------------------------------------------------------------------------------------------

    def take(self, frame: bytes) -> bool:
        data = self._wrap(frame)
        self._connection.outbox.offer(self._framed(data))
        self._left -= len(data)
        if self._left <= 0:
            self.finish()
        return self._left > 0

    def finish(self) -> None:
        self._over = True
        self._connection.end()

    # ---- a Machine ------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """There is nothing to say on this connection: the response ends it."""

    def advance(self) -> None:
        """Nothing waits."""

    def failed(self, why: codes.Disconnect) -> None:
        self._link.connection.machine.failed(why)

    def ended(self) -> None:
        self._link.interrupted(self)

    def farewell(self) -> bytes:
        return LAST_CHUNK if self._over and self._chunked else b""

    async def wait_farewell(self, receive: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        await self._connection.drain()

    async def cleanup(self) -> None:
        """Its session lives on, and cleans up after itself."""
