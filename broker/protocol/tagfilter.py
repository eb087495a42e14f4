"""Filters over the tags of publications: a tree of comparisons that a subscriber gives. Facts: client protocol §6.5."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final, final

from broker.protocol.messages import FilterNode

__all__ = ["MOST_NODES", "Filter", "compile_filter"]

_DEEPEST: Final = 32
MOST_NODES: Final = 256
_LONGEST_NUMBER: Final = 200
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]{1,19})?")
"""What Centrifugo's decimals are read from, and no more: others compare as false."""

Tags = Mapping[str, str]
_Test = Callable[[Tags], bool]


@final
class Filter:
    """A compiled filter. Two that say the same are equal, so their subscribers can share encoded bytes."""

    __slots__ = ("_hash", "_test", "key")

    def __init__(self, key: tuple[object, ...], test: _Test) -> None:
        self.key = key
        self._test = test
        self._hash = hash(key)

    def matches(self, tags: Tags | None) -> bool:
        """Whether a publication with these tags is wanted."""
        return self._test(tags or {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and other.key == self.key

    def __hash__(self) -> int:
        return self._hash


def compile_filter(node: FilterNode) -> Filter:
    """Check and compile a tree.

    Raises:
        ValueError: it is malformed, too deep (32) or too large (256 nodes).
    """
    budget = [MOST_NODES]
    key, test = _compile(node, 1, budget)
    return Filter(key, test)


def _compile(node: FilterNode, depth: int, budget: list[int]) -> tuple[tuple[object, ...], _Test]:
    budget[0] -= 1
    if depth > _DEEPEST or budget[0] < 0:
        raise ValueError("filter is too large")
    if not node.op:
        return _leaf(node)
    children = [_compile(child, depth + 1, budget) for child in node.nodes or ()]
    key = (node.op, *(key for key, _ in children))
    tests = [test for _, test in children]
    match node.op:
        case "and" if tests:
            return key, lambda tags: all(test(tags) for test in tests)
        case "or" if tests:
            return key, lambda tags: any(test(tags) for test in tests)
        case "not" if len(tests) == 1:
            inner = tests[0]
            return key, lambda tags: not inner(tags)
    raise ValueError(f"operator {node.op!r} with {len(tests)} nodes")


def _leaf(node: FilterNode) -> tuple[tuple[object, ...], _Test]:
    name, cmp, val = node.key or "", node.cmp or "", node.val or ""
    vals = tuple(node.vals or ())
    if cmp in ("ex", "nex"):
        if val or vals:
            raise ValueError(f"{cmp} takes no operand")
    elif not name:
        raise ValueError("comparison without a key")
    elif cmp in ("in", "nin"):
        if val or not vals:
            raise ValueError(f"{cmp} takes vals")
    elif not val or vals:
        raise ValueError(f"{cmp} takes a val")
    return ("", name, cmp, val, vals), _comparison(name, cmp, val, frozenset(vals))


def _comparison(name: str, cmp: str, val: str, vals: frozenset[str]) -> _Test:
    match cmp:
        case "eq":
            return lambda tags: tags.get(name) == val
        case "neq":
            return lambda tags: tags.get(name) != val
        case "in":
            return lambda tags: tags.get(name, "") in vals
        case "nin":
            return lambda tags: tags.get(name, "") not in vals
        case "ex":
            return lambda tags: name in tags
        case "nex":
            return lambda tags: name not in tags
        case "sw":
            return lambda tags: name in tags and tags[name].startswith(val)
        case "ew":
            return lambda tags: name in tags and tags[name].endswith(val)
        case "ct":
            return lambda tags: name in tags and val in tags[name]
        case "gt" | "gte" | "lt" | "lte":
            return _ordering(name, cmp, val)
    raise ValueError(f"unknown comparison {cmp!r}")


def _ordering(name: str, cmp: str, val: str) -> _Test:
    bound = _number(val)
    if bound is None:
        return lambda tags: False

    def test(tags: Tags) -> bool:
        value = _number(tags.get(name, ""))
        if value is None:
            return False
        match cmp:
            case "gt":
                return value > bound
            case "gte":
                return value >= bound
            case "lt":
                return value < bound
        return value <= bound

    return test


def _number(text: str) -> Decimal | None:
    if len(text) > _LONGEST_NUMBER or _NUMBER.fullmatch(text) is None:
        return None
    return Decimal(text)
