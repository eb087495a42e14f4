"""Whom to ask for what: an address, split into what a connection needs and what a request needs."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Iterable
from typing import final
from urllib.parse import SplitResult, urlsplit

import attrs
import trio

from broker.tls import trusting

__all__ = ["Headers", "Target", "system_tls"]

Headers = Iterable[tuple[str, str]]


@final
@attrs.frozen
class Target:
    """Whom to ask for what: what a pool would keep connections by, and the path."""

    secure: bool
    host: str
    port: int
    authority: str
    path: str

    @classmethod
    def of(cls, url: str) -> Target:
        if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
            raise ValueError("a URL holds visible ASCII characters only")
        parts: SplitResult = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("a URL is http(s)://host…, without a user name")
        secure = parts.scheme == "https"
        path = parts.path or "/"
        if parts.query:
            path += "?" + parts.query
        return cls(secure, parts.hostname, parts.port or (443 if secure else 80), parts.netloc, path)

    async def open(self, tls: ssl.SSLContext | None, server_name: str = "") -> trio.abc.Stream:
        """Connect. `server_name` is what the certificate must name, if that is not the host."""
        stream = await trio.open_tcp_stream(self.host, self.port)
        if not self.secure:
            return stream
        # the handshake happens with the first bytes sent
        name = server_name or self.host
        return trio.SSLStream(stream, tls or system_tls(), server_hostname=name, https_compatible=True)

    def request(self, method: str, headers: Headers, body: bytes) -> bytes:
        """A whole request, the only one of its connection."""
        fields = [("Connection", "close"), *headers]
        if body or method == "POST":
            fields.append(("Content-Length", str(len(body))))
        return self.head(method, fields) + b"\r\n" + body

    def head(self, method: str, headers: Headers) -> bytes:
        """Request line and headers, without the empty line.

        Raises:
            ValueError: a header holds something else than visible ASCII characters and spaces.
        """
        lines = [f"{method} {self.path} HTTP/1.1", f"Host: {self.authority}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if any(not line.isascii() or not line.isprintable() for line in lines):
            raise ValueError("a header holds visible ASCII characters and spaces only")
        return "\r\n".join([*lines, ""]).encode("ascii")


@functools.cache  # reading the system's certificates takes 20 ms
def system_tls() -> ssl.SSLContext:
    """Checks certificates against those of the system."""
    return trusting()
