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

__all__ = ["BROKEN", "is_json", "reread"]

T = TypeVar("T", bound=Struct)

BROKEN: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading something may raise that is not JSON, not UTF-8, or nested too deeply."""

_check: Final = msgspec.json.Decoder(Raw).decode
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_MARKS: Final = "efabc"
"""Hexadecimal digits that may stand in for the first one of lone surrogates; private characters come first."""


def is_json(data: bytes) -> bool:
    """Whether `data` is one JSON text, in UTF-8."""
    try:
        if not data.isascii():
            data.decode()
        try:
            _check(data)
        except msgspec.DecodeError:
            if _SURROGATE.search(data) is None:
                return False
            _check(_exchange(data, "d", _MARKS[0]))
    except BROKEN:
        return False
    return True


def reread(text: bytes, decode: Callable[[bytes], T]) -> T:
    """Decode what `decode` has refused once, in case only lone surrogates were in its way.

    Each of them gets another first digit, one that makes no other character of the text its double. Embedded values
    get theirs back; in names and other members a lone surrogate becomes U+FFFD, as it does in Centrifugo.

    Raises:
        DecodeError, UnicodeDecodeError, RecursionError: the text is broken indeed.
    """
    if _SURROGATE.search(text) is None:
        raise msgspec.DecodeError("not JSON")
    characters = text.decode()
    for mark in _MARKS:
        double = re.compile(rf"\\u{mark}[89a-f]|[\u{mark}800-\u{mark}fff]", re.IGNORECASE)
        if double.search(characters) is None:
            decoded: T = _restored(decode(_exchange(text, "d", mark)), mark)
            return decoded
    raise msgspec.DecodeError("lone surrogates beside doubles of every kind")


def _exchange(text: bytes, old: str, new: str) -> bytes:
    """Give escapes `\\u<old>[8-f]..` another first digit, in the same case. Surrogate pairs are left alone."""
    to = {b"u" + old.encode(): b"\\u" + new.encode(), b"u" + old.upper().encode(): b"\\u" + new.upper().encode()}
    escape = rf"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]|(u[{old}{old.upper()}])(?=[89a-fA-F])|.)".encode()
    return re.sub(escape, lambda found: to[found[1]] if found[1] else found[0], text, flags=re.DOTALL)


def _restored(value: Any, mark: str) -> Any:
    """Lone surrogates back in embedded values, U+FFFD for them in texts."""
    if isinstance(value, Raw):
        return Raw(_exchange(bytes(value), mark, "d"))
    if isinstance(value, str):
        return re.sub(rf"[\u{mark}800-\u{mark}fff]", "\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {_restored(name, mark): _restored(member, mark) for name, member in value.items()}
    if isinstance(value, list):
        return [_restored(member, mark) for member in value]
    if isinstance(value, Struct):
        for name in value.__struct_fields__:
            setattr(value, name, _restored(getattr(value, name), mark))
    return value
