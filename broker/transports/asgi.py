"""Everything that is not hot: one request of a connection, handed to an ASGI application by Hypercorn.

Hypercorn's per-connection server runs inside a guard, because it sends under a shield without a deadline and lets
exceptions out (docs/adr/0003-hypercorn-behind-a-guard.md): the guard gives every write a deadline, and the
connection's wall keeps what escapes. It gets one request, as the strict parser has read it, and closes; upgrades are
not offered to it.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast, final

import structlog
import trio

from broker.eager import own_task
from broker.http1 import Request
from broker.transports.connection import Connection
from broker.transports.links import Link
from broker.transports.site import ServeApp

__all__ = ["ASGIApp", "host"]

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

_log = structlog.get_logger("broker.transports")

_WRITE_TIMEOUT: Final = 10.0
_WRITE_SIZE: Final = 65_536
_TOTAL: Final = 60.0
"""Seconds that one request may take from head to end."""
_OURS: Final = frozenset((b"upgrade", b"http2-settings", b"expect", b"content-length", b"transfer-encoding"))
"""Headers that were settled before."""


@final
class _NoSocket:
    """What Hypercorn asks about addresses, of a stream that has none."""

    family = socket.AF_UNIX

    def getpeername(self) -> str:
        return ""

    getsockname = getpeername


@final
class _GuardedStream(trio.abc.HalfCloseableStream):
    """What Hypercorn sees of a connection: bytes put back, writes with a deadline. `serving` ends with a write that
    does not: Hypercorn alone would go on to ask the application for more."""

    def __init__(self, link: Link, came: bytes, serving: trio.CancelScope) -> None:
        self._link = link
        self._serving = serving
        self._came = came
        self._closed = False
        self.torn = False  # half a write was made: nothing may follow it
        self._reading = trio.CancelScope()
        self._writing = trio.CancelScope()
        self.socket = link.socket or _NoSocket()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._came:
            data, self._came = self._came, b""
            await trio.lowlevel.checkpoint()
            return data
        # Hypercorn reads on while it answers, and waits for that read when it has closed. There is nothing to read:
        # the connection notices by itself that its peer has gone.
        with self._reading:
            await trio.sleep_forever()
        raise trio.ClosedResourceError

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        for start in range(0, len(data), _WRITE_SIZE):
            if self._closed:
                raise trio.ClosedResourceError
            with trio.move_on_after(_WRITE_TIMEOUT) as self._writing:
                try:
                    await self._link.send_all(bytes(data[start : start + _WRITE_SIZE]))
                except OSError as error:
                    raise trio.BrokenResourceError from error
            if self._writing.cancelled_caught:
                self.torn = True
                self._serving.cancel()
                raise trio.BrokenResourceError("the peer does not read")

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.cut()
        await trio.lowlevel.checkpoint()

    def cut(self) -> None:
        self._closed = True
        self._reading.cancel()
        self._writing.cancel()

    async def cut_when_cancelled(self) -> None:
        """Writes are shielded: this is what tells them that the connection ends."""
        try:
            await trio.sleep_forever()
        finally:
            self.cut()


def host(app: ASGIApp) -> ServeApp:
    """Let `app` answer what nothing else of a site does.

    Hypercorn takes longer to import than much of the daemon, so only who hosts an application waits for it.
    """
    from hypercorn.config import Config
    from hypercorn.trio.tcp_server import TCPServer
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.utils import wrap_app

    config = Config()
    config.include_server_header = False
    config.keep_alive_max_requests = 1
    config.errorlog = None
    config.accesslog = None

    async def serve(connection: Connection, request: Request) -> None:
        """Answer one request, then end the connection, from which nobody reads any more."""
        await own_task()
        secure = connection.link.secure

        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app({**scope, "scheme": "https"} if secure else scope, receive, send)
            except Exception:
                _log.exception("an application failed", path=request.head.path)
                raise  # for Hypercorn, which answers 500

        serving = trio.move_on_after(_TOTAL)
        stream = _GuardedStream(connection.link, _as_parsed(request), serving)
        wrapped = wrap_app(guarded, config.wsgi_max_body_size, "asgi")
        server = TCPServer(wrapped, config, WorkerContext(None), {}, cast("Any", stream))
        try:
            with serving:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.cut_when_cancelled)
                    await server.run()
                    nursery.cancel_scope.cancel()
        finally:
            if stream.torn:
                connection.drop()
        connection.end()

    return serve


def _as_parsed(request: Request) -> bytes:
    """The request again, in the one way in which it was understood."""
    head = request.head
    lines = [f"{head.method} {head.target} HTTP/{head.http_version}".encode()]
    lines += [name + b": " + value for name, value in head.headers.items() if name not in _OURS]
    if request.body:
        lines.append(b"content-length: %d" % len(request.body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + request.body
