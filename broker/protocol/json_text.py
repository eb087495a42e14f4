r"""JSON texts as bytes: whether a payload is one, and a second chance for texts with lone surrogates.

msgspec reads strictly, with two exceptions that are made good here. It does not look into the strings of what it
skips, so that bytes which are no UTF-8 would get through to clients that cannot read them. And it refuses escapes of
lone surrogates (`"\ud800"`), which `JSON.stringify` of browsers writes and Centrifugo takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import force_setattr

__all__ = ["BrokenJson", "is_json", "read_json"]

T = TypeVar("T")


class BrokenJson(Exception):
    """Not one JSON text in UTF-8, or nested too deeply, or not of the shape that was asked for."""


_BROKEN: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_check: Final = msgspec.json.Decoder(Raw).decode
_SURROGATE: Final = re.compile(
    rb"\\(?<!\\\\)((?:\\\\)*+)u"
    rb"([dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|([dD][89a-fA-F][0-9a-fA-F]{2}))"
)
"""An odd number of backslashes, and a surrogate pair, or a lone surrogate with its digits in the third group."""
_MARKS: Final = [chr(code).encode() for code in range(0x80, 0xA0)]
"""Control characters that nobody writes, as long as the `\\u` for which they stand in."""


def is_json(data: bytes) -> bool:
    """Whether `data` is one JSON text, in UTF-8."""
    try:
        if not data.isascii():
            data.decode()
        try:
            _check(data)
        except msgspec.DecodeError:
            marked = _marked(data, _MARKS[0])
            if marked is data:
                return False
            _check(marked)
    except _BROKEN:
        return False
    return True


def read_json(text: bytes, decode: Callable[[bytes], T], respell: Callable[[bytes], bytes] | None = None) -> T:
    """What `decode`, of a msgspec decoder, makes of a text; or of what `respell` makes of it, where that is needed.

    Lone surrogates are let through: embedded values keep theirs, byte for byte; in names and other members they become
    U+FFFD, as they do in Centrifugo.

    Raises:
        BrokenJson: it cannot be read.
    """
    try:
        decoded = decode(text)
        if not text.isascii():
            text.decode()
        return decoded
    except _BROKEN:
        try:
            return _reread(text, decode, respell)
        except _BROKEN as error:
            raise BrokenJson(str(error)) from None


def _reread(text: bytes, decode: Callable[[bytes], T], respell: Callable[[bytes], bytes] | None) -> T:
    """A second chance, in case only lone surrogates were in the way, or the spelling of keys."""
    text.decode()
    mark = next((mark for mark in _MARKS if mark not in text), b"")
    marked = _marked(text, mark) if mark else text
    spelled = respell(marked) if respell is not None else marked
    decoded = decode(spelled)
    return decoded if marked is text else _restored(decoded, mark)


def _marked(text: bytes, mark: bytes) -> bytes:
    """`text` with `mark` in place of the `\\u` of lone surrogates; the same object if there are none."""

    def exchange(found: re.Match[bytes]) -> bytes:
        lone = found[3]
        return found[0] if lone is None else found[1] + mark + lone

    marked = _SURROGATE.sub(exchange, text)
    return text if marked == text else marked


def _restored(value: Any, mark: bytes) -> Any:
    """Lone surrogates back in embedded values, U+FFFD for them in texts."""
    if isinstance(value, Raw):
        return Raw(bytes(value).replace(mark, b"\\u"))
    if isinstance(value, str):
        return re.sub(rf"{mark.decode()}.{{4}}", "\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {_restored(name, mark): _restored(member, mark) for name, member in value.items()}
    if isinstance(value, list):
        return [_restored(member, mark) for member in value]
    if isinstance(value, Struct):
        for name in value.__struct_fields__:
            force_setattr(value, name, _restored(getattr(value, name), mark))
    return value
