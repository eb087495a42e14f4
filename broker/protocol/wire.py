"""A wire: how units of one codec become bytes ready for one kind of transport.

Connections that share a wire get the same bytes, so a push is encoded once per wire and not once per subscriber.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, final

from broker.http1 import chunk
from broker.protocol.codec import Codec
from broker.protocol.deflate import compress_payload
from broker.protocol.websocket import binary_frame, compressed_frame, ping_frame, text_frame

__all__ = ["UNITS_PER_FRAME", "DeflateWire", "EventWire", "FrameWire", "LineWire", "Wire"]

UNITS_PER_FRAME: Final = 16
"""Centrifugo puts at most 16 messages into one frame; clients size their buffers by that."""
_BYTES_PER_FRAME = 65536
_CR = 13


class Wire(Protocol):
    """Encodes for one group of connections that can share bytes."""

    @property
    def codec(self) -> Codec: ...

    def pack(self, units: Sequence[bytes]) -> bytes:
        """The bytes that carry `units`, in order, complete in themselves: packs may be joined."""
        ...

    def pack_one(self, unit: bytes) -> bytes:
        """`pack` for the one unit that most writes are."""
        ...

    @property
    def ping(self) -> bytes:
        """A packed ping."""
        ...

    @property
    def native_ping(self) -> bytes:
        """The transport's own ping, for clients that ask for it."""
        ...


@final
class FrameWire:
    """WebSocket frames: text for JSON, binary for Protobuf. At most `units` of them in a frame."""

    __slots__ = ("_binary", "_frame", "_units", "codec", "native_ping", "ping")

    def __init__(self, codec: Codec, units: int = UNITS_PER_FRAME) -> None:
        self.codec = codec
        self._units = units
        self._binary = codec.binary
        self._frame = binary_frame if codec.binary else text_frame
        self.ping = self.pack([codec.ping])
        self.native_ping = ping_frame(b"")

    def pack_one(self, unit: bytes) -> bytes:
        return self._frame(self.codec.join((unit,)) if self._binary else unit)

    def pack(self, units: Sequence[bytes]) -> bytes:
        if len(units) == 1:
            return self.pack_one(units[0])
        return b"".join([self._frame(self.codec.join(part)) for part in _parts(units, self._units)])


@final
class DeflateWire:
    """WebSocket frames with permessage-deflate. No context is taken over, so these bytes can be shared as well."""

    __slots__ = ("_level", "_min_size", "_plain", "_units", "codec", "native_ping", "ping")

    def __init__(self, codec: Codec, level: int, min_size: int, units: int = UNITS_PER_FRAME) -> None:
        self.codec = codec
        self._units = units
        self._level = level
        self._min_size = min_size
        self._plain = FrameWire(codec)
        self.ping = self._plain.ping
        self.native_ping = self._plain.native_ping

    def pack_one(self, unit: bytes) -> bytes:
        return self._pack_frame((unit,))

    def pack(self, units: Sequence[bytes]) -> bytes:
        return b"".join([self._pack_frame(part) for part in _parts(units, self._units)])

    def _pack_frame(self, units: Sequence[bytes]) -> bytes:
        payload = self.codec.join(units)
        if len(payload) <= self._min_size:
            return self._plain.pack(units)
        return compressed_frame(compress_payload(payload, self._level), binary=self.codec.binary)


@final
class LineWire:
    """A response without an end: JSON in lines, Protobuf messages behind their lengths.

    Each pack is one chunk (RFC 9112 §7.1); not `chunked` for HTTP/1.0, where the end of the connection ends it.
    """

    __slots__ = ("_chunked", "codec", "native_ping", "ping")

    def __init__(self, codec: Codec, *, chunked: bool) -> None:
        self.codec = codec
        self._chunked = chunked
        self.ping = self.native_ping = self.pack_one(codec.ping)

    def pack_one(self, unit: bytes) -> bytes:
        return self.pack((unit,))

    def pack(self, units: Sequence[bytes]) -> bytes:
        codec = self.codec
        data = codec.join(units) if codec.binary else b"%b\n" % codec.join(units)
        return chunk(data) if self._chunked else data


@final
class EventWire:
    """A response without an end: each unit one event (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    A carriage return ends a line there. In a JSON text it can only be white space, so it is left out.
    """

    __slots__ = ("_chunked", "codec", "native_ping", "ping")

    def __init__(self, codec: Codec, *, chunked: bool) -> None:
        self.codec = codec
        self._chunked = chunked
        self.ping = self.native_ping = self.pack_one(codec.ping)

    def pack_one(self, unit: bytes) -> bytes:
        return self.pack((unit,))

    def pack(self, units: Sequence[bytes]) -> bytes:
        data = b"".join([b"data: %b\n\n" % unit for unit in units])
        if _CR in data:
            data = data.replace(b"\r", b"")
        return chunk(data) if self._chunked else data


def _parts(units: Sequence[bytes], most: int) -> list[Sequence[bytes]]:
    """Cut `units` into frames of bounded count and, unless a single unit is larger, bounded size."""
    parts: list[Sequence[bytes]] = []
    start = size = 0
    for at, unit in enumerate(units):
        if at > start and (at - start == most or size + len(unit) > _BYTES_PER_FRAME):
            parts.append(units[start:at])
            start, size = at, 0
        size += len(unit)
    parts.append(units[start:])
    return parts
