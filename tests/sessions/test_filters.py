"""Filters over the tags of publications (client protocol §6.5)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.peers import House, RawClient, open_house, options

pytestmark = pytest.mark.virtual_time

KEPT = {"history_size": 10, "history_ttl": "60s", "allowed_delta_types": ["fossil"]}
DELTA = {**KEPT, "force_recovery": True, "delta_publish": True}
FILTERED = {**KEPT, "force_positioning": True, "allow_tags_filter": True}


async def subscribe(client: RawClient, channel: str = "chat", **members: Any) -> dict[str, Any]:
    return (await client.ask(subscribe={"channel": channel, **members}))["subscribe"]  # type: ignore[no-any-return]


async def tagged(house: House, *tags: dict[str, str] | None) -> None:
    for n, each in enumerate(tags, 1):
        await house.api("publish", channel="chat", data=n, tags=each)


def leaf(key: str, cmp: str, val: str = "", *vals: str) -> dict[str, Any]:
    return {"key": key, "cmp": cmp} | ({"vals": list(vals)} if vals else {"val": val} if val else {})


TAGS: list[dict[str, str] | None] = [
    {"kind": "goal", "minute": "7"},
    {"kind": "card", "minute": "35.5"},
    {"kind": "goal"},
    {"minute": "soon"},
    None,
]


@pytest.mark.parametrize(
    ("tf", "wanted"),
    [
        (leaf("kind", "eq", "goal"), [1, 3]),
        (leaf("kind", "neq", "goal"), [2, 4, 5]),
        (leaf("kind", "in", "", "goal", "card"), [1, 2, 3]),
        (leaf("kind", "nin", "", "goal", "card"), [4, 5]),
        (leaf("kind", "ex"), [1, 2, 3]),
        (leaf("kind", "nex"), [4, 5]),
        (leaf("kind", "sw", "go"), [1, 3]),
        (leaf("kind", "ew", "rd"), [2]),
        (leaf("kind", "ct", "a"), [1, 2, 3]),
        (leaf("minute", "gt", "7"), [2]),
        (leaf("minute", "gte", "7.0"), [1, 2]),
        (leaf("minute", "lt", "35.50"), [1]),
        (leaf("minute", "lte", "35.50"), [1, 2]),
        ({"op": "and", "nodes": [leaf("kind", "eq", "goal"), leaf("minute", "ex")]}, [1]),
        ({"op": "or", "nodes": [leaf("kind", "eq", "card"), leaf("minute", "nex")]}, [2, 3, 5]),
        ({"op": "not", "nodes": [leaf("kind", "eq", "goal")]}, [2, 4, 5]),
    ],
)
async def test_a_filter_lets_through_what_is_wanted(tf: dict[str, Any], wanted: list[int]) -> None:
    async with open_house(options(FILTERED)) as house:
        clients = [await house.connected(), await house.connected(protobuf=True)]
        for client in clients:
            await subscribe(client, tf=tf)
        await tagged(house, *TAGS)
        for client in clients:
            assert [(await client.push())["pub"]["offset"] for _ in wanted] == wanted
            await client.nothing()
        await house.api("publish", channel="chat", data=6, tags={"kind": "goal", "minute": "7"})
        for client in clients:  # what was left out is no gap
            if 1 in wanted:
                assert (await client.push())["pub"]["offset"] == 6
            await client.nothing()


@pytest.mark.parametrize(
    "tf",
    [
        {},
        {"cmp": "eq", "val": "x"},
        {"key": "a", "cmp": "like", "val": "x"},
        {"key": "a", "cmp": "eq"},
        {"key": "a", "cmp": "in"},
        {"op": "and"},
        {"op": "not", "nodes": [leaf("a", "ex"), leaf("b", "ex")]},
        {"op": "xor", "nodes": [leaf("a", "ex")]},
    ],
)
async def test_a_malformed_filter_is_refused_and_the_place_given_back(tf: dict[str, Any]) -> None:
    async with open_house(options(FILTERED)) as house:
        client = await house.connected()
        assert (await client.ask(subscribe={"channel": "chat", "tf": tf}))["error"]["code"] == 107
        assert "epoch" in await subscribe(client)
    async with open_house(options(KEPT)) as house:
        client = await house.connected()
        good = leaf("a", "ex")
        assert (await client.ask(subscribe={"channel": "chat", "tf": good}))["error"]["code"] == 107


async def test_a_filter_rules_out_patches() -> None:
    """A publication left out would break the chain; Centrifugo sends it all the same."""
    async with open_house(options({**DELTA, "allow_tags_filter": True})) as house:
        client = await house.connected()
        assert "delta" not in await subscribe(client, delta="fossil", tf=leaf("kind", "eq", "goal"))
        await tagged(house, *TAGS[:3])
        first, second = [(await client.push())["pub"] for _ in range(2)]
        del first["epoch"]
        assert first == {"data": 1, "offset": 1, "tags": TAGS[0]}
        assert second == {"data": 3, "offset": 3, "tags": TAGS[2]}


async def test_filters_do_not_touch_joins_nor_channels_without_history() -> None:
    rules = {"allow_tags_filter": True, "join_leave": True, "force_push_join_leave": True}
    async with open_house(options(rules)) as house:
        client = await house.connected()
        await subscribe(client, tf=leaf("kind", "eq", "goal"))
        assert "join" in await client.push()
        other = await house.connected()
        await subscribe(other)
        assert "join" in await client.push()
        await tagged(house, *TAGS[:3])
        assert [(await client.push())["pub"]["data"] for _ in range(2)] == [1, 3]
        await client.nothing()
