from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.channels import acceptable


@pytest.mark.parametrize(
    ("data", "formats"),
    [
        (b"", {"binary"}),
        (b"\xff\x00", {"", "binary"}),
        (b"{}", {"", "json", "json_object", "binary"}),
        (b' \n\r\t{"a": [1]} ', {"", "json", "json_object", "binary"}),
        (b"[1]", {"", "json", "binary"}),
        (b"null", {"", "json", "binary"}),
        (b'"{}"', {"", "json", "binary"}),
        (b"0.5e+3", {"", "json", "binary"}),
        (b"{", {"", "binary"}),
        (b"{}{}", {"", "binary"}),
        (b"{'a':1}", {"", "binary"}),
        (b"NaN", {"", "binary"}),
        (b"01", {"", "binary"}),
        (b'{"a":1,}', {"", "binary"}),
        (b'"\xff"', {"", "binary"}),  # JSON is UTF-8
        (b'"\x00"', {"", "binary"}),
        (b"\xef\xbb\xbf{}", {"", "binary"}),
        (b"\x0b{}", {"", "binary"}),
        (b"[" * 100_000 + b"]" * 100_000, {"", "binary"}),
    ],
)
def test_formats(data: bytes, formats: set[str]) -> None:
    assert {fmt for fmt in ("", "json", "json_object", "binary") if acceptable(data, fmt, False)} == formats


def test_what_is_known_to_be_json_is_not_read_again() -> None:
    assert acceptable(b"{", "json", True)
    assert acceptable(b" {", "json_object", True)
    assert not acceptable(b"[]", "json_object", True)
    assert not acceptable(b"", "json", True)


@given(st.binary(max_size=30))
def test_agrees_with_the_standard_library(data: bytes) -> None:
    try:
        json.loads(data.decode(), parse_constant=lambda _: 1 / 0)
        valid = True
    except (ValueError, ZeroDivisionError):
        valid = False
    assert acceptable(data, "json", False) is valid
