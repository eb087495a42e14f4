"""Fossil deltas: a payload as a patch to the one before it. Facts: client protocol §6.4; https://fossil-scm.org.

A patch is text: the target's length, then `<count>@<offset>,` to copy from the source and `<count>:` with that many
bytes to insert, then the target's checksum. Making one never takes long: where payloads are large or have little in
common it looks less closely, and at the end of its `Effort` it makes none.
"""

from __future__ import annotations

import struct
from typing import Final, final

__all__ = ["Effort", "PatchError", "apply", "create", "create_text"]

_DIGITS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
_VALUES: Final = {digit: value for value, digit in enumerate(_DIGITS)}
_LONGEST_NUMBER: Final = 10
_BLOCK: Final = 16
"""Bytes that must be equal before a copy is looked for: a copy costs about ten bytes itself."""
_SHORTEST_TAIL: Final = 8
_MOST_BLOCKS: Final = 8192
"""Blocks of the source that are looked for; of a long one only every second, third…"""
_COPY_STEPS: Final = 24
_CHUNK: Final = 4096


class PatchError(ValueError):
    """The patch is malformed, or not for this source."""


@final
class Effort:
    """The work that may still go into patches before others get a turn.

    A step takes about a fifth of a microsecond: the default is 10 ms.
    """

    __slots__ = ("left",)

    def __init__(self, steps: int = 50_000) -> None:
        self.left = steps


def create(source: bytes, target: bytes, effort: Effort | None = None) -> bytes | None:
    """The patch that makes `target` of `source`; None if that needs more than the effort that is left."""
    segments = _segments(source, target, effort or Effort())
    return None if segments is None else _encode(target, segments)


def create_text(source: bytes, target: bytes, effort: Effort | None = None) -> bytes | None:
    """The same for JSON clients, who get the patch as a string: cut between characters, so that it is UTF-8.

    Returns None also where `target` is not UTF-8.
    """
    if target.isascii():
        return create(source, target, effort)
    try:
        target.decode()
    except UnicodeDecodeError:
        return None
    segments = _segments(source, target, effort or Effort())
    return None if segments is None else _encode(target, _between_characters(target, segments))


# ---- what is equal --------------------------------------------------------------------------------------------------

Segment = tuple[int, int, int]
"""`(source offset or -1, target start, target end)`: a copy, or for -1 an insert."""


def _segments(source: bytes, target: bytes, effort: Effort) -> list[Segment] | None:
    """Cut `target` into copies and inserts."""
    size = len(target)
    effort.left -= (len(source) + 2 * size) >> 6  # comparing and summing up
    if effort.left < 0:
        return None
    # most payloads begin and end as the one before did
    head = _common(source, 0, target, 0)
    if head < _BLOCK and head < size:
        head = 0
    tail = _common_back(source, len(source), target, size, size - head)
    if tail < _SHORTEST_TAIL:
        tail = 0
    segments = [(0, 0, head)] if head else []
    if size - tail - head >= 2 * _BLOCK:
        segments += _middle(source, target, head, size - tail, effort)
    elif size - tail > head:
        segments.append((-1, head, size - tail))
    if tail:
        segments.append((len(source) - tail, size - tail, size))
    return segments


def _middle(source: bytes, target: bytes, start: int, stop: int, effort: Effort) -> list[Segment]:
    """The same for a part of `target`, greedily from the left.

    The longer nothing is found, the larger the steps: what has nothing in common with the source costs little.
    """
    stride = _BLOCK * (1 + len(source) // (_BLOCK * _MOST_BLOCKS))
    places: dict[bytes, int] = {}
    for at in range(0, len(source) - _BLOCK + 1, stride):
        places.setdefault(source[at : at + _BLOCK], at)
    left = effort.left - len(source) // stride
    find = places.get
    segments: list[Segment] = []
    done = at = start
    last = stop - _BLOCK
    found_at = left
    while at <= last and left > 0:
        place = find(target[at : at + _BLOCK])
        if place is None:
            left -= 1
            at += 1 + (found_at - left >> 6)
            continue
        end = at + _common(source, place, target, at, stop - at)
        back = _common_back(source, place, target, at, at - done)
        if at - back > done:
            segments.append((-1, done, at - back))
        segments.append((place - back, at - back, end))
        done = at = end
        left -= _COPY_STEPS
        found_at = left
    if done < stop:
        segments.append((-1, done, stop))
    effort.left = left
    return segments


def _common(source: bytes, at: int, target: bytes, to: int, most: int = 1 << 62) -> int:
    """How many bytes are equal from there on."""
    most = min(len(source) - at, len(target) - to, most)
    same, step = 0, 64
    while same < most:
        step = min(step, most - same)
        ours, theirs = source[at + same : at + same + step], target[to + same : to + same + step]
        if ours != theirs:
            difference = int.from_bytes(ours, "big") ^ int.from_bytes(theirs, "big")
            return same + step - (difference.bit_length() + 7) // 8
        same += step
        step = min(2 * step, _CHUNK)
    return same


def _common_back(source: bytes, at: int, target: bytes, to: int, most: int) -> int:
    """How many bytes, at most `most`, are equal before there."""
    most = min(at, most)
    same, step = 0, 64
    while same < most:
        step = min(step, most - same)
        ours, theirs = source[at - same - step : at - same], target[to - same - step : to - same]
        if ours != theirs:
            difference = int.from_bytes(ours, "little") ^ int.from_bytes(theirs, "little")
            return same + step - (difference.bit_length() + 7) // 8
        same += step
        step = min(2 * step, _CHUNK)
    return same


def _between_characters(target: bytes, segments: list[Segment]) -> list[Segment]:
    """Move the borders of copies inwards until no character is cut."""
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


# ---- how it is written ----------------------------------------------------------------------------------------------


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
        if mark == b";":
            if len(out) != size or count != _checksum(bytes(out)):
                raise PatchError("not the target that was promised")
            return bytes(out)
        if len(out) + count > size:
            raise PatchError("longer than promised")
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
        else:
            raise PatchError("unknown or missing command")


def _read_digits(patch: bytes, at: int) -> tuple[int, int]:
    value, start = 0, at
    while (digit := _VALUES.get(patch[at]) if at < len(patch) else None) is not None:
        value = value << 6 | digit
        at += 1
        if at - start > _LONGEST_NUMBER:
            raise PatchError("a number without end")
    if at == start:
        raise PatchError("not a number")
    return value, at
