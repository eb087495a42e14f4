"""Where a server is, and how a byte stream to it is opened."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import final
from urllib.parse import urlsplit

import attrs
import trio

__all__ = ["Address", "Dial"]

Dial = Callable[[], Awaitable[trio.abc.Stream]]
"""Opens a stream to the server: through a proxy, over a Unix socket, in memory."""


@final
@attrs.frozen
class Address:
    """A WebSocket endpoint."""

    host: str
    port: int
    resource: str
    secure: bool

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `ws://host[:port][/path]` or `wss://…`.

        Raises:
            ValueError: it is something else.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError(f"{url!r} is not a ws:// or wss:// address")
        secure = parts.scheme == "wss"
        resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.hostname, parts.port or (443 if secure else 80), resource, secure)

    @property
    def header(self) -> str:
        """What goes into the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    def dial(self, context: ssl.SSLContext | None) -> Dial:
        """The way to it over TCP, and TLS for `wss`; `context` replaces the system's trust."""

        async def dial() -> trio.abc.Stream:
            if not self.secure:
                return await trio.open_tcp_stream(self.host, self.port)
            stream = await trio.open_ssl_over_tcp_stream(
                self.host, self.port, https_compatible=True, ssl_context=context
            )
            await stream.do_handshake()
            return stream

        return dial
