"""Fossil deltas: a payload as a patch to the one before it. Facts: client protocol §6.4; https://fossil-scm.org.

A patch is text: the target's length, then `<count>@<offset>,` to copy from the source and `<count>:` with that many
bytes to insert, then the target's checksum.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["PatchError", "apply", "create", "create_text"]

_DIGITS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
_VALUES: Final = {digit: value for value, digit in enumerate(_DIGITS)}
_BLOCK: Final = 16
"""Bytes that must be equal before a copy is looked for: a copy costs about ten bytes itself."""


class PatchError(ValueError):
    """The patch is malformed, or not for this source."""


def create(source: bytes, target: bytes) -> bytes:
    """The patch that makes `target` of `source`."""
    return _encode(target, _segments(source, target))


def create_text(source: bytes, target: bytes) -> bytes | None:
    """The same for JSON clients, who get the patch as a string: cut between characters, so that it is UTF-8.

    Returns None where `target` is not UTF-8.
    """
    if not target.isascii():
        try:
            target.decode()
        except UnicodeDecodeError:
            return None
    return _encode(target, _between_characters(source, target, _segments(source, target)))


Segment = tuple[int, int, int]
"""`(source offset or -1, target start, target end)`: a copy, or for -1 an insert."""


def _segments(source: bytes, target: bytes) -> list[Segment]:
    """Cut `target` into copies and inserts, greedily from the left."""
    size = len(target)
    if len(source) < _BLOCK or size < _BLOCK:
        return [(-1, 0, size)] if size else []
    places: dict[bytes, int] = {}
    for at in range(0, len(source) - _BLOCK + 1, _BLOCK):
        places.setdefault(source[at : at + _BLOCK], at)
    segments: list[Segment] = []
    done = at = 0
    # most payloads begin as the one before did
    head = _common(source, 0, target, 0)
    if head >= _BLOCK:
        segments.append((0, 0, head))
        done = at = head
    last = size - _BLOCK
    while at <= last:
        place = places.get(target[at : at + _BLOCK])
        if place is None:
            at += 1
            continue
        begin = at
        while begin > done and place > 0 and source[place - 1] == target[begin - 1]:
            begin -= 1
            place -= 1
        end = begin + _common(source, place, target, begin)
        if begin > done:
            segments.append((-1, done, begin))
        segments.append((place, begin, end))
        done = at = end
    if done < size:
        tail = _common_end(source, target, done)
        if tail >= _BLOCK // 2:
            if size - tail > done:
                segments.append((-1, done, size - tail))
            segments.append((len(source) - tail, size - tail, size))
        else:
            segments.append((-1, done, size))
    return segments


def _common(source: bytes, at: int, target: bytes, to: int) -> int:
    """How many bytes are equal from there on: doubling steps, so that slices do the comparing."""
    most = min(len(source) - at, len(target) - to)
    same, step = 0, 64
    while same < most:
        step = min(step, most - same)
        if source[at + same : at + same + step] == target[to + same : to + same + step]:
            same += step
            step *= 2
        elif step == 1:
            break
        else:
            step //= 2
    return same


def _common_end(source: bytes, target: bytes, after: int) -> int:
    most = min(len(source), len(target) - after)
    same = 0
    while same < most and source[-same - 1] == target[-same - 1]:
        same += 1
    return same


def _between_characters(source: bytes, target: bytes, segments: list[Segment]) -> list[Segment]:
    """Move the borders of copies inwards until no character is cut."""
    if target.isascii():
        return segments
    out: list[Segment] = []
    done = 0
    for place, begin, end in segments:
        if place < 0:
            continue
        while begin < end and target[begin] & 0xC0 == 0x80:
            begin += 1
            place += 1
        while end > begin and end < len(target) and target[end] & 0xC0 == 0x80:
            end -= 1
        if begin == end:
            continue
        if begin > done:
            out.append((-1, done, begin))
        out.append((place, begin, end))
        done = end
    if done < len(target):
        out.append((-1, done, len(target)))
    return out


def _encode(target: bytes, segments: list[Segment]) -> bytes:
    parts = [_digits(len(target)), b"\n"]
    for place, begin, end in segments:
        if place < 0:
            parts += (_digits(end - begin), b":", target[begin:end])
        else:
            parts += (_digits(end - begin), b"@", _digits(place), b",")
    parts += (_digits(_checksum(target)), b";")
    return b"".join(parts)


def _digits(value: int) -> bytes:
    if not value:
        return b"0"
    out = bytearray()
    while value:
        out.append(_DIGITS[value & 63])
        value >>= 6
    out.reverse()
    return bytes(out)


def _checksum(data: bytes) -> int:
    padded = data + bytes(-len(data) % 4)
    words: tuple[int, ...] = struct.unpack(f">{len(padded) // 4}I", padded)
    return sum(words) & 0xFFFFFFFF


def apply(source: bytes, patch: bytes) -> bytes:
    """Make the target again.

    Raises:
        PatchError: the patch is malformed, cut short, or for another source.
    """
    size, at = _read_digits(patch, 0)
    if patch[at : at + 1] != b"\n":
        raise PatchError("no line end behind the length")
    at += 1
    out = bytearray()
    while True:
        count, at = _read_digits(patch, at)
        mark = patch[at : at + 1]
        at += 1
        if mark == b"@":
            place, at = _read_digits(patch, at)
            if patch[at : at + 1] != b"," or place + count > len(source):
                raise PatchError("a copy from beyond the source")
            at += 1
            out += source[place : place + count]
        elif mark == b":":
            if at + count > len(patch):
                raise PatchError("an insert beyond the patch")
            out += patch[at : at + count]
            at += count
        elif mark == b";":
            if len(out) != size or count != _checksum(bytes(out)):
                raise PatchError("not the target that was promised")
            return bytes(out)
        else:
            raise PatchError("unknown or missing command")
        if len(out) > size:
            raise PatchError("longer than promised")


def _read_digits(patch: bytes, at: int) -> tuple[int, int]:
    value, start = 0, at
    while at < len(patch) and (digit := _VALUES.get(patch[at])) is not None:
        value = value << 6 | digit
        at += 1
    if at == start or at - start > 10:
        raise PatchError("not a number")
    return value, at
