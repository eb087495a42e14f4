"""What every engine promises (broker/hub/ports.py). An engine plugs in by one more factory in `ENGINES`;
of Redis each way of running it is one (tests/support/redis_topologies.py)."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

import attrs
import pytest
import trio

from broker.engines import open_memory_engine
from broker.hub import (
    NO_HISTORY,
    Broker,
    HistoryOptions,
    HistoryQuery,
    Presence,
    PresenceStats,
    PublishOptions,
    UnrecoverablePosition,
)
from broker.protocol import ClientInfo, Publication, StreamPosition
from tests.support.redis import RedisClock
from tests.support.redis_engine import open_redis
from tests.support.redis_topologies import TOPOLOGIES, RunningRedis

pytestmark = pytest.mark.virtual_time

KEEP = PublishOptions(HistoryOptions(size=10, ttl=60, meta_ttl=600))


@attrs.define
class Heard:
    """A `Deliver` that remembers."""

    log: list[tuple[str, str, object]] = attrs.field(factory=list)
    epochs: list[str] = attrs.field(factory=list)
    bases: list[Publication | None] = attrs.field(factory=list)

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def publication(self, channel: str, pub: Publication, epoch: str, base: Publication | None) -> None:
        self.log.append(("pub", channel, (pub.offset, pub.data)))
        self.epochs.append(epoch)
        self.bases.append(base)

    def join(self, channel: str, info: ClientInfo) -> None:
        self.log.append(("join", channel, info.client))

    def leave(self, channel: str, info: ClientInfo) -> None:
        self.log.append(("leave", channel, info.client))

    def interrupted(self, channels: Collection[str]) -> None:
        raise AssertionError("there was no break")

    @property
    def pubs(self) -> list[object]:
        return [what for kind, _, what in self.log if kind == "pub"]


@attrs.frozen
class Engine:
    broker: Broker
    presence: Presence
    heard: Heard


@asynccontextmanager
async def memory() -> AsyncIterator[Engine]:
    async with open_memory_engine(random.Random(1)) as engine:
        heard = Heard()
        engine.broker.attach(heard)
        yield Engine(engine.broker, engine.presence, heard)


@asynccontextmanager
async def redis(running: RunningRedis, prefix: str) -> AsyncIterator[Engine]:
    async with open_redis(*running.masters, **running.options | {"prefix": prefix}) as engine:
        heard = Heard()
        engine.broker.attach(heard)
        yield Engine(engine.broker, engine.presence, heard)


_numbers = itertools.count()
OpenEngine = Callable[[], AbstractAsyncContextManager[Engine]]

RARE = {"unix", "valkey"}
"""What others show as well: run by `make test-long` only."""


def _engine(name: str) -> Any:
    marks = [pytest.mark.virtual_time(make_clock=RedisClock), *([pytest.mark.long] if name in RARE else ())]
    return pytest.param(name, id=name, marks=marks)


ENGINES = [pytest.param("", id="memory"), *map(_engine, TOPOLOGIES)]


@pytest.fixture(params=ENGINES)
def open_engine(request: pytest.FixtureRequest, redis_topology: Callable[[str], RunningRedis]) -> OpenEngine:
    if not request.param:
        return memory
    # A node of a cluster may hear last of what another test published: each test has names of its own.
    return functools.partial(redis, redis_topology(request.param), f"app.{next(_numbers)}")


async def test_offsets_go_up_by_one_and_are_delivered_in_order(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        await engine.broker.subscribe("news")
        results = [await engine.broker.publish("news", Publication(b"%d" % n), KEEP) for n in range(1, 6)]
        assert [result.position.offset for result in results] == [1, 2, 3, 4, 5]
        assert len({result.position.epoch for result in results}) == 1
        assert engine.heard.pubs == [(n, b"%d" % n) for n in range(1, 6)]
        assert set(engine.heard.epochs) == {results[0].position.epoch}


async def test_epochs_are_eight_letters_and_differ_between_channels(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        epochs = [(await engine.broker.publish(name, Publication(b"1"), KEEP)).position.epoch for name in "abc"]
        assert len(set(epochs)) == 3
        assert all(len(epoch) == 8 and epoch.isalpha() and epoch.isascii() for epoch in epochs)


async def test_without_history_there_is_no_position(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        await engine.broker.subscribe("news")
        result = await engine.broker.publish("news", Publication(b"1"), PublishOptions())
        assert result.position == StreamPosition()
        assert engine.heard.pubs == [(0, b"1")]


async def test_history_pages_forward_and_reverse(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        for n in range(1, 8):
            await engine.broker.publish("news", Publication(b"%d" % n), KEEP)

        async def offsets(limit: int, since: int | None = None, *, reverse: bool = False) -> list[int]:
            position = StreamPosition(since, "") if since is not None else None
            page = await engine.broker.history("news", HistoryQuery(limit, position, reverse), 600)
            assert page.top.offset == 7
            return [pub.offset for pub in page.publications]

        assert await offsets(0) == []
        assert await offsets(-1) == [1, 2, 3, 4, 5, 6, 7]
        assert await offsets(2) == [1, 2]
        assert await offsets(2, 3) == [4, 5]
        assert await offsets(-1, 7) == []
        assert await offsets(-1, 99) == []
        assert await offsets(2**62, 2**63 - 1) == []
        assert await offsets(2**62, 5) == [6, 7]
        assert await offsets(-1, reverse=True) == [7, 6, 5, 4, 3, 2, 1]
        assert await offsets(2, reverse=True) == [7, 6]
        assert await offsets(2, 4, reverse=True) == [3, 2]
        assert await offsets(5, 1, reverse=True) == []
        assert await offsets(5, 9, reverse=True) == []


async def test_history_is_trimmed_to_its_size_and_begins_at_the_oldest_kept(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        options = PublishOptions(HistoryOptions(size=3, ttl=60, meta_ttl=600))
        for n in range(1, 11):
            await engine.broker.publish("news", Publication(b"%d" % n), options)
        page = await engine.broker.history("news", HistoryQuery(-1, StreamPosition(2, "")), 600)
        assert [pub.offset for pub in page.publications] == [8, 9, 10]


async def test_history_from_another_epoch_is_refused(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        await engine.broker.publish("news", Publication(b"1"), KEEP)
        with pytest.raises(UnrecoverablePosition):
            await engine.broker.history("news", HistoryQuery(-1, StreamPosition(0, "other")), 600)


async def test_reading_makes_the_epoch_that_a_later_publication_has(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        before = await engine.broker.history("news", HistoryQuery(), 600)
        assert before.top.offset == 0
        result = await engine.broker.publish("news", Publication(b"1"), KEEP)
        assert result.position == StreamPosition(1, before.top.epoch)


async def test_publications_expire_and_the_position_stays(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        result = await engine.broker.publish("news", Publication(b"1"), KEEP)
        await trio.sleep(61)
        page = await engine.broker.history("news", HistoryQuery(-1), 600)
        assert (list(page.publications), page.top) == ([], result.position)


async def test_the_position_is_forgotten_after_a_long_silence(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        first = await engine.broker.publish("news", Publication(b"1"), KEEP)
        await trio.sleep(602)
        second = await engine.broker.publish("news", Publication(b"2"), KEEP)
        assert second.position.offset == 1
        assert second.position.epoch != first.position.epoch


async def test_reading_prolongs_the_life_of_the_position(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        first = await engine.broker.publish("news", Publication(b"1"), KEEP)
        for _ in range(3):
            await trio.sleep(400)
            page = await engine.broker.history("news", HistoryQuery(), 600)
            assert page.top == first.position


async def test_removing_history_keeps_offset_and_epoch(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        first = await engine.broker.publish("news", Publication(b"1"), KEEP)
        await engine.broker.remove_history("news")
        page = await engine.broker.history("news", HistoryQuery(-1), 600)
        assert (list(page.publications), page.top) == ([], first.position)
        second = await engine.broker.publish("news", Publication(b"2"), KEEP)
        assert second.position == StreamPosition(2, first.position.epoch)
        await engine.broker.remove_history("never used")


@pytest.mark.parametrize("history", [KEEP.history, NO_HISTORY], ids=["history", "no history"])
async def test_an_idempotency_key_publishes_once(open_engine: OpenEngine, history: HistoryOptions) -> None:
    async with open_engine() as engine:
        await engine.broker.subscribe("news")
        options = PublishOptions(history, idempotency_key="k")
        first = await engine.broker.publish("news", Publication(b"1"), options)
        again = await engine.broker.publish("news", Publication(b"2"), options)
        assert not first.suppressed
        assert (again.position, again.suppressed) == (first.position, "idempotency")
        assert len(engine.heard.pubs) == 1
        elsewhere = await engine.broker.publish("other", Publication(b"3"), options)
        assert not elsewhere.suppressed
        await trio.sleep(301)
        assert not (await engine.broker.publish("news", Publication(b"4"), options)).suppressed


async def test_idempotency_keys_are_not_mixed_up_between_channels(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        await engine.broker.publish("a_b", Publication(b"1"), PublishOptions(idempotency_key="c"))
        other = await engine.broker.publish("a", Publication(b"1"), PublishOptions(idempotency_key="b_c"))
        assert not other.suppressed


async def test_versions_suppress_what_is_not_newer(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        await engine.broker.subscribe("news")

        async def publish(version: int, epoch: str = "") -> str:
            options = attrs.evolve(KEEP, version=version, version_epoch=epoch)
            return (await engine.broker.publish("news", Publication(b"%d" % version), options)).suppressed

        assert [await publish(2), await publish(2), await publish(1), await publish(3)] == [
            "",
            "version",
            "version",
            "",
        ]
        assert [await publish(1, "x"), await publish(1, "x"), await publish(1, "y")] == ["", "version", ""]
        assert [offset for offset, _ in engine.heard.pubs] == [1, 2, 3, 4]  # type: ignore[attr-defined]


async def test_a_suppressed_publication_tells_the_current_position(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        options = attrs.evolve(KEEP, version=5)
        first = await engine.broker.publish("news", Publication(b"1"), options)
        again = await engine.broker.publish("news", Publication(b"2"), options)
        assert again.position == first.position


async def test_a_delta_publication_brings_its_predecessor(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        await engine.broker.subscribe("news")
        options = attrs.evolve(KEEP, delta=True)
        for data in (b"1", b"2", b"3"):
            await engine.broker.publish("news", Publication(data), options)
        assert [base.data if base else None for base in engine.heard.bases] == [None, b"1", b"2"]


async def test_where_the_predecessor_is_not_kept_a_delta_publication_comes_alone(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        await engine.broker.subscribe("news")
        options = attrs.evolve(KEEP, delta=True)
        await engine.broker.publish("news", Publication(b"1"), options)
        await engine.broker.remove_history("news")
        await engine.broker.publish("news", Publication(b"2"), options)
        assert engine.heard.bases == [None, None]


async def test_what_is_suppressed_is_not_told(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        await engine.broker.subscribe("news")
        for options in (attrs.evolve(KEEP, idempotency_key="k"), attrs.evolve(KEEP, version=3)):
            for _ in range(2):
                await engine.broker.publish("news", Publication(b"1"), options)
        assert [offset for offset, _ in engine.heard.pubs] == [1, 2]  # type: ignore[attr-defined]


async def test_join_and_leave_keep_their_order_among_publications(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        await engine.broker.subscribe("news")
        info = ClientInfo("u", "c")
        await engine.broker.publish_join("news", info)
        await engine.broker.publish("news", Publication(b"1"), KEEP)
        await engine.broker.publish_leave("news", info)
        assert [kind for kind, _, _ in engine.heard.log] == ["join", "pub", "leave"]


async def test_presence_counts_clients_and_users(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        presence = engine.presence
        for client, user in (("c1", "u1"), ("c2", "u1"), ("c3", "")):
            await presence.add("room", client, ClientInfo(user, client))
        await presence.add("room", "c1", ClientInfo("u1", "c1", b"again"))
        assert await presence.stats("room") == PresenceStats(clients=3, users=2)
        clients = await presence.clients("room")
        assert set(clients) == {"c1", "c2", "c3"}
        assert clients["c1"].conn_info == b"again"
        await presence.remove("room", "c1")
        await presence.remove("room", "c1")
        await presence.remove("nowhere", "c1")
        assert await presence.stats("room") == PresenceStats(clients=2, users=2)
        assert await presence.clients("nowhere") == {}
        assert await presence.stats("nowhere") == PresenceStats(0, 0)
