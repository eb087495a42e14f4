"""Values of a configuration, loosely typed: a number may be written as text, and the other way round (server API §1.3).

Every reader takes what a file or a variable holds, and gives the typed value or raises `ValueError` with a sentence
that can be shown: it says what was expected and what came, but never the text of a secret.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from broker.durations import NANOSECONDS, parse_duration
from broker.values import Duration, Pem

__all__ = [
    "Raw",
    "load_pem",
    "quoted",
    "read_bool",
    "read_duration",
    "read_int",
    "read_list",
    "read_map",
    "read_text",
    "shape",
]

Raw = object
"""What JSON, YAML, TOML and environment variables give: texts, numbers, booleans, lists, mappings, nothing."""

_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False", ""})
_INT: Final = re.compile(r"([+-]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_INT64: Final = range(-(1 << 63), 1 << 63)
_MAX_DIGITS: Final = 64
_PEM: Final = re.compile(r"-----BEGIN ([^-\n]+)-----\r?\n.+?-----END \1-----", re.DOTALL)


def read_text(raw: Raw) -> str:
    """A text, or a number or boolean as text."""
    match raw:
        case str():
            return raw
        case bool():
            return "1" if raw else "0"
        case int():
            return str(raw)
        case float():
            return str(int(raw)) if raw.is_integer() else repr(raw)
        case _:
            raise ValueError(f"not a text: {shape(raw)}")


def read_bool(raw: Raw) -> bool:
    """A boolean, its text as Go's `ParseBool` takes it, or a number that is not zero."""
    match raw:
        case bool():
            return raw
        case int() | float():
            return raw != 0
        case str() if raw in _TRUE:
            return True
        case str() if raw in _FALSE:
            return False
        case _:
            raise ValueError(f"not a boolean: {quoted(raw)}")


def read_int(raw: Raw) -> int:
    """A whole number of 64 bits, or its text: decimal, `0x`, `0o` or `0`, `0b`."""
    match raw:
        case int():  # booleans, too
            number = int(raw)
        case float() if raw.is_integer():
            number = int(raw)
        case "":
            number = 0
        case str() if len(raw) <= _MAX_DIGITS and (parts := _INT.fullmatch(raw)):
            sign, hexadecimal, binary, octal, decimal = parts.groups()
            bases = ((hexadecimal, 16), (binary, 2), (octal, 8), (decimal, 10))
            number = next(int(digits, base) for digits, base in bases if digits is not None)
            number = -number if sign == "-" else number
        case _:
            raise ValueError(f"not a whole number: {quoted(raw)}")
    if number not in _INT64:
        raise ValueError(f"does not fit in 64 bits: {quoted(raw)}")
    return number


def read_duration(raw: Raw) -> Duration:
    """A Go duration, or a bare number of nanoseconds."""
    match raw:
        case bool():
            pass
        case int() | float():
            return Duration(read_int(raw) / NANOSECONDS)
        case "":
            return Duration(0.0)
        case str():
            try:
                return parse_duration(raw)
            except ValueError:
                pass
        case _:
            pass
    raise ValueError(f"not a duration: {quoted(raw)}")


def read_list(raw: Raw) -> list[Raw]:
    """A list; a single value counts as a list of one, and nothing as an empty one."""
    match raw:
        case list() | tuple():
            return list(raw)
        case None | "":
            return []
        case dict() if not raw:
            return []
        case _:
            return [raw]


def read_map(raw: Raw) -> dict[str, str]:
    """Names and values: a mapping of texts, a list of `{key, value}`, or the JSON text of either."""
    if isinstance(raw, str):
        if not raw:
            return {}
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            raise ValueError("not a JSON object") from None
    if isinstance(raw, list):
        raw = _pairs(raw)
    if not isinstance(raw, Mapping):
        raise ValueError(f"not a mapping of texts: {shape(raw)}")
    for key, value in raw.items():
        if not isinstance(value, str):
            raise ValueError(f"the value of {key!r} is not a text: {shape(value)}")
    return dict(raw)


def _pairs(items: list[Raw]) -> dict[str, Raw]:
    pairs: dict[str, Raw] = {}
    for index, item in enumerate(items):
        if not isinstance(item, Mapping) or not isinstance(item.get("key"), str) or "value" not in item:
            raise ValueError(f"item {index} is not a pair of key and value")
        if item["key"] in pairs:
            raise ValueError(f"{item['key']!r} comes twice")
        pairs[item["key"]] = item["value"]
    return pairs


def load_pem(value: Pem) -> Pem:
    """The PEM text that `value` is, encodes in base64, or names as a file.

    Raises:
        ValueError: it is none of these; the sentence holds a path at most, never key material.
    """
    if _PEM.search(value):
        return value
    try:
        decoded = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):
        decoded = ""
    if _PEM.search(decoded):
        return Pem(decoded)
    if "\n" in value or "-----" in value or len(value) > 4096:
        raise ValueError("neither PEM, nor base64 of PEM, nor a path")
    try:
        content = Path(value).read_text()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a text file"
        raise ValueError(f"neither PEM nor base64 of PEM, and as a path: {reason}") from None
    if not _PEM.search(content):
        raise ValueError(f"no PEM in the file {str(value)!r}")
    return Pem(content)


def quoted(raw: Raw) -> str:
    """What came, short enough for one line of an error. Not for secrets."""
    if not isinstance(raw, (str, int, float)):
        return shape(raw)
    text = json.dumps(raw, ensure_ascii=False) if not isinstance(raw, str) or raw.isprintable() else ascii(raw)
    return text if len(text) <= 80 else text[:77] + "…"


def shape(raw: Raw) -> str:
    """What kind of thing came, for errors that must not quote it."""
    match raw:
        case None:
            return "nothing"
        case str():
            return "a text"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case Mapping():
            return "a section"
        case list() | tuple():
            return "a list"
        case _:
            return f"a {type(raw).__name__}"
