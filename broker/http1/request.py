"""Request heads, parsed strictly: the request line by a grammar of our own, the fields by llhttp (httptools), which
is strict about them, and on top the rules that it leaves to its user. What could be read in two ways is refused.

Facts: RFC 9110, RFC 9112; where those leave a choice, the narrow one. Fields whose name has an underscore are dropped,
as nginx does: behind CGI-like gateways `X_Forwarded_For` and `X-Forwarded-For` are the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, final
from urllib.parse import unquote

import httptools
from msgspec import Struct

__all__ = ["MAX_HEAD", "Head", "HttpError", "Request", "check_octets", "parse_head"]

MAX_HEAD: Final = 16_384
"""Bytes of a request head with its empty line."""
_MAX_FIELDS: Final = 100

_REQUEST_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} [!-~]+ HTTP/[0-9]\.[0-9]\r\n")
_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+;=%:\[\]-]*")
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")
_OCTETS: Final = bytes([*b"\t\r\n", *range(0x20, 0x7F), *range(0x80, 0x100)])

_MEMO_HEADS: Final = 256
_MEMO_BYTES: Final = 2048
_BEFORE_KEY: Final = b"\r\nSec-WebSocket-Key: "
_KEY_NAME: Final = b"sec-websocket-key"
_KEY: Final = re.compile(rb"[A-Za-z0-9+/=]{24}")


class HttpError(Exception):
    """The request is refused: answer `status` and `text`, then close the connection."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


@final
class Head(Struct, frozen=True):
    """Everything of a request but its body. Shared between equal requests, so never changed.

    Attributes:
        method: as it was sent, in capitals.
        target: as it was sent.
        path: percent-decoded, once, and not normalised: `..` stays. `*` for `OPTIONS *`.
        query: as it was sent, without the `?`.
        http_version: "1.1" or "1.0".
        headers: by lower-case name. Values of a repeated header are joined by `, `, cookies by `; `.
        content_length: bytes of the body; 0 if it is `chunked`, or if there is none.
        keep_alive: the client may send another request on this connection.
        expects_continue: it waits for `100 Continue` before it sends the body.
    """

    method: str
    target: str
    path: str
    query: str
    http_version: str
    headers: Mapping[bytes, bytes]
    content_length: int
    chunked: bool
    keep_alive: bool
    expects_continue: bool


@final
class Request(Struct, frozen=True):
    """A whole request. `address` is where it comes from, as far as that is known."""

    head: Head
    body: bytes
    address: str = ""


def check_octets(part: bytes | bytearray) -> None:
    """Refuse control characters, and CR and LF that are not a line's end. A CR may be the last byte of `part`.

    Raises:
        HttpError: 400.
    """
    ends = part.count(b"\r\n")
    if part.translate(None, _OCTETS) or part.count(b"\n") != ends or part.count(b"\r") - part.endswith(b"\r") != ends:
        raise HttpError(400, "malformed request")


_memo: Final[dict[bytes, Head]] = {}
_upgrades: Final[dict[bytes, Head]] = {}
"""By the head without its key."""


def parse_head(raw: bytes) -> Head:
    """Parse a head, `raw` being all of it up to and with the empty line.

    Clients that keep a connection send the same head again and again; those are remembered, some hundreds of them.

    Raises:
        HttpError: 400 malformed or ambiguous; 405 CONNECT, or no method of HTTP; 417 unknown expectation; 431 too
            many fields; 505 not HTTP/1.0 or 1.1.
    """
    head = _memo.get(raw)
    if head is not None:
        return head
    at = raw.find(_BEFORE_KEY)
    if at >= 0:
        return _parse_upgrade(raw, at + len(_BEFORE_KEY))
    head = _parse(raw)
    if b"upgrade" not in head.headers:  # else it comes once, with a key of its own that is spelt otherwise
        _remember(_memo, raw, head)
    return head


def _parse_upgrade(raw: bytes, at: int) -> Head:
    """A head with the key of a WebSocket from `at` on. Many clients send the same but for that, and what a key may be
    made of can stand for any other key, so those are remembered without it."""
    end = at + 24
    key = raw[at:end]
    if not _KEY.fullmatch(key):
        return _parse(raw)
    rest = raw[:at] + raw[end:]
    like = _upgrades.get(rest)
    if like is None:
        head = _parse(raw)
        if head.headers.get(_KEY_NAME) == key:
            _remember(_upgrades, rest, head)
        return head
    return Head(
        like.method,
        like.target,
        like.path,
        like.query,
        like.http_version,
        {**like.headers, _KEY_NAME: key},
        like.content_length,
        like.chunked,
        like.keep_alive,
        like.expects_continue,
    )


def _remember(memo: dict[bytes, Head], raw: bytes, head: Head) -> None:
    if len(raw) < _MEMO_BYTES:
        if len(memo) >= _MEMO_HEADS:
            del memo[next(iter(memo))]
        memo[raw] = head


def _parse(raw: bytes) -> Head:
    line = _REQUEST_LINE.match(raw)
    if line is None:
        raise HttpError(400, "malformed request line")
    method, target, version = line[0][:-2].decode("ascii").split(" ")
    if version != "HTTP/1.1" and version != "HTTP/1.0":
        raise HttpError(505, "HTTP version not supported")
    newest = version == "HTTP/1.1"
    path, query = _split_target(method, target)
    headers = _parse_fields(raw)

    host = headers.get(b"host")
    if host is None:
        if newest:
            raise HttpError(400, "missing Host header")
    elif not _HOST.fullmatch(host):  # two of them are joined by a comma, which none has
        raise HttpError(400, "malformed Host header")
    length, chunked = _framing(headers, newest=newest)
    connection = headers.get(b"connection", b"").lower()
    expectation = headers.get(b"expect", b"").lower()
    if expectation and expectation != b"100-continue":
        raise HttpError(417, "expectation failed")
    return Head(
        method=method,
        target=target,
        path=path,
        query=query,
        http_version=version[5:],
        headers=headers,
        content_length=length,
        chunked=chunked,
        keep_alive=not _lists(connection, b"close") and (newest or _lists(connection, b"keep-alive")),
        expects_continue=bool(expectation) and newest,
    )


def _split_target(method: str, target: str) -> tuple[str, str]:
    """Path and query. Only the forms that a server which is no proxy has to know."""
    if method == "CONNECT":
        raise HttpError(405, "method not allowed")
    if target == "*" and method == "OPTIONS":
        return target, ""
    path, _, query = target.partition("?")
    if not path.startswith("/") or "#" in target:
        raise HttpError(400, "malformed request target")
    return unquote(path) if "%" in path else path, query


@final
class _Fields:
    """What llhttp calls back."""

    __slots__ = ("headers",)

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        headers = self.headers
        if name in headers:
            value = headers[name] + (b"; " if name == b"cookie" else b", ") + value
        headers[name] = value


def _parse_fields(raw: bytes) -> dict[bytes, bytes]:
    if raw.count(b"\r\n") > _MAX_FIELDS + 2:
        raise HttpError(431, "too many header fields")
    fields = _Fields()
    try:
        httptools.HttpRequestParser(fields).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # whether something is upgraded is for the caller to decide
    except httptools.HttpParserInvalidMethodError:
        raise HttpError(405, "method not allowed") from None
    except httptools.HttpParserError:
        raise HttpError(400, "malformed header") from None
    headers = fields.headers
    if b" \r\n" in raw or b"\t\r\n" in raw:
        headers = {name: value.rstrip(b" \t") for name, value in headers.items()}
    if b"_" in b"".join(headers):
        headers = {name: value for name, value in headers.items() if b"_" not in name}
    return headers


def _lists(value: bytes, token: bytes) -> bool:
    return token in value and token in [each.strip(b" \t") for each in value.split(b",")]


def _framing(headers: Mapping[bytes, bytes], *, newest: bool) -> tuple[int, bool]:
    """Length of the body, or that it is chunked. Several lengths are joined by a comma, and so refused."""
    length, coding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
    if coding is not None:
        if length is not None or not newest or coding.lower() != b"chunked":
            raise HttpError(400, "ambiguous length of the body")
        return 0, True
    if length is None:
        return 0, False
    if not _LENGTH.fullmatch(length):
        raise HttpError(400, "malformed Content-Length")
    return int(length), False
