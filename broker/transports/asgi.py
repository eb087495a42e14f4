"""Everything that is not hot: one request of a connection, handed to an ASGI application by Hypercorn.

Hypercorn's per-connection server runs inside a guard, because it sends under a shield without a deadline and lets
exceptions out (docs/adr/0003-hypercorn-behind-a-guard.md): the guard gives every write a deadline, and the
connection's wall keeps what escapes. It gets one request and closes, so that no second request escapes the strict
parser.
"""

from __future__ import annotations

from typing import Final, final

import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import wrap_app

from broker.eager import own_task
from broker.transports.connection import Connection
from broker.transports.links import Link
from broker.transports.site import ASGIApp

__all__ = ["serve_app"]

_WRITE_TIMEOUT: Final = 10.0
_TOTAL: Final = 60.0
"""Seconds that one request may take from head to end."""


@final
class _GuardedStream(trio.abc.HalfCloseableStream):
    """What Hypercorn sees of a connection: bytes put back, writes with a deadline."""

    def __init__(self, link: Link, came: bytes) -> None:
        self._link = link
        self._came = came
        self._closed = False
        self._reading = trio.CancelScope()
        self.socket = link.socket

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._came:
            data, self._came = self._came, b""
            await trio.lowlevel.checkpoint()
            return data
        # Hypercorn reads on while it answers, and waits for that read when it has closed.
        with trio.CancelScope() as self._reading:
            if not self._closed:
                return await self._link.receive_some()
        raise trio.ClosedResourceError

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(_WRITE_TIMEOUT) as late:
            try:
                await self._link.send_all(bytes(data))
            except OSError as error:
                raise trio.BrokenResourceError from error
        if late.cancelled_caught:
            await self.aclose()  # half a write was made: nothing may follow it
            raise trio.BrokenResourceError("the peer does not read")

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self._link.stop()
        self._closed = True
        self._reading.cancel()
        await trio.lowlevel.checkpoint()


async def serve_app(app: ASGIApp, connection: Connection, came: bytes) -> None:
    """Answer one request, whose head (and more) `came` already, then end the connection."""
    await own_task()
    connection.link.stop()
    config = Config()
    config.include_server_header = False
    config.keep_alive_max_requests = 1
    config.errorlog = None
    config.accesslog = None
    stream = _GuardedStream(connection.link, came)
    with trio.move_on_after(_TOTAL):
        server = TCPServer(wrap_app(app, config.wsgi_max_body_size, "asgi"), config, WorkerContext(None), {}, stream)  # type: ignore[arg-type]
        await server.run()
    connection.end()
