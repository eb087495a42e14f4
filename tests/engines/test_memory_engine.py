"""What the memory engine keeps, and that it keeps nothing for longer. What it promises stands in tests/contracts."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

import pytest
import trio

from broker.engines import MemoryBroker, open_memory_engine
from broker.hub import HistoryOptions, HistoryQuery, PublishOptions
from broker.protocol import ClientInfo, Publication

pytestmark = pytest.mark.virtual_time

KEEP = HistoryOptions(size=10, ttl=60, meta_ttl=600)


class Nobody:
    """A `Deliver` that hears nothing."""

    def publication(self, channel: str, pub: Publication, epoch: str, base: Publication | None) -> None: ...

    def join(self, channel: str, info: ClientInfo) -> None: ...

    def leave(self, channel: str, info: ClientInfo) -> None: ...


@pytest.fixture
async def broker(nursery: trio.Nursery) -> MemoryBroker:
    broker = MemoryBroker(clock=trio.current_time, rng=random.Random(1))
    broker.attach(Nobody())
    return broker


async def publish(broker: MemoryBroker, channel: str = "room", key: str = "") -> int:
    options = PublishOptions(history=KEEP, idempotency_key=key)
    return (await broker.publish(channel, Publication(b"1"), options)).position.offset


def expire(broker: MemoryBroker) -> Iterator[None]:
    while broker.expire():
        yield


async def test_a_channel_that_is_published_to_now_and_then_is_watched_once(broker: MemoryBroker) -> None:
    """Each silence that is longer than the publications live, and shorter than the position does."""
    for n in range(100):
        assert await publish(broker) == n + 1
        await trio.sleep(100)
        deque(expire(broker), maxlen=0)
    assert len(broker._expiries) <= 2


async def test_a_position_that_is_forgotten_leaves_nothing_behind(broker: MemoryBroker) -> None:
    for _ in range(20):
        assert await publish(broker) == 1
        await trio.sleep(601)
    await publish(broker)
    await trio.sleep(601)
    deque(expire(broker), maxlen=0)
    assert broker._streams == {}
    assert broker._expiries == []


async def test_what_is_prolonged_is_kept(broker: MemoryBroker) -> None:
    for _ in range(30):
        await publish(broker)
        await trio.sleep(50)
        deque(expire(broker), maxlen=0)
    page = await broker.history("room", HistoryQuery(limit=-1), 600)
    assert [pub.offset for pub in page.publications] == list(range(21, 31))


async def test_results_are_forgotten_in_time_and_not_before(broker: MemoryBroker) -> None:
    await publish(broker, key="a")
    await trio.sleep(200)
    await publish(broker, key="b")
    await trio.sleep(99)
    assert await publish(broker, key="a") == 1
    await trio.sleep(2)
    assert await publish(broker, key="a") == 3  # begins anew, behind "b"
    await trio.sleep(200)
    deque(expire(broker), maxlen=0)
    assert list(broker._results) == [("room", "a")]
    await trio.sleep(200)
    deque(expire(broker), maxlen=0)
    assert broker._results == {}


async def test_much_that_is_over_at_once_is_forgotten_in_parts(broker: MemoryBroker) -> None:
    for n in range(5000):
        await publish(broker, f"room{n}", key="k")
    await trio.sleep(700)
    parts = sum(1 for _ in expire(broker))
    assert parts >= 5
    assert (broker._streams, broker._results, broker._expiries) == ({}, {}, [])


async def test_the_janitor_forgets() -> None:
    async with open_memory_engine(random.Random(1)) as engine:
        engine.broker.attach(Nobody())
        await publish(engine.broker, key="k")
        await trio.sleep(700)
        assert (engine.broker._streams, engine.broker._results) == ({}, {})
