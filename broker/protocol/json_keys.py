"""JSON objects whose keys count in any case, as they do for programs in Go.

Readers are written for the keys as they are documented: their structs forbid all others, so that nothing is lost in
silence. What such a reader refuses is spelled as it wants it, once, and read again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Raw, inspect

__all__ = ["respelled"]

Rewrite = Callable[[Raw], Raw]
_encode: Final = msgspec.json.Encoder().encode
_read_object: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_read_list: Final = msgspec.json.Decoder(list[Raw]).decode


def respelled(kind: Any) -> Callable[[bytes], bytes]:
    """What spells an object as `kind`, a struct, wants it: keys that it knows, in its own spelling, and no others. In
    lists and maps `null` is an empty text, and no object at all. Payloads stay as they are, byte for byte.

    What it returns raises `msgspec.DecodeError` for what is no JSON, or no object where one is wanted.
    """

    def respell(text: bytes) -> bytes:
        return bytes(_rewriter_of(kind)(Raw(text)))

    return respell


@functools.cache  # most are never needed
def _rewriter_of(kind: Any) -> Rewrite:
    rewrite = _rewriter(inspect.type_info(kind))
    assert rewrite is not None, "a struct"
    return rewrite


def _rewriter(kind: inspect.Type) -> Rewrite | None:
    """None where there is nothing to rewrite."""
    if isinstance(kind, inspect.UnionType):  # one with null; texts and numbers have nothing to rewrite
        kind = next(each for each in kind.types if not isinstance(each, inspect.NoneType))
    if isinstance(kind, inspect.StructType):
        return _of_struct(kind)
    if isinstance(kind, inspect.ListType):
        return _of_list(kind.item_type)
    if isinstance(kind, inspect.DictType):
        return _of_map(kind.value_type)
    return None


def _is_null(value: Raw) -> bool:
    return bytes(value) == b"null"


def _of_struct(kind: inspect.StructType) -> Rewrite:
    below = {field.encode_name: _rewriter(field.type) for field in kind.fields}

    def rewrite(text: Raw) -> Raw:
        known: dict[str, Raw] = {}
        for key, value in _read_object(text).items():
            name = key.lower()
            if name in below:
                inner = below[name]
                known[name] = value if inner is None or _is_null(value) else inner(value)
        return Raw(_encode(known))

    return rewrite


def _item(kind: inspect.Type) -> Callable[[Raw], Raw | None]:
    """What becomes of a member of a list or map; None for one that is left out."""
    if isinstance(kind, inspect.StrType):
        return lambda value: Raw(b'""') if _is_null(value) else value
    optional = isinstance(kind, inspect.UnionType)
    inner = _rewriter(kind)
    if inner is None:
        return lambda value: value
    return lambda value: inner(value) if not _is_null(value) else value if optional else None


def _of_list(kind: inspect.Type) -> Rewrite:
    item = _item(kind)

    def rewrite(text: Raw) -> Raw:
        return Raw(_encode([new for value in _read_list(text) if (new := item(value)) is not None]))

    return rewrite


def _of_map(kind: inspect.Type) -> Rewrite:
    item = _item(kind)

    def rewrite(text: Raw) -> Raw:
        return Raw(
            _encode({name: new for name, value in _read_object(text).items() if (new := item(value)) is not None})
        )

    return rewrite
