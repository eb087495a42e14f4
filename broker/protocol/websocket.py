"""WebSocket frames (RFC 6455), the server's side: bytes in, messages out, and frames ready to send.

Facts: client protocol §1.4, §1.6; https://centrifugal.dev/docs/transports/websocket.
"""

from __future__ import annotations

import codecs
from typing import Final, final

import attrs

from broker.protocol.deflate import CorruptMessage, Inflater, MessageTooBig

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without its wheels: 30 times slower, and the same bytes
    from websockets.utils import apply_mask

__all__ = [
    "Close",
    "FrameReader",
    "Message",
    "Ping",
    "Pong",
    "WebSocketError",
    "binary_frame",
    "close_frame",
    "compressed_frame",
    "ping_frame",
    "pong_frame",
    "text_frame",
]

PROTOCOL_ERROR: Final = 1002
NO_STATUS: Final = 1005
"""Never on the wire: a close frame had no code."""
INVALID_TEXT: Final = 1007
TOO_BIG: Final = 1009

_MOST_FRAGMENTS: Final = 1024
"""Per message. Empty fragments cost the sender six bytes each, and us an object."""
_MOST_CONTROL: Final = 125
_MOST_REASON: Final = _MOST_CONTROL - 2

_CLOSE_CODES: Final = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))
"""What a peer may send below 3000: RFC 6455 §7.4.1 and the IANA registry."""

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_FIN, _RSV1, _RSV23, _CONTROL, _MASKED = 0x80, 0x40, 0x30, 0x08, 0x80
_WHOLE_TEXT: Final = _FIN | _TEXT
_WHOLE: Final = (_WHOLE_TEXT, _FIN | _BINARY)

_Utf8Decoder: Final = codecs.getincrementaldecoder("utf-8")


# ---- out -------------------------------------------------------------------------------------------------------------


def text_frame(payload: bytes) -> bytes:
    """One unmasked text frame."""
    size = len(payload)
    return _TEXT_HEADS[size] + payload if size < _SMALL else _head(_FIN | _TEXT, size) + payload


def binary_frame(payload: bytes) -> bytes:
    """One unmasked binary frame."""
    size = len(payload)
    return _BINARY_HEADS[size] + payload if size < _SMALL else _head(_FIN | _BINARY, size) + payload


def compressed_frame(compressed: bytes, *, binary: bool) -> bytes:
    """One unmasked frame with a payload of `deflate.compress_payload`."""
    return _frame(_FIN | _RSV1 | (_BINARY if binary else _TEXT), compressed)


def ping_frame(payload: bytes) -> bytes:
    """At most 125 bytes of payload."""
    return _frame(_FIN | _PING, payload)


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping is its payload."""
    return _frame(_FIN | _PONG, payload)


def close_frame(code: int, reason: str) -> bytes:
    """A reason that is too long is cut between two characters to 123 bytes. `NO_STATUS` gives an empty frame."""
    if code == NO_STATUS:
        return _frame(_FIN | _CLOSE, b"")
    text = reason.encode(errors="replace")
    if len(text) > _MOST_REASON:
        text = text[:_MOST_REASON].decode(errors="ignore").encode()
    return _frame(_FIN | _CLOSE, code.to_bytes(2, "big") + text)


def _frame(first: int, payload: bytes) -> bytes:
    return _head(first, len(payload)) + payload


def _head(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


_SMALL: Final = 1024
"""Below, the heads of frames stand ready."""
_TEXT_HEADS: Final = [_head(_FIN | _TEXT, size) for size in range(_SMALL)]
_BINARY_HEADS: Final = [_head(_FIN | _BINARY, size) for size in range(_SMALL)]


# ---- in --------------------------------------------------------------------------------------------------------------


@final
@attrs.frozen
class Ping:
    """Wants `pong_frame(payload)` back."""

    payload: bytes


@final
@attrs.frozen
class Pong:
    """Answers a ping of ours, or comes unasked."""

    payload: bytes


@final
@attrs.frozen
class Close:
    """The peer's last frame. `code` is `NO_STATUS` (1005) if it gave none."""

    code: int
    reason: str


Message = bytes | Ping | Pong | Close
"""What a peer sends. The payload of a text or binary message is plain bytes: both mean the same here."""


class WebSocketError(Exception):
    """The peer broke the rules: send a close frame with `code` and `reason`, read no more."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


@final
class _Fragments:
    """A message of which not every fragment has come."""

    __slots__ = ("compressed", "decoder", "parts", "size", "text")

    def __init__(self, *, text: bool, compressed: bool) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.text = text
        self.compressed = compressed
        # Plain text is checked fragment by fragment, compressed text when it is whole.
        self.decoder = _Utf8Decoder() if text and not compressed else None


@final
class FrameReader:
    """Frames of one client into messages. Text is checked to be UTF-8, so that a message that one client publishes
    cannot end the connections of those who get it (browsers close with 1007).

    Push bytes with `feed`, pull with `next_message` until it gives None; a caller may leave off in between and go on
    later. While nothing waits it keeps no buffer. After a close frame or an error, whatever else comes is ignored.

    Args:
        max_message: bytes on the wire of one message, the sum of its fragments.
        inflater: if permessage-deflate was agreed.
    """

    __slots__ = ("_at", "_fragments", "_inflater", "_max", "closed", "waiting")

    def __init__(self, max_message: int, inflater: Inflater | None = None) -> None:
        # From _at on, what has not been read: the bytes that were fed, or a bytearray as soon as they have to grow.
        self.waiting: bytes | bytearray = b""
        """Empty if there is nothing to pull."""
        self._at = 0
        self._max = max_message
        self._inflater = inflater
        self._fragments: _Fragments | None = None
        self.closed = False
        """A close frame or an error has come: there are no more messages."""

    def feed(self, data: bytes) -> None:
        """Bytes came."""
        if not self.waiting:
            self.waiting = data
            return
        if self._at or isinstance(self.waiting, bytes):
            self.waiting = bytearray(memoryview(self.waiting)[self._at :])
            self._at = 0
        self.waiting += data

    def next_message(self) -> Message | None:
        """The next whole message, or None until more bytes come.

        Raises:
            WebSocketError: 1002 for frames that are not allowed, 1007 for text that is not UTF-8, 1009 for a message
                above the limit, known from its header.
        """
        buffer = self.waiting
        if not buffer:
            return None
        at = self._at
        # What nearly all clients nearly always send: a message in one frame below 64 KiB. The rest takes longer.
        length = len(buffer)
        if (
            length - at >= 8
            and (first := buffer[at]) in _WHOLE
            and _MASKED <= (second := buffer[at + 1]) < _MASKED | 127
            and self._fragments is None
            and not self.closed
        ):
            size = second - _MASKED
            start = at + 6
            if size == 126:
                size = buffer[at + 2] << 8 | buffer[at + 3]
                start = at + 8
            end = start + size
            if size <= self._max and end <= length:
                payload = apply_mask(buffer[start:end], buffer[start - 4 : start])
                if end == length:
                    self.waiting = b""
                    self._at = 0
                else:
                    self._at = end
                if first == _WHOLE_TEXT and not payload.isascii():
                    self._check_text(payload)
                return payload
        return self._any_message()

    def _any_message(self) -> Message | None:
        if self.closed:
            self._drop()
            return None
        try:
            while True:
                frame = self._next_frame()
                if frame is None:
                    return None
                message = self._control(*frame) if frame[0] & _CONTROL else self._data(*frame)
                if message is not None:
                    return message
        except WebSocketError:
            self._end()
            raise

    def _next_frame(self) -> tuple[int, bytes] | None:
        """The first byte of the next frame and its payload, as soon as all of it is there."""
        buffer, at = self.waiting, self._at
        waiting = len(buffer) - at
        if waiting < 2:
            return None
        first, second = buffer[at], buffer[at + 1]
        size = second & 0x7F
        self._check_first(first, second)
        head = 6
        if size == 126:
            head = 8
            if waiting < 4:
                return None
            size = int.from_bytes(buffer[at + 2 : at + 4], "big")
        elif size == 127:
            head = 14
            if waiting < 10:
                return None
            size = int.from_bytes(buffer[at + 2 : at + 10], "big")
        if not first & _CONTROL:
            before = 0 if self._fragments is None else self._fragments.size
            if before + size > self._max:
                raise WebSocketError(TOO_BIG, "")
        end = at + head + size
        if end > len(buffer):
            return None
        payload = apply_mask(buffer[at + head : end], buffer[at + head - 4 : at + head]) if size else b""
        if end == len(buffer):
            self._drop()
        else:
            self._at = end
        return first, payload

    def _check_first(self, first: int, second: int) -> None:
        """All that the first two bytes of a frame can have wrong."""
        opcode = first & 0x0F
        if not second & _MASKED:
            raise WebSocketError(PROTOCOL_ERROR, "frame is not masked")
        if first & _RSV23 or (first & _RSV1 and (self._inflater is None or opcode not in (_TEXT, _BINARY))):
            raise WebSocketError(PROTOCOL_ERROR, "reserved bits are set")
        if opcode in (_CLOSE, _PING, _PONG):
            if not first & _FIN:
                raise WebSocketError(PROTOCOL_ERROR, "control frame is fragmented")
            if second & 0x7F > _MOST_CONTROL:
                raise WebSocketError(PROTOCOL_ERROR, "control frame is too long")
        elif opcode in (_TEXT, _BINARY):
            if self._fragments is not None:
                raise WebSocketError(PROTOCOL_ERROR, "message begins within a message")
        elif opcode == _CONTINUATION:
            if self._fragments is None:
                raise WebSocketError(PROTOCOL_ERROR, "continuation of nothing")
        else:
            raise WebSocketError(PROTOCOL_ERROR, "unknown opcode")

    def _data(self, first: int, payload: bytes) -> bytes | None:
        """A data frame: the message, if this completes it."""
        last = bool(first & _FIN)
        fragments = self._fragments
        if fragments is None:
            text, compressed = first & 0x0F == _TEXT, bool(first & _RSV1)
            if last:
                return self._whole(payload, text=text, compressed=compressed)
            fragments = self._fragments = _Fragments(text=text, compressed=compressed)
        fragments.parts.append(payload)
        fragments.size += len(payload)
        if len(fragments.parts) > _MOST_FRAGMENTS:
            raise WebSocketError(TOO_BIG, "too many fragments")
        if fragments.decoder is not None:
            try:
                fragments.decoder.decode(payload, last)
            except UnicodeDecodeError:
                raise WebSocketError(INVALID_TEXT, "text is not UTF-8") from None
        if not last:
            return None
        self._fragments = None
        text = fragments.text and fragments.compressed
        return self._whole(b"".join(fragments.parts), text=text, compressed=fragments.compressed)

    def _whole(self, message: bytes, *, text: bool, compressed: bool) -> bytes:
        """Inflate what is compressed, check what is text."""
        if compressed:
            assert self._inflater is not None
            try:
                message = self._inflater.inflate(message)
            except MessageTooBig:
                raise WebSocketError(TOO_BIG, "decompressed message is too big") from None
            except CorruptMessage:
                raise WebSocketError(PROTOCOL_ERROR, "compressed message is corrupt") from None
        if text:
            self._check_text(message)
        return message

    def _check_text(self, text: bytes) -> None:
        if text.isascii():
            return
        try:
            text.decode()
        except UnicodeDecodeError:
            self._end()
            raise WebSocketError(INVALID_TEXT, "text is not UTF-8") from None

    def _control(self, first: int, payload: bytes) -> Ping | Pong | Close:
        opcode = first & 0x0F
        if opcode == _PING:
            return Ping(payload)
        if opcode == _PONG:
            return Pong(payload)
        close = _read_close(payload)
        self._end()
        return close

    def _end(self) -> None:
        self.closed = True
        self._fragments = None
        self._drop()

    def _drop(self) -> None:
        self.waiting = b""
        self._at = 0


def _read_close(payload: bytes) -> Close:
    if not payload:
        return Close(NO_STATUS, "")
    if len(payload) == 1:
        raise WebSocketError(PROTOCOL_ERROR, "close code is cut short")
    code = int.from_bytes(payload[:2], "big")
    if not (3000 <= code <= 4999 or code in _CLOSE_CODES):
        raise WebSocketError(PROTOCOL_ERROR, "close code is not allowed")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise WebSocketError(INVALID_TEXT, "close reason is not UTF-8") from None
