from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.channels import compile_re2


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("^[a-z]+$", ["abc"], ["abc\n", "ABC", ""]),
        (r"^\d+$", ["12"], ["١٢", "1\n"]),
        (r"^\w+$", ["a_1"], ["é"]),
        (r"^a\z", ["a"], ["a\n"]),
        ("(?m)^a$", ["a", "b\na", "a\nb"], ["ab"]),
        ("(?is)^a.b$", ["A\nB"], ["A\nBc"]),
        ("^(?i:a)b$", ["Ab", "ab"], ["AB"]),
        ("^(?:a|b)+$", ["abba"], ["abc"]),
        ("^(?P<x>a)(?<y>b)$", ["ab"], ["a"]),
        (r"^\Qa.b\E+$", ["a.b", "a.bb"], ["axb"]),
        (r"\Q$x", ["$x"], ["x"]),
        (r"^[\Qa-c\E]$", ["a", "-", "c"], ["b"]),
        (r"^\x41\x{1F600}$", ["A😀"], ["A"]),
        (r"^[\x{41}-\x43]$", ["A", "B"], ["D"]),
        (r"^\101\0$", ["A\0"], ["A"]),
        (r"^[\060-\062]$", ["0", "2"], ["3"]),
        ("^[[:alpha:]_]+$", ["ab_"], ["a1", "é"]),
        ("^[^[:digit:]x]$", ["a"], ["1", "x"]),
        ("^[[:punct:]]+$", ["!]^[`{}~"], ["a", " "]),
        (r"^[]a]+$", ["]a"], ["b"]),
        (r"^[^]a]$", ["b", "["], ["]", "a"]),
        ("^[a[]$", ["[", "a"], ["]"]),
        ("^[$^.*+?(){}|]+$", ["$^.*+?(){}|"], ["a"]),
        ("^[a&&b~~c||d+--]+$", ["&|~-a,"], ["e"]),
        (r"^\$a\^$", ["$a^"], ["a"]),
        ("b", ["abc"], ["ac"]),
        (r"^a{2}?$", ["aa"], ["a"]),
        ("^a{$", ["a{"], ["a"]),
        (r"^\.\-\/$", [".-/"], ["a"]),
    ],
)
def test_means_what_it_means_in_go(pattern: str, yes: list[str], no: list[str]) -> None:
    compiled = compile_re2(pattern)
    assert [text for text in yes if not compiled.search(text)] == []
    assert [text for text in no if compiled.search(text)] == []


@pytest.mark.parametrize(
    "pattern",
    [
        r"\pL",
        r"\p{Greek}",
        r"[\pL]",
        r"\C",
        r"\Z",
        r"\u0041",
        r"\1",
        r"(a)\1",
        r"\8",
        r"\x{110000}",
        "(?=a)",
        "(?!a)",
        "(?<=a)b",
        "(?<!a)b",
        "(?P=x)",
        "(?P>x)",
        "(?>a)",
        "(?#note)",
        "(?U)a+",
        "a(?i)b",
        "(?i-s)a",
        "(?m:^a$)",
        "a++",
        "a*+",
        "a?+",
        "a{1}+",
        "a**",
        "*",
        "(",
        "a)",
        "[a",
        "[z-a]",
        "[[:nope:]]",
        "[[:^alpha:]]",
        "(?P<1x>a)",
        "(?P<x>a)(?P<x>b)",
        "a{99999999999999999999}",
        "\\",
    ],
)
def test_refuses_what_would_mean_something_else(pattern: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        compile_re2(pattern)


@given(st.text(alphabet=r"ab$^.*+?()[]{}|\-:=!<>PiQEpdwx0123 é", max_size=20))
def test_any_text_compiles_or_is_refused(pattern: str) -> None:
    with contextlib.suppress(ValueError):
        compile_re2(pattern).search("ab")


@given(st.text(max_size=30))
def test_quoted_text_matches_itself(text: str) -> None:
    if r"\E" in text:
        return
    assert compile_re2(rf"^\Q{text}\E$").search(text)
