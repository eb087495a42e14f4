"""A wire: how units of one codec become bytes ready for one kind of transport.

Connections that share a wire get the same bytes, so a push is encoded once per wire and not once per subscriber.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, final

from broker.protocol.codec import Codec
from broker.protocol.deflate import compress_payload
from broker.protocol.websocket import binary_frame, compressed_frame, ping_frame, text_frame

__all__ = ["DeflateWire", "FrameWire", "Wire"]

_UNITS_PER_FRAME = 16
"""Centrifugo puts at most 16 messages into one frame; clients size their buffers by that."""
_BYTES_PER_FRAME = 65536


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
    """WebSocket frames: text for JSON, binary for Protobuf."""

    __slots__ = ("_binary", "_frame", "codec", "native_ping", "ping")

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._binary = codec.binary
        self._frame = binary_frame if codec.binary else text_frame
        self.ping = self.pack([codec.ping])
        self.native_ping = ping_frame(b"")

    def pack_one(self, unit: bytes) -> bytes:
        return self._frame(self.codec.join((unit,)) if self._binary else unit)

    def pack(self, units: Sequence[bytes]) -> bytes:
        if len(units) == 1:
            return self.pack_one(units[0])
        return b"".join([self._frame(self.codec.join(part)) for part in _parts(units)])


@final
class DeflateWire:
    """WebSocket frames with permessage-deflate. No context is taken over, so these bytes can be shared as well."""

    __slots__ = ("_level", "_min_size", "_plain", "codec", "native_ping", "ping")

    def __init__(self, codec: Codec, level: int, min_size: int) -> None:
        self.codec = codec
        self._level = level
        self._min_size = min_size
        self._plain = FrameWire(codec)
        self.ping = self._plain.ping
        self.native_ping = self._plain.native_ping

    def pack_one(self, unit: bytes) -> bytes:
        return self._pack_frame((unit,))

    def pack(self, units: Sequence[bytes]) -> bytes:
        return b"".join([self._pack_frame(part) for part in _parts(units)])

    def _pack_frame(self, units: Sequence[bytes]) -> bytes:
        payload = self.codec.join(units)
        if len(payload) <= self._min_size:
            return self._plain.pack(units)
        return compressed_frame(compress_payload(payload, self._level), binary=self.codec.binary)


def _parts(units: Sequence[bytes]) -> list[Sequence[bytes]]:
    """Cut `units` into frames of bounded count and, unless a single unit is larger, bounded size."""
    parts: list[Sequence[bytes]] = []
    start = size = 0
    for at, unit in enumerate(units):
        if at > start and (at - start == _UNITS_PER_FRAME or size + len(unit) > _BYTES_PER_FRAME):
            parts.append(units[start:at])
            start, size = at, 0
        size += len(unit)
    parts.append(units[start:])
    return parts
