"""Bytes that nobody should send, and what each earns: a status and the end of the connection, or a close code.

Each goes to a running daemon on a connection of its own. The tables of the parsers' own tests are part of it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any, Final

from broker.protocol.deflate import compress_payload
from tests.e2e.tokens import token
from tests.http1.smuggling import SMUGGLING, post
from tests.protocol.frames import BINARY, BROKEN, CONTINUATION, LIMIT, PING, TEXT, frame

# ---- requests --------------------------------------------------------------------------------------------------------

_KEY: Final = b"dGhlIHNhbXBsZSBub25jZQ=="


def upgrade(
    *more: bytes,
    path: bytes = b"/connection/websocket",
    method: bytes = b"GET",
    without: tuple[bytes, ...] = (),
    behind: bytes = b"",
) -> bytes:
    """A handshake with fields more, or without some."""
    fields = {
        b"Host": b"localhost",
        b"Connection": b"Upgrade",
        b"Upgrade": b"websocket",
        b"Sec-WebSocket-Version": b"13",
        b"Sec-WebSocket-Key": _KEY,
    }
    lines = [name + b": " + value for name, value in fields.items() if name not in without]
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", *lines, *more]) + b"\r\n\r\n" + behind


HANDSHAKES: dict[str, tuple[bytes, int]] = {
    "one byte with the handshake": (upgrade(behind=b"x"), 400),
    "a frame with the handshake": (upgrade(behind=frame(TEXT, b"{}")), 400),
    "a request with the handshake": (upgrade(behind=upgrade()), 400),
    "handshake by POST": (upgrade(method=b"POST"), 405),
    "handshake without Connection": (upgrade(without=(b"Connection",)), 400),
    "handshake without Upgrade": (upgrade(without=(b"Upgrade",)), 400),
    "handshake without version": (upgrade(without=(b"Sec-WebSocket-Version",)), 400),
    "handshake of an old version": (upgrade(b"Sec-WebSocket-Version: 8", without=(b"Sec-WebSocket-Version",)), 400),
    "handshake without key": (upgrade(without=(b"Sec-WebSocket-Key",)), 400),
    "handshake with two keys": (upgrade(b"Sec-WebSocket-Key: " + _KEY), 400),
    "handshake with a short key": (upgrade(b"Sec-WebSocket-Key: AAAA", without=(b"Sec-WebSocket-Key",)), 400),
    "handshake with a body": (upgrade(b"Content-Length: 2", behind=b"{}"), 400),
    "handshake with chunks": (upgrade(b"Transfer-Encoding: chunked", behind=b"0\r\n\r\n"), 400),
    "handshake from a foreign page": (upgrade(b"Origin: http://evil.example"), 403),
    "handshake from nowhere": (upgrade(b"Origin: null"), 403),
    "handshake with two origins": (upgrade(b"Origin: http://localhost", b"Origin: http://evil.example"), 403),
    "h2c with garbage": (upgrade(b"Upgrade: h2c", b"HTTP2-Settings: \x80", without=(b"Upgrade",)), 400),
    "handshake with the API": (upgrade(path=b"/api/publish"), 405),
    "handshake with nothing": (upgrade(path=b"/nothing"), 404),
    "HTTP/2 with a path of raw bytes": (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000000006010500000001828644827fe9"),
        505,
    ),
    "path that climbs": (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    "path that climbs in disguise": (b"GET /%2e%2e/%2e%2e%2fetc/passwd%00 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    "path in a log's face": (b"GET /%0d%0a%1b[2J%0aERROR HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    "spoofed length": (post(b"Content_Length: 4", b"Content-Length: 0x4"), 400),
    "method of another world": (b"PROPFIND /health HTTP/1.1\r\nHost: x\r\n\r\n", 405),
}
"""Handshakes and paths, for the port of the clients: status -> and closed."""

REQUESTS: Final = {**SMUGGLING, **HANDSHAKES}

OFFERS: Final = {
    "junk in the window bits": b"permessage-deflate; client_max_window_bits=abc",
    "window of 99 bits": b"permessage-deflate; client_max_window_bits=99",
    "no extension at all": b",;,=;",
    "bytes": b"\xff\xfe",
    "a thousand offers": b", ".join([b"x-deflate"] * 1000),
}
"""Extension headers that are declined while the connection is made."""


# ---- frames and commands ---------------------------------------------------------------------------------------------


def text(*commands: Mapping[str, Any] | str) -> bytes:
    """Commands in one text frame."""
    lines = [line if isinstance(line, str) else json.dumps(line) for line in commands]
    return frame(TEXT, "\n".join(lines).encode())


FRAMES: Final = {name: row for name, row in BROKEN.items() if name != "continuation after the end"}
"""Without the one in which a message is complete before it breaks: that message is no command."""

CONNECT: Final = {"id": 1, "connect": {"token": token("mallory")}}

COMMANDS: dict[str, tuple[bytes, int]] = {
    "empty frame": (text(""), 3501),
    "not JSON": (text("hello"), 3501),
    "half an object": (text('{"id":1'), 3501),
    "array": (text("[]"), 3501),
    "number": (text("1"), 3501),
    "NUL": (text("\0"), 3501),
    "blank line between": (text(CONNECT, "", {}), 3501),
    "nothing but lines": (text("\n" * 60_000), 3501),
    "deep arrays": (text("[" * 60_000), 3501),
    "deep objects": (text('{"connect":' * 5_000), 3501),
    "deep payload": (text('{"id":1,"connect":{"data":' + "[" * 30_000 + "]" * 30_000 + "}}"), 3501),
    "id is a text": (text('{"id":"1","connect":{}}'), 3501),
    "id is negative": (text('{"id":-1,"connect":{}}'), 3501),
    "id is a fraction": (text('{"id":1.5,"connect":{}}'), 3501),
    "id of thirty digits": (text('{"id":' + "9" * 30 + ',"connect":{}}'), 3501),
    "id is NaN": (text('{"id":NaN,"connect":{}}'), 3501),
    "id 0": (text('{"id":0,"connect":{}}'), 3501),
    "connect is a text": (text('{"id":1,"connect":"x"}'), 3501),
    "invalid UTF-8 in a binary frame": (frame(BINARY, b'{"id":1,"connect":{"token":"\xff"}}'), 3501),
    "no command": (text({"id": 1}), 3501),
    "pong before connect": (text({}), 3501),
    "subscribe before connect": (text({"id": 1, "subscribe": {"channel": "x"}}), 3501),
    "ping, which no client sends": (text({"id": 1, "ping": {}}), 3501),
    "two connects": (text(CONNECT, CONNECT), 3501),
    "a frame of pongs": (text(CONNECT, *["{}"] * 3449), 3501),
    "a pong that nobody asked for": (text(CONNECT, {}), 3501),
    "message one byte too long": (frame(TEXT, b" " * (LIMIT + 1)), 1009),
    "longest message": (frame(TEXT, b" " * LIMIT), 3501),
    "a million empty fragments": (frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 1_000_000, 1009),
    "token without signature": (
        text({"id": 1, "connect": {"token": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0."}}),
        3500,
    ),
    "token of another secret": (text({"id": 1, "connect": {"token": token("root", secret="guessed")}}), 3500),
    "token that is none": (text({"id": 1, "connect": {"token": "x" * 60_000}}), 3500),
}
"""After the handshake, with the JSON protocol: what ends the connection, and its close code."""

PROTOBUF: dict[str, tuple[bytes, int]] = {
    "empty": (frame(BINARY), 3501),
    "pong before connect": (frame(BINARY, b"\x00"), 3501),
    "length without message": (frame(BINARY, b"\x05"), 3501),
    "length beyond the end": (frame(BINARY, b"\x7f\x08\x01"), 3501),
    "length beyond all limits": (frame(BINARY, b"\xff\xff\xff\xff\x0f\x08\x01"), 3501),
    "length of eleven bytes": (frame(BINARY, b"\xff" * 10 + b"\x01"), 3501),
    "length that never ends": (frame(BINARY, b"\x80" * 1000), 3501),
    "field number 0": (frame(BINARY, b"\x02\x00\x01"), 3501),
    "unknown wire type": (frame(BINARY, b"\x02\x0f\x01"), 3501),
    "group that never ends": (frame(BINARY, b"\x01\x7b"), 3501),
    "nested groups": (frame(BINARY, b"\xa0\x1f" + b"\x7b" * 4000), 3501),
    "field beyond the end": (frame(BINARY, b"\x04\x22\x7f\x0a\x01"), 3501),
    "id alone": (frame(BINARY, b"\x02\x08\x01"), 3501),
    "JSON": (text(CONNECT), 3501),
}
"""After the handshake, with the Protobuf protocol."""


def _packed(message: bytes, *, opcode: int = TEXT) -> bytes:
    return frame(opcode, compress_payload(message, 9), rsv=0x40)


def _with_context(message: bytes) -> bytes:
    """`message` compressed as a repetition of the same one before, which was not agreed."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream.compress(message)
    stream.flush(zlib.Z_SYNC_FLUSH)
    return (stream.compress(message) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


DEFLATE: dict[str, tuple[bytes, int]] = {
    "bomb": (_packed(bytes(50_000_000)), 1009),
    "bomb one byte above the limit": (_packed(b" " * (10 * LIMIT + 1)), 1009),
    "largest message": (_packed(b" " * (10 * LIMIT)), 3501),
    "bomb in fragments": (
        frame(TEXT, compress_payload(bytes(50_000_000), 9)[:40_000], fin=False, rsv=0x40)
        + frame(CONTINUATION, compress_payload(bytes(50_000_000), 9)[40_000:]),
        1009,
    ),
    "not deflate": (frame(TEXT, b"\xff" * 100, rsv=0x40), 1002),
    "cut short": (frame(TEXT, compress_payload(b"hello " * 100, 9)[:-3], rsv=0x40), 1002),
    "compressed ping": (frame(PING, compress_payload(b"x", 1), rsv=0x40), 1002),
    "second fragment says compressed": (
        frame(TEXT, b"", fin=False, rsv=0x40) + frame(CONTINUATION, b"", rsv=0x40),
        1002,
    ),
    "a message that needs the one before": (
        frame(TEXT, _with_context(b"hello " * 20), rsv=0x40),
        1002,
    ),
    "compressed bytes that are not text": (_packed(b"\xff\xfe"), 1007),
    "too long before it is inflated": (frame(TEXT, size=LIMIT + 1, rsv=0x40), 1009),
    **{name: row for name, row in FRAMES.items() if "rsv1" not in name},
}
"""After a handshake that agreed on permessage-deflate."""
