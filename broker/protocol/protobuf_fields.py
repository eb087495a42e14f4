"""Fields of Protobuf messages as bytes: varints, texts, payloads, messages. Absent is what has its zero value.

Writing by hand takes a fraction of what it takes to fill message objects. A tag is a literal: the field's number
times eight, plus 0 for a varint or 2 for what has a length. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import Final

__all__ = ["delimited", "flag", "message", "number", "raw", "read_varint", "text", "varint"]

_SHORT: Final = [bytes((n,)) if n < 128 else bytes((n & 127 | 128, n >> 7)) for n in range(1024)]
"""The varints of most lengths."""


def varint(value: int) -> bytes:
    """An unsigned number, seven bits a byte, lowest first."""
    if value < 1024:
        return _SHORT[value]
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends.

    Raises:
        IndexError: it is cut short.
        ValueError: it is longer than ten bytes.
    """
    first = data[at]
    if first < 128:
        return first, at + 1
    second = data[at + 1]
    if second < 128:
        return second << 7 | first & 127, at + 2
    value, at, shift = (second & 127) << 7 | first & 127, at + 2, 14
    while shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a varint without end")


def message(tag: bytes, body: bytes) -> bytes:
    """A message that is present, if only as an empty one."""
    return tag + varint(len(body)) + body


def raw(tag: bytes, data: bytes) -> bytes:
    """Bytes."""
    return tag + varint(len(data)) + data if data else b""


def text(tag: bytes, value: str) -> bytes:
    """A string."""
    return raw(tag, value.encode())


def number(tag: bytes, value: int) -> bytes:
    """A number that is not negative."""
    return tag + varint(value) if value else b""


def flag(tag: bytes, value: bool) -> bytes:
    """A boolean."""
    return tag + b"\x01" if value else b""


def delimited(unit: bytes) -> bytes:
    """A message behind its length, as messages follow each other in a frame (client protocol §1.1)."""
    return varint(len(unit)) + unit
