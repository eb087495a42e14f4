"""SockJS: frames around messages, and messages out of what clients send.

Every message is a text, here the JSON protocol's units joined by line feeds. The server sends it as a JSON string in
an array, so that no carrier sees a line end or a character that browsers have mangled.

Facts: https://github.com/sockjs/sockjs-protocol (Protocol and framing, JSON Unicode Encoding).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, final

import msgspec

from broker.protocol.codes import Disconnect
from broker.protocol.json_codec import JsonCodec
from broker.protocol.json_text import BrokenJson, read_json
from broker.protocol.websocket import text_frame

__all__ = [
    "CONNECTION_OPEN",
    "HEARTBEAT",
    "OPEN",
    "BrokenMessages",
    "SockJsItems",
    "SockJsWire",
    "close_array",
    "message_array",
    "quoted",
    "read_frame",
]

OPEN: Final = b"o"
HEARTBEAT: Final = b"h"
CONNECTION_OPEN: Final = Disconnect(2010, "Another connection still open")
"""Whoever asks for the messages of a session that somebody else is waiting for."""

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(list[str] | str).decode
_MANGLED: Final = re.compile("[\u200c-\u200f\u2028-\u202f\u2060-\u206f\ufff0-\uffff]")
"""What browsers do not get unchanged, beside the control characters, which JSON escapes anyway."""


class BrokenMessages(Exception):
    """Not a JSON array of strings, nor a JSON string."""


def read_frame(text: bytes) -> bytes:
    """The messages of one body or WebSocket message of a client, as one frame of the JSON protocol: a message is such
    a frame by itself, and lines of several may follow one another. Empty if nothing is said.

    Raises:
        BrokenMessages: they cannot be read.
    """
    try:
        messages = read_json(text, _decode)
    except BrokenJson:
        raise BrokenMessages from None
    if isinstance(messages, str):
        messages = [messages]
    return "\n".join([message.removesuffix("\n") for message in messages if message]).encode()


def quoted(message: bytes) -> bytes:
    """A message, UTF-8, as the JSON string in which it travels."""
    text = _encode(message.decode())
    if text.isascii():
        return text
    return _MANGLED.sub(lambda found: f"\\u{ord(found[0]):04x}", text.decode()).encode()


def message_array(items: bytes | bytearray) -> bytes:
    """The frame of `SockJsItems` packs, one or several joined."""
    return b"a[" + items[:-1] + b"]"


def close_array(why: Disconnect) -> bytes:
    """The frame that ends a session."""
    return b"c" + _encode((why.code, why.reason))


@final
class SockJsWire:
    """A `Wire` of WebSocket frames, each with an array of one message."""

    __slots__ = ("codec", "native_ping", "ping")

    def __init__(self, codec: JsonCodec) -> None:
        self.codec = codec
        self.ping = self.pack_one(codec.ping)
        self.native_ping = self.ping  # no client of SockJS can ask for another

    def pack_one(self, unit: bytes) -> bytes:
        return text_frame(b"a[%b]" % quoted(unit))

    def pack(self, units: Sequence[bytes]) -> bytes:
        return self.pack_one(self.codec.join(units))


@final
class SockJsItems:
    """A `Wire` of quoted messages, each with a comma behind it: `message_array` makes a frame of what has piled up
    when somebody asks for it."""

    __slots__ = ("codec", "native_ping", "ping")

    def __init__(self, codec: JsonCodec) -> None:
        self.codec = codec
        self.ping = self.pack_one(codec.ping)
        self.native_ping = self.ping

    def pack_one(self, unit: bytes) -> bytes:
        return quoted(unit) + b","

    def pack(self, units: Sequence[bytes]) -> bytes:
        return self.pack_one(self.codec.join(units))
