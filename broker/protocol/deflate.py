"""permessage-deflate (RFC 7692) without context takeover, on zlib.

Both sides always agree to forget the context after each message. So nothing is kept per connection, one `Inflater`
serves them all, and a compressed frame can be shared by every subscriber. The extension class of `websockets` is
made per connection and for its own frame objects; what is left of it here is a few calls of zlib.
"""

from __future__ import annotations

import re
import zlib
from typing import Final, final

__all__ = ["DEFLATE_ANSWER", "CorruptMessage", "Inflater", "MessageTooBig", "accepts_deflate", "compress_payload"]

DEFLATE_ANSWER: Final = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
"""The only `Sec-WebSocket-Extensions` that we ever answer. Client protocol §1.4."""

_END: Final = b"\x00\x00\xff\xff"
"""What the sender cut off its last block (RFC 7692 §7.2.1)."""
_LAST_BLOCK: Final = _END + b"\x01\x00\x00\xff\xff"
"""The same and a final empty block: a stream that does not reach it was cut short."""
_AFTER_FINAL: Final = (_LAST_BLOCK, b"\x00" + _LAST_BLOCK)
"""What may follow a final block of the sender's own (RFC 7692 §7.2.3.4)."""

_WINDOW: Final = re.compile(rb'"?(?:8|9|1[0-5])"?')


class MessageTooBig(Exception):
    """A message inflates to more than the limit."""


class CorruptMessage(Exception):
    """A message is not what a deflate stream looks like."""


@final
class Inflater:
    """Inflates whole messages up to `limit` bytes. Holds no state."""

    __slots__ = ("_limit",)

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def inflate(self, data: bytes) -> bytes:
        """The message that was compressed to `data`.

        Raises:
            MessageTooBig: there is more than the limit; only one byte above it was inflated.
            CorruptMessage: the stream is invalid, cut short, or followed by something else.
        """
        stream = zlib.decompressobj(-15)
        try:
            message = stream.decompress(data + _LAST_BLOCK, self._limit + 1)
        except zlib.error as error:
            raise CorruptMessage(str(error)) from None
        if len(message) > self._limit:
            raise MessageTooBig(f"more than {self._limit} bytes")
        if not stream.eof or (stream.unused_data and stream.unused_data not in _AFTER_FINAL):
            raise CorruptMessage("the stream does not end with the message")
        return message


def compress_payload(payload: bytes, level: int) -> bytes:
    """`payload` compressed by itself, for a frame with the first reserved bit set.

    Args:
        level: 0 to 9, -1 for zlib's default; -2 for Huffman codes only, as in Go's `compress/flate`.
    """
    if level == -2:
        stream = zlib.compressobj(1, zlib.DEFLATED, -15, 8, zlib.Z_HUFFMAN_ONLY)
    else:
        stream = zlib.compressobj(level, zlib.DEFLATED, -15)
    return stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)[: -len(_END)]


def accepts_deflate(offers: bytes) -> bool:
    """Whether one of the offers in a `Sec-WebSocket-Extensions` header is answered by `DEFLATE_ANSWER`.

    An offer with an unknown, repeated or malformed parameter is passed over. So is one that wants a smaller window
    from the server: agreeing would mean compressing for that client alone.
    """
    return any(_acceptable(offer) for offer in offers.split(b","))


def _acceptable(offer: bytes) -> bool:
    extension, *parameters = [part.strip(b" \t") for part in offer.split(b";")]
    if extension.lower() != b"permessage-deflate":
        return False
    seen = set()
    for parameter in parameters:
        name, equals, value = parameter.partition(b"=")
        name, value = name.rstrip(b" \t"), value.lstrip(b" \t")
        if name in seen:
            return False
        seen.add(name)
        if name in (b"server_no_context_takeover", b"client_no_context_takeover"):
            if equals:
                return False
        elif name == b"client_max_window_bits":
            if equals and not _WINDOW.fullmatch(value):
                return False
        else:
            return False
    return True
