"""HTTP/1.1 as a client: one request, one answer, one connection. For key sets and other small questions to backends.

Nothing an answer says is followed: no redirects, no cookies, no other protocols. Everything is bounded: by a
deadline, by the bytes of the head, by the bytes of the body.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Iterable
from typing import Final, Literal, final
from urllib.parse import SplitResult, urlsplit

import attrs
import httptools
import trio

__all__ = ["FetchError", "Response", "fetch"]

_HEAD_LIMIT: Final = 16_384
_CHUNK: Final = 65_536

Headers = Iterable[tuple[str, str]]


class FetchError(Exception):
    """No answer that could be used, and why. The text holds neither the request's headers nor its body."""


@final
@attrs.frozen
class Response:
    """An answer, whatever its status. Header names are in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


async def fetch(
    url: str,
    *,
    deadline: float,
    limit: int,
    method: Literal["GET", "POST"] = "GET",
    headers: Headers = (),
    body: bytes = b"",
    tls: ssl.SSLContext | None = None,
) -> Response:
    """Ask once and read the whole answer.

    The connection is closed at the end, also when this is cancelled.

    Args:
        url: `http://` or `https://`, ASCII, without user name.
        deadline: on Trio's clock; everything from the name's look-up to the last byte happens before it.
        limit: bytes that the answer's body may have.
        headers: beside `Host`, `Content-Length` and `Connection`, which are set here.
        tls: for `https`; by default certificates are checked against the system's.

    Raises:
        FetchError: refused, cut off, too slow, too large, or not HTTP.
        ValueError: `url` or `headers` are not what a request may hold.
    """
    target = _Target.of(url)
    request = target.request(method, headers, body)
    with trio.move_on_at(deadline):
        try:
            stream = await target.open(tls)
            try:
                await stream.send_all(request)
                return await _read_response(stream, limit)
            finally:
                await trio.aclose_forcefully(stream)
        except (OSError, UnicodeError, trio.BrokenResourceError) as error:
            raise FetchError(f"{target.host}: {_reason(error)}") from error
    raise FetchError(f"{target.host}: no answer in time")


@final
@attrs.frozen
class _Target:
    """Whom to ask for what: what a pool would keep connections by, and the path."""

    secure: bool
    host: str
    port: int
    authority: str
    path: str

    @classmethod
    def of(cls, url: str) -> _Target:
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

    async def open(self, tls: ssl.SSLContext | None) -> trio.abc.Stream:
        stream = await trio.open_tcp_stream(self.host, self.port)
        if not self.secure:
            return stream
        # the handshake happens with the first bytes sent
        return trio.SSLStream(stream, tls or _system_tls(), server_hostname=self.host, https_compatible=True)

    def request(self, method: str, headers: Headers, body: bytes) -> bytes:
        lines = [f"{method} {self.path} HTTP/1.1", f"Host: {self.authority}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        if any(not line.isascii() or not line.isprintable() for line in lines):
            raise ValueError("a header holds visible ASCII characters and spaces only")
        return "\r\n".join([*lines, "", ""]).encode("ascii") + body


@functools.cache  # reading the system's certificates takes 20 ms
def _system_tls() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _read_response(stream: trio.abc.ReceiveStream, limit: int) -> Response:
    reader = _Reader(limit)
    while not reader.complete:
        data = await stream.receive_some(_CHUNK)
        if data:
            reader.feed(bytes(data))
        else:
            reader.end()
    return Response(reader.status, tuple(reader.headers), bytes(reader.body))


@final
class _Reader:
    """One answer, as httptools reads it. Interim answers (1xx) are passed over."""

    def __init__(self, limit: int) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._limit = limit
        self._head_bytes = 0
        self._in_head = True
        self._until_end = True  # the body ends with the connection, unless a header tells its length
        self.complete = False
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = bytearray()

    def feed(self, data: bytes) -> None:
        """Take in what arrived.

        Raises:
            FetchError: it is not an answer, or too large.
        """
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise FetchError("another protocol was answered") from None
        except httptools.HttpParserError as error:
            if not self.complete:  # what follows the answer is nobody's business
                raise FetchError(f"not HTTP: {error}") from None
        if self._in_head and self._head_bytes > _HEAD_LIMIT:
            raise FetchError("the head of the answer is too large")
        if len(self.body) > self._limit:
            raise FetchError("the answer is too large")

    def end(self) -> None:
        """The server closed the connection.

        Raises:
            FetchError: in the middle of its answer.
        """
        if self._in_head or not self._until_end:
            raise FetchError("the answer was cut off")
        self.complete = True

    # ---- called by the parser ---------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer
        key = name.decode("latin-1").lower()
        self.headers.append((key, value.decode("latin-1")))
        if key in ("content-length", "transfer-encoding"):
            self._until_end = False

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.complete:
            return
        if status < 200:
            self.headers.clear()
            self._until_end = True
            return
        self.status = status
        self._in_head = False

    def on_body(self, data: bytes) -> None:
        if not self.complete and len(self.body) <= self._limit:
            self.body += data

    def on_message_complete(self) -> None:
        if not self._in_head:
            self.complete = True


def _reason(error: Exception) -> str:
    """What went wrong, without the wrapping that says only that something did."""
    return str(error.__cause__ or error) or type(error).__name__
