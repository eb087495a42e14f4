from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from centrifuge.filter import Filter as Sdk
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol import FilterNode, compile_filter
from broker.protocol.tagfilter import Filter

SHARE = {"ticker": "AAPL", "price": "99.50", "": "nameless"}


def filter_of(node: dict[str, Any]) -> Filter:
    return compile_filter(msgspec.convert(node, FilterNode))


@pytest.mark.parametrize(
    ("node", "matches"),
    [
        (Sdk.eq("ticker", "AAPL"), True),
        (Sdk.eq("ticker", "aapl"), False),
        (Sdk.eq("other", "AAPL"), False),
        (Sdk.neq("ticker", "GOOG"), True),
        (Sdk.neq("ticker", "AAPL"), False),
        (Sdk.neq("other", "AAPL"), True),
        (Sdk.is_in("ticker", ["GOOG", "AAPL"]), True),
        (Sdk.is_in("ticker", ["GOOG"]), False),
        (Sdk.is_in("other", [""]), True),
        (Sdk.not_in("ticker", ["GOOG"]), True),
        (Sdk.not_in("ticker", ["GOOG", "AAPL"]), False),
        (Sdk.not_in("other", [""]), False),
        (Sdk.exists("ticker"), True),
        (Sdk.exists("other"), False),
        (Sdk.exists(""), True),
        (Sdk.not_exists("ticker"), False),
        (Sdk.not_exists("other"), True),
        (Sdk.starts_with("ticker", "AA"), True),
        (Sdk.starts_with("ticker", "PL"), False),
        (Sdk.starts_with("other", "AA"), False),
        (Sdk.ends_with("ticker", "PL"), True),
        (Sdk.ends_with("ticker", "AA"), False),
        (Sdk.ends_with("other", "PL"), False),
        (Sdk.contains("ticker", "AP"), True),
        (Sdk.contains("ticker", "LA"), False),
        (Sdk.contains("other", "AP"), False),
        (Sdk.gt("price", "99.5"), False),
        (Sdk.gt("price", "99.49"), True),
        (Sdk.gte("price", "99.5"), True),
        (Sdk.lt("price", "99.5"), False),
        (Sdk.lt("price", "+100"), True),
        (Sdk.lte("price", "99.5"), True),
        (Sdk.lte("price", "-99.5"), False),
        (Sdk.gt("other", "0"), False),
        (Sdk.lt("other", "0"), False),
        (Sdk.gt("ticker", "0"), False),
        (Sdk.gt("price", "cheap"), False),
        (Sdk.lte("price", "cheap"), False),
        (Sdk.all(Sdk.eq("ticker", "AAPL"), Sdk.gt("price", "90")), True),
        (Sdk.all(Sdk.eq("ticker", "AAPL"), Sdk.gt("price", "100")), False),
        (Sdk.any(Sdk.eq("ticker", "GOOG"), Sdk.gt("price", "90")), True),
        (Sdk.any(Sdk.eq("ticker", "GOOG"), Sdk.gt("price", "100")), False),
        (Sdk.negate(Sdk.eq("ticker", "GOOG")), True),
        (Sdk.negate(Sdk.any(Sdk.eq("ticker", "GOOG"), Sdk.gt("price", "90"))), False),
    ],
)
def test_what_the_sdk_builds(node: Any, matches: bool) -> None:
    assert filter_of(node.node).matches(SHARE) is matches


def test_no_tags_are_like_no_tag() -> None:
    assert filter_of({"key": "a", "cmp": "nex"}).matches(None)
    assert not filter_of({"key": "a", "cmp": "ex"}).matches({})


@pytest.mark.parametrize(
    "text",
    [
        *["", "1e3", "1_000", " 1", "1 ", ".5", "5.", "+", "-", "+.5", "NaN", "inf", "0x10", "١", "1,5", "--1"],
        "1." + "0" * 20,
        "1" * 201,
        "1" * 100_000,
    ],
)
def test_what_is_no_number(text: str) -> None:
    for cmp in ("gt", "gte", "lt", "lte"):
        assert not filter_of({"key": "a", "cmp": cmp, "val": "1"}).matches({"a": text})
        if text:
            assert not filter_of({"key": "a", "cmp": cmp, "val": text}).matches({"a": "1"})


numbers = st.from_regex(r"\A[+-]?[0-9]{1,60}(\.[0-9]{1,19})?\Z")


@given(numbers, numbers)
def test_numbers_are_exact(left: str, right: str) -> None:
    def matches(cmp: str) -> bool:
        return filter_of({"key": "a", "cmp": cmp, "val": right}).matches({"a": left})

    a, b = Decimal(left), Decimal(right)
    assert [matches(cmp) for cmp in ("gt", "gte", "lt", "lte")] == [a > b, a >= b, a < b, a <= b]


def test_a_digit_beyond_any_float_counts() -> None:
    big = "9" * 100
    assert filter_of({"key": "a", "cmp": "lt", "val": big}).matches({"a": big[:-1] + "8"})


LEAF = {"key": "a", "cmp": "ex"}


@pytest.mark.parametrize(
    "node",
    [
        {},
        {"key": "a"},
        {"key": "a", "cmp": "like", "val": "b"},
        {"key": "a", "cmp": "EQ", "val": "b"},
        {"cmp": "eq", "val": "b"},
        {"key": "a", "cmp": "eq"},
        {"key": "a", "cmp": "eq", "val": ""},
        {"key": "a", "cmp": "eq", "val": "b", "vals": ["b"]},
        {"key": "a", "cmp": "gt", "vals": ["b"]},
        {"key": "a", "cmp": "in"},
        {"key": "a", "cmp": "in", "vals": []},
        {"key": "a", "cmp": "in", "val": "b"},
        {"key": "a", "cmp": "nin", "val": "b", "vals": ["b"]},
        {"cmp": "nin", "vals": ["b"]},
        {"key": "a", "cmp": "ex", "val": "b"},
        {"key": "a", "cmp": "nex", "vals": ["b"]},
        {"op": "and"},
        {"op": "or", "nodes": []},
        {"op": "not"},
        {"op": "not", "nodes": [LEAF, LEAF]},
        {"op": "xor", "nodes": [LEAF]},
        {"op": "AND", "nodes": [LEAF]},
        {"op": "and", "nodes": [LEAF, {"key": "a"}]},
    ],
)
def test_malformed_trees(node: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        filter_of(node)


def nested(depth: int) -> FilterNode:
    node = FilterNode(key="a", cmp="ex")
    for _ in range(depth - 1):
        node = FilterNode(op="not", nodes=[node])
    return node


def test_depth_is_bounded() -> None:
    assert not compile_filter(nested(32)).matches({"a": ""})
    for depth in (33, 10_000):
        with pytest.raises(ValueError, match="too large"):
            compile_filter(nested(depth))


def test_size_is_bounded() -> None:
    leaf = FilterNode(key="a", cmp="ex")
    assert compile_filter(FilterNode(op="and", nodes=[leaf] * 255)).matches({"a": ""})
    with pytest.raises(ValueError, match="too large"):
        compile_filter(FilterNode(op="and", nodes=[leaf] * 256))


# ---- subscribers that ask for the same share their bytes ------------------------------------------------------------


def test_filters_that_say_the_same_are_equal() -> None:
    one = filter_of({"op": "and", "nodes": [LEAF, {"key": "b", "cmp": "in", "vals": ["1", "2"]}]})
    same = filter_of({"op": "and", "key": "unused", "nodes": [LEAF, {"key": "b", "cmp": "in", "vals": ["1", "2"]}]})
    assert one == same
    assert hash(one) == hash(same)
    for other in (
        {"op": "or", "nodes": [LEAF, {"key": "b", "cmp": "in", "vals": ["1", "2"]}]},
        {"op": "and", "nodes": [LEAF, {"key": "b", "cmp": "nin", "vals": ["1", "2"]}]},
        {"op": "and", "nodes": [LEAF, {"key": "b", "cmp": "in", "vals": ["1", "3"]}]},
        {"op": "and", "nodes": [LEAF]},
        {"op": "and", "nodes": [{"op": "and", "nodes": [LEAF]}]},
        LEAF,
    ):
        assert one != filter_of(other)
    assert one != one.key


leaves = st.builds(
    lambda key, cmp, val: {"key": key, "cmp": cmp, **({"vals": [val]} if cmp in ("in", "nin") else {"val": val})},
    st.sampled_from("ab"),
    st.sampled_from(["eq", "neq", "in", "nin", "sw", "ew", "ct", "gt", "lt"]),
    st.sampled_from(["1", "2", "10", "x"]),
)


def above(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    several = st.fixed_dictionaries(
        {"op": st.sampled_from(["and", "or"]), "nodes": st.lists(inner, min_size=1, max_size=3)}
    )
    return several | inner.map(lambda node: {"op": "not", "nodes": [node]})


trees = st.recursive(leaves, above, max_leaves=6)


@given(trees, trees, st.dictionaries(st.sampled_from("ab"), st.sampled_from(["", "1", "2", "10", "x"])))
def test_equal_filters_match_the_same(left: dict[str, Any], right: dict[str, Any], tags: dict[str, str]) -> None:
    one, other = filter_of(left), filter_of(right)
    assert filter_of({"op": "not", "nodes": [left]}).matches(tags) is not one.matches(tags)
    assert filter_of({"op": "and", "nodes": [left, right]}).matches(tags) is (one.matches(tags) and other.matches(tags))
    assert filter_of({"op": "or", "nodes": [left, right]}).matches(tags) is (one.matches(tags) or other.matches(tags))
    if one == other:
        assert one.matches(tags) is other.matches(tags)
