"""Bytes that the load sends, made before the clock runs, and the two things it looks for in what comes back.

The load has to cost less than the server. So it reads no JSON while the clock runs: publications carry a mark, and
deliveries are counted by counting marks, however the server joined them into frames and segments.
"""

from __future__ import annotations

import json
import re
from typing import Any, final

MARK = b'"#seq":1'
"""Occurs once in each publication's data and nowhere else in the protocol; seven digits of its number follow."""

NUMBERED = re.compile(rb'"#seq":1(\d{7})')
HIGHEST_NUMBER = 9_999_999

PING, PONG = b"\x81\x02{}", b"\x81\x82\x00\x00\x00\x00{}"
"""The server's ping as a whole frame, and the answer (client protocol §1.8)."""

_MASK = b"\x37\xfa\x21\x3d"


def client_frame(*commands: dict[str, Any]) -> bytes:
    """One masked text frame that carries `commands`."""
    payload = b"\n".join(json.dumps(command, separators=(",", ":")).encode() for command in commands)
    size = len(payload)
    if size < 126:
        head = bytes((0x81, 0x80 | size))
    elif size < 65536:
        head = b"\x81\xfe" + size.to_bytes(2, "big")
    else:
        head = b"\x81\xff" + size.to_bytes(8, "big")
    key = int.from_bytes((_MASK * (size // 4 + 1))[:size], "big")
    return head + _MASK + (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")


def handshake(host: str, port: int, path: str) -> bytes:
    """A WebSocket upgrade request for the JSON protocol, without an Origin."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def data_of(size: int) -> bytes:
    """A template of publication data, `size` bytes long once `%07d` is filled with a number."""
    data = b'{%s%%07d,"pad":"%%s"}' % MARK
    spare = size - len(data % (0, b""))
    if spare < 0:
        raise ValueError(f"data of a publication needs at least {size - spare} bytes")
    return data.replace(b"%s", b"x" * spare)


def post(host: str, port: int, path: str, api_key: str, body: bytes) -> bytes:
    """A keep-alive POST. Each `%07d` in `body` is to be filled in later and counts as seven bytes."""
    key = f"X-API-Key: {api_key}\r\n" if api_key else ""
    size = len(body) + (7 - len(b"%07d")) * body.count(b"%07d")
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{key}Content-Type: application/json\r\nContent-Length: {size}"
    )
    return head.replace("%", "%%").encode() + b"\r\n\r\n" + body


@final
class MarkCounter:
    """Counts marks in a stream of bytes that may be cut anywhere."""

    __slots__ = ("_tail",)
    _KEEP = len(MARK) - 1

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, buffer: bytearray, size: int) -> int:
        """The marks that end within the first `size` bytes of `buffer`, the next part of the stream."""
        keep = self._KEEP
        found = buffer.count(MARK, 0, size)
        tail = self._tail
        if size >= keep:
            if tail:
                found += (tail + buffer[:keep]).count(MARK)
            self._tail = bytes(buffer[size - keep : size])
        else:
            joint = tail + buffer[:size]
            found += joint.count(MARK)  # shorter than a mark, so `buffer` alone held none
            self._tail = joint[-keep:]
        return found


def split_frames(data: bytes) -> tuple[list[bytes], bytes]:
    """The payloads of the whole text and binary frames in `data`, and the bytes that are left over.

    Raises:
        ConnectionError: a Close frame, with its code and reason.
    """
    payloads = []
    at = 0
    while len(data) - at >= 2:
        size, begin = data[at + 1] & 127, at + 2
        if size == 126:
            size, begin = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
        elif size == 127:
            size, begin = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
        if begin + size > len(data):
            break
        payload = data[begin : begin + size]
        if data[at] & 15 == 8:
            code, reason = int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace")
            raise ConnectionError(f"the server closed the connection: {code} {reason}")
        payloads.append(payload)
        at = begin + size
    return payloads, data[at:]
