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

__all__ = ["BROKEN", "is_json", "reread"]

T = TypeVar("T", bound=Struct)

BROKEN: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading something may raise that is not JSON, not UTF-8, or nested too deeply."""

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
    except BROKEN:
        return False
    return True


def reread(text: bytes, decode: Callable[[bytes], T]) -> T:
    """Decode what `decode` has refused once, in case only lone surrogates were in its way.

    Embedded values keep theirs, byte for byte; in names and other members a lone surrogate becomes U+FFFD, as it does
    in Centrifugo.

    Raises:
        DecodeError, UnicodeDecodeError, RecursionError: the text is broken indeed.
    """
    text.decode()
    mark = next((mark for mark in _MARKS if mark not in text), b"")
    marked = _marked(text, mark)
    if marked is text or not mark:
        raise msgspec.DecodeError("not JSON")
    decoded: T = _restored(decode(marked), mark)
    return decoded


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
