"""`client.concurrency`: commands of one client that wait, side by side."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from broker.hooks import Hooks, RpcEvent, RpcResult, SubscribeEvent, SubscribeResult
from tests.support.clock import seconds
from tests.support.peers import RawClient, open_house, secured, token

pytestmark = pytest.mark.virtual_time


def waiting() -> Hooks:
    """Methods that answer after as many seconds as their data says, and channels that take two."""
    app = Hooks()

    @app.on.rpc("*", timeout=600)
    async def wait(event: RpcEvent) -> RpcResult:
        await trio.sleep(event.json())
        return RpcResult(data=event.json())

    @app.on.subscribe("*", timeout=600)
    async def subscribe(event: SubscribeEvent) -> SubscribeResult:
        await trio.sleep(event.json() or 2)
        return SubscribeResult()

    return app


def config(concurrency: int) -> dict[str, Any]:
    return secured(client={"concurrency": concurrency})


async def answers(client: RawClient, *waits: float) -> list[float]:
    await client.frame(*({"rpc": {"method": "x", "data": wait}} for wait in waits))
    return [(await client.next())["rpc"]["data"] for _ in waits]


async def test_one_after_another_unless_told_otherwise() -> None:
    for concurrency in (0, 1):
        async with open_house(config(concurrency), hooks=waiting()) as house:
            client = await house.connected(token=token("42"))
            with seconds(6):
                assert await answers(client, 3, 1, 2) == [3, 1, 2]


async def test_side_by_side_answers_leave_as_they_come() -> None:
    async with open_house(config(3), hooks=waiting()) as house:
        client = await house.connected(token=token("42"))
        with seconds(3):
            assert await answers(client, 3, 1, 2) == [1, 2, 3]


async def test_no_more_than_so_many() -> None:
    async with open_house(config(2), hooks=waiting()) as house:
        client = await house.connected(token=token("42"))
        with seconds(4):
            assert await answers(client, 1, 2, 3) == [1, 2, 3]
        with seconds(3):
            assert await answers(client, 1, 1, 1, 1, 1, 1) == [1] * 6


async def test_one_subscription_to_a_channel() -> None:
    async with open_house(config(8), hooks=waiting()) as house:
        client = await house.connected(token=token("42"))
        await client.frame({"subscribe": {"channel": "a"}}, {"subscribe": {"channel": "a"}})
        assert (await client.next())["error"]["code"] == 105
        assert "subscribe" in await client.next()


async def test_unsubscribe_waits_for_the_subscribe_before_it() -> None:
    async with open_house(config(8), hooks=waiting()) as house:
        client = await house.connected(token=token("42"))
        with seconds(2):
            await client.frame({"subscribe": {"channel": "a"}}, {"unsubscribe": {"channel": "a"}})
            assert "subscribe" in await client.next()
            assert "unsubscribe" in await client.next()
        await house.api("publish", channel="a", data=1)
        await client.nothing()


async def test_unsubscribe_does_not_wait_for_ever() -> None:
    async with open_house(config(8), hooks=waiting()) as house:
        client = await house.connected(token=token("42"))
        with seconds(5):
            await client.frame({"subscribe": {"channel": "a", "data": 60}}, {"unsubscribe": {"channel": "a"}})
            assert await client.wait_closed() == (3004, "internal server error")


async def test_who_leaves_leaves_nothing() -> None:
    async with open_house(config(2), hooks=waiting()) as house:
        client = await house.connected(token=token("42"))
        await client.frame(*({"rpc": {"method": "x", "data": 60}} for _ in range(5)))
        await trio.sleep(1)
        await client.leave()


async def test_a_broken_rule_ends_the_connection_from_the_side() -> None:
    app = Hooks()

    @app.on.rpc("*")
    async def not_json(event: RpcEvent) -> RpcResult:
        return RpcResult(data=b"\xff")

    async with open_house(config(4), hooks=app) as house:
        client = await house.connected(token=token("42"))
        await client.command(rpc={"method": "x"})
        assert (await client.wait_closed())[0] == 3506
