from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.auth import TokenInvalid
from broker.auth.endpoint import Endpoint

URL = "https://keys.example/{{tenant}}/jwks"


def test_without_placeholders_an_address_is_itself() -> None:
    assert Endpoint("http://keys.example:8080/a/?b=c", ["(?P<x>.*)"]).resolve({"x": "../"}) == (
        "http://keys.example:8080/a/?b=c"
    )


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("^https://id/(?P<tenant>one|two)$", {"one", "two"}),
        ("(?<tenant>one)", {"one"}),
        ("(?P<tenant>a(b|c)d|e)", {"abd", "acd", "e"}),
        ("(?P<tenant>(?:a|b)(?P<other>c|d))", {"ac", "ad", "bc", "bd"}),
        ("(?P<tenant>(?<other>c|d)e)", {"ce", "de"}),
        (r"(?P<tenant>a\.b|a\-b|\(\))", {"a.b", "a-b", "()"}),
        ("(?P<tenant>a|)", {"a"}),  # an empty segment is no address
        ("(?P<tenant>a|b)?", {"a", "b"}),
        (r"[(?P<tenant>.*)]\(?P<tenant>x(?P<tenant>a|b)", {"a", "b"}),
    ],
)
def test_takes_texts_that_are_known_at_start(pattern: str, texts: set[str]) -> None:
    endpoint = Endpoint(URL, [pattern, "(?P<unused>.*)"])
    for text in texts:
        assert endpoint.resolve({"tenant": text, "unused": "x"}) == f"https://keys.example/{text}/jwks"
    for text in ("", "x", "one/../two", "ONE", "one|two", "e\n"):
        with pytest.raises(TokenInvalid):
            endpoint.resolve({"tenant": text})
    with pytest.raises(TokenInvalid):
        endpoint.resolve({})


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "(?P<other>a)",
        "(tenant)",
        "(?P<tenant>.)",
        "(?P<tenant>.*)",
        "(?P<tenant>a+)",
        "(?P<tenant>a?)",
        "(?P<tenant>a{2})",
        "(?P<tenant>(a)*)",
        "(?P<tenant>a|[bc])",
        r"(?P<tenant>\w)",
        r"(?P<tenant>\d|a)",
        r"(?P<tenant>\Qa\E)",
        r"(?P<tenant>\x41)",
        r"(?P<tenant>\pL)",
        "(?P<tenant>^a)",
        "(?P<tenant>a$)",
        "(?P<tenant>(?i)a)",
        "(?P<tenant>(?i:a))",
        "(?P<tenant>" + "(a|b)" * 20 + ")",
    ],
)
def test_refuses_groups_that_could_be_anything(pattern: str) -> None:
    with pytest.raises(ValueError, match="tenant"):
        Endpoint(URL, [pattern])


def test_every_placeholder_counts() -> None:
    url = "https://{{region}}.example/{{tenant}}"
    with pytest.raises(ValueError, match="region"):
        Endpoint(url, ["(?P<tenant>a)"])
    endpoint = Endpoint(url, ["(?P<tenant>a|b)", "(?P<region>eu|us)"])
    assert endpoint.resolve({"tenant": "b", "region": "eu"}) == "https://eu.example/b"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "keys.example/jwks",
        "ftp://keys.example/",
        "file:///etc/passwd",
        "https:///jwks",
        "https://user@keys.example/",
        "https://keys.example/a b",
        "https://keys.example/a\nb",
        "https://keys.example\\@evil/",
        "https://kéys.example/",
        "https://keys.example/../jwks",
        "https://keys.example/a/./b",
        "https://keys.example/%2e%2e/jwks",
        "https://keys.example//jwks",
    ],
)
def test_refuses_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Endpoint(url, [])


@pytest.mark.parametrize("text", ["a/../../b", "..", "%2e%2e", "a b", "a\nb", "é", "a\\b", "", "@evil/"])
def test_without_the_check_a_text_still_cannot_climb(text: str) -> None:
    endpoint = Endpoint("https://keys.example/{{tenant}}/jwks", ["(?P<tenant>.*)"], check=False)
    assert endpoint.resolve({"tenant": "anything"}) == "https://keys.example/anything/jwks"
    if text == "@evil/":
        endpoint = Endpoint("https://keys.example{{tenant}}jwks", ["(?P<tenant>.*)"], check=False)
    with pytest.raises(TokenInvalid):
        endpoint.resolve({"tenant": text})


def test_without_the_check_an_unfilled_placeholder_is_no_address() -> None:
    with pytest.raises(TokenInvalid):
        Endpoint(URL, [], check=False).resolve({})


@given(st.lists(st.text(alphabet="abc.-/_~", min_size=1, max_size=6), min_size=1, max_size=4), st.text(max_size=6))
def test_only_listed_texts_ever_stand_in_an_address(texts: list[str], text: str) -> None:
    pattern = "(?P<tenant>" + "|".join(map(re.escape, texts)) + ")"
    endpoint = Endpoint(URL, [pattern])
    try:
        resolved = endpoint.resolve({"tenant": text})
    except TokenInvalid:
        return
    assert text in texts
    assert resolved == URL.replace("{{tenant}}", text)
