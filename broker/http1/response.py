"""Responses as bytes, ready to send."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

__all__ = ["CONTINUE", "JSON_TYPE", "LAST_CHUNK", "TEXT_TYPE", "chunk", "response", "stream_head"]

JSON_TYPE: Final = "application/json"
TEXT_TYPE: Final = "text/plain; charset=utf-8"

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
_BODILESS: Final = (204, 304)
"""They end with the empty line, and a length of 0 would say something else (RFC 9110 §8.6)."""

Headers = Iterable[tuple[str, str]]


def response(
    status: int,
    body: bytes = b"",
    *,
    content_type: str = JSON_TYPE,
    headers: Headers = (),
    close: bool = False,
) -> bytes:
    """A whole response. The answer to HEAD is the same, cut by its caller behind the empty line.

    Raises:
        ValueError: a header holds a line end.
    """
    begin = _begin(status, content_type, close)
    if headers:
        begin += _fields(headers)
    if status in _BODILESS:
        return begin + b"\r\n"
    return b"%bContent-Length: %d\r\n\r\n%b" % (begin, len(body), body)


def stream_head(status: int, *, content_type: str, headers: Headers = (), chunked: bool = True) -> bytes:
    """The head of a response without an end: in chunks, or for HTTP/1.0 until the connection closes.

    Raises:
        ValueError: a header holds a line end.
    """
    framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""
    return _begin(status, content_type, not chunked) + _fields(headers) + framing + b"\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk. `data` is not empty: that would end the stream."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@functools.lru_cache(maxsize=64)
def _begin(status: int, content_type: str, close: bool) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    if close:
        lines.append("Connection: close")
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _fields(headers: Headers) -> bytes:
    lines = [f"{name}: {value}" for name, value in headers]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header holds a line end")
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")
