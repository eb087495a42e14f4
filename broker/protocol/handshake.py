"""The WebSocket opening handshake, the server's side. Facts: client protocol §1.3; RFC 6455 §4.2."""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import Final, final
from urllib.parse import parse_qs

from msgspec import Struct

from broker.protocol.deflate import DEFLATE_ANSWER, accepts_deflate

__all__ = ["Handshake", "HandshakeError", "accept_key", "handshake", "wants_protobuf"]

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
"""16 bytes in base64, and only in their one spelling."""

_JSON, _PROTOBUF = "centrifuge-json", "centrifuge-protobuf"
_SUBPROTOCOLS: Final = {name.encode(): name for name in (_JSON, _PROTOBUF)}

_SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)


@final
class Handshake(Struct, frozen=True):
    """What was agreed. `subprotocol` is empty if the client listed none that is known. `response` is the whole 101."""

    subprotocol: str
    deflate: bool
    response: bytes


class HandshakeError(Exception):
    """The request does not open a WebSocket: answer `status` and `text`, and the header `Sec-WebSocket-Version: 13`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


def accept_key(key: bytes) -> bytes:
    """The answer to a `Sec-WebSocket-Key`."""
    return binascii.b2a_base64(hashlib.sha1(key + _GUID, usedforsecurity=False).digest(), newline=False)


def handshake(method: str, headers: Mapping[bytes, bytes], *, deflate: bool = False) -> Handshake:
    """Agree on a WebSocket.

    Args:
        headers: lower-case names; values of repeated headers joined by commas.
        deflate: permessage-deflate may be agreed.

    Raises:
        HandshakeError: 400 or 405.
    """
    if not _names(headers, b"connection", b"upgrade"):
        raise HandshakeError(400, "no 'upgrade' in the Connection header")
    if not _names(headers, b"upgrade", b"websocket"):
        raise HandshakeError(400, "no 'websocket' in the Upgrade header")
    if method != "GET":
        raise HandshakeError(405, "method is not GET")
    if not _names(headers, b"sec-websocket-version", b"13"):
        raise HandshakeError(400, "Sec-WebSocket-Version is not 13")
    key = headers.get(b"sec-websocket-key", b"")
    if not _KEY.fullmatch(key):
        raise HandshakeError(400, "Sec-WebSocket-Key is not 16 bytes in base64")
    if b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip(b"0"):
        raise HandshakeError(400, "the request has a body")

    response = _SWITCHING + accept_key(key)
    subprotocol = ""
    if b"sec-websocket-protocol" in headers:
        for offer in headers[b"sec-websocket-protocol"].split(b","):
            name = _SUBPROTOCOLS.get(offer.strip(b" \t"))
            if name is not None:
                subprotocol = name
                response += b"\r\nSec-WebSocket-Protocol: " + name.encode()
                break
    agreed = deflate and accepts_deflate(headers.get(b"sec-websocket-extensions", b""))
    if agreed:
        response += b"\r\nSec-WebSocket-Extensions: " + DEFLATE_ANSWER
    return Handshake(subprotocol, agreed, response + b"\r\n\r\n")


def wants_protobuf(subprotocol: str, query: str) -> bool:
    """Which codec a connection speaks: the agreed subprotocol, or its query, asks for Protobuf; else it is JSON."""
    if subprotocol == _PROTOBUF:
        return True
    if "protobuf" not in query:
        return False
    asked = parse_qs(query)
    return "protobuf" in (asked.get("cf_protocol", [""])[0], asked.get("format", [""])[0])


def _names(headers: Mapping[bytes, bytes], name: bytes, token: bytes) -> bool:
    """Whether a header lists a token."""
    value = headers.get(name, b"").lower()
    return value == token or token in [each.strip(b" \t") for each in value.split(b",")]
