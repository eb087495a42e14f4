"""The server API from Python code in the same process: the rules of HTTP, typed answers, payloads as they are."""

from __future__ import annotations

from typing import Any

import pytest

from broker.api import ApiError, ChannelStats
from broker.protocol import StreamPosition
from tests.support.peers import NO_PINGS, open_house, options

pytestmark = pytest.mark.virtual_time

KEEPS: dict[str, Any] = options(
    {"history_size": 10, "history_ttl": "60s", "presence": True, "allow_presence_for_subscriber": True},
    client=NO_PINGS,
)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"text": "hi"}, {"text": "hi"}),
        ([1, None], [1, None]),
        ("a text", "a text"),
        (b'{ "spaces":  1 }', {"spaces": 1}),
    ],
)
async def test_a_publication_reaches_subscribers_and_history(given: object, told: object) -> None:
    async with open_house(KEEPS) as house:
        api = house.server.api
        client = await house.connected()
        await client.ask(subscribe={"channel": "news"})
        position = await api.publish("news", given, tags={"a": "b"})
        push = await client.push()
        assert push["pub"]["data"] == told
        assert push["pub"]["tags"] == {"a": "b"}
        kept = await api.history("news", limit=-1)
        assert position == kept.position == StreamPosition(1, kept.position.epoch)
        (pub,) = kept.publications
        assert (pub.offset, pub.tags) == (1, {"a": "b"})
        if isinstance(given, bytes):
            assert pub.data == given  # byte for byte
        await api.history_remove("news")
        assert (await api.history("news", limit=-1)).publications == []


async def test_a_broadcast_answers_for_each_channel() -> None:
    async with open_house(KEEPS) as house:
        first, second, third = await house.server.api.broadcast(["a", "nowhere:b", "c"], 1)
        assert isinstance(first, StreamPosition)
        assert isinstance(third, StreamPosition)
        assert isinstance(second, ApiError)
        assert second.code == 102


async def test_who_is_there() -> None:
    async with open_house(KEEPS) as house:
        api = house.server.api
        client = await house.connected()
        await client.ask(subscribe={"channel": "news"})
        id = client.hello["client"]
        assert (await api.presence("news"))[id].client == id
        assert await api.presence_stats("news") == ChannelStats(1, 1)
        assert await api.channels("n*") == {"news": 1}
        assert await api.channels("x*") == {}
        (node,) = await api.info()
        assert (node.num_clients, node.num_channels, node.num_subs) == (1, 1, 1)


async def test_what_the_server_does_to_connections() -> None:
    async with open_house(KEEPS) as house:
        api = house.server.api
        client = await house.connected()
        await api.subscribe("", "from-here", data={"why": "so"})
        assert (await client.push())["subscribe"]["data"] == {"why": "so"}
        await api.unsubscribe("", "from-here")
        assert (await client.push())["unsubscribe"]["code"] == 2000
        await api.disconnect("", code=4321, reason="enough")
        assert await client.wait_closed() == (4321, "enough")


async def test_a_refresh_lets_connections_expire() -> None:
    async with open_house(KEEPS) as house:
        client = await house.connected()
        await house.server.api.refresh("", expired=True)
        assert (await client.wait_closed())[0] == 3005


async def test_errors_are_those_of_the_api_and_counted() -> None:
    async with open_house(options(client=NO_PINGS)) as house:
        api = house.server.api
        for call, code in [
            (api.publish("", 1), 107),
            (api.publish("nowhere:x", 1), 102),
            (api.history("news"), 108),
            (api.presence("news"), 108),
            (api.refresh("42", info=b"no json"), 107),
            (api.disconnect("42", code=7), 107),
        ]:
            with pytest.raises(ApiError) as failed:
                await call
            assert failed.value.code == code
        assert house.server.node.counters.api_errors["python", "publish", "107"] == 1


async def test_bytes_that_are_no_json_are_a_payload_for_those_who_can_read_it() -> None:
    async with open_house(KEEPS) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "other"})
        await house.server.api.publish("other", b"\x00\xff")
        assert (await client.wait_closed())[0] == 3506  # a JSON client cannot be told, and is told so
