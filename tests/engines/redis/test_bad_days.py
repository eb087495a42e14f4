"""Redis on bad days: each ends in a clear reason, is told to who waits, and heals without a restart."""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress

import attrs
import pytest
import trio
import trio.testing

from broker.eager import begin, go_on
from broker.engines import open_engine
from broker.engines.options import BrokerOptions, EngineOptions, PresenceManagerOptions
from broker.engines.redis.line import Line
from broker.engines.redis.options import RedisEngineOptions
from broker.hub import EngineUnavailable, HistoryOptions, HistoryQuery, PublishOptions
from broker.protocol import ClientInfo, Publication, StreamPosition
from broker.reader import open_stage
from broker.values import Secret
from tests.support.patience import PATIENCE
from tests.support.redis import RedisServer, running_redis
from tests.support.redis_engine import OpenedRedis, open_redis

KEEP = PublishOptions(HistoryOptions(size=10, ttl=60, meta_ttl=600))


@attrs.define
class Heard:
    """A `Deliver` that remembers, and tells whom it waits for."""

    pubs: list[tuple[str, int, bytes]] = attrs.field(factory=list)
    lost: list[str] = attrs.field(factory=list)
    news: trio.Event = attrs.field(factory=trio.Event)

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def publication(self, channel: str, pub: Publication, epoch: str, base: Publication | None) -> None:
        self.pubs.append((channel, pub.offset, pub.data))
        self._tell()

    def join(self, channel: str, info: ClientInfo) -> None:
        self._tell()

    def leave(self, channel: str, info: ClientInfo) -> None:
        self._tell()

    def interrupted(self, channels: Collection[str]) -> None:
        self.lost += channels
        self._tell()

    def _tell(self) -> None:
        self.news.set()
        self.news = trio.Event()

    async def wait_interrupted(self) -> None:
        with trio.fail_after(PATIENCE):
            while not self.lost:
                await self.news.wait()


@asynccontextmanager
async def engine(server: RedisServer, **options: object) -> AsyncIterator[tuple[OpenedRedis, Heard]]:
    async with open_redis(server, **options) as opened:
        heard = Heard()
        opened.broker.attach(heard)
        yield opened, heard


async def link_of(line: Line) -> None:
    """Wait until a line is up."""
    with trio.fail_after(PATIENCE):
        while line.link is None or line.link.why:
            await trio.testing.wait_all_tasks_blocked(0.01)


async def ready(opened: OpenedRedis) -> None:
    for line in opened.shards.lines:
        await link_of(line)


async def again(opened: OpenedRedis) -> None:
    """Publish as soon as it works."""
    with trio.fail_after(PATIENCE):
        while True:
            await ready(opened)
            with suppress(EngineUnavailable):  # 0.5 s is not long for a busy machine
                await opened.broker.publish("news", Publication(b"2"), KEEP)
                return


async def test_a_killed_redis_comes_back_empty_and_everything_is_heard_again() -> None:
    async with running_redis() as server, engine(server) as (opened, heard):
        await opened.broker.subscribe("news")
        before = await opened.broker.publish("news", Publication(b"1"), KEEP)
        server.kill()
        with pytest.raises(EngineUnavailable, match=server.address):
            await opened.broker.publish("news", Publication(b"lost"), KEEP)
        server.start()
        await server.wait_ready()
        await heard.wait_interrupted()
        await ready(opened)
        assert heard.lost == ["news"]
        after = await opened.broker.publish("news", Publication(b"2"), KEEP)
        assert after.position.offset == 1
        assert after.position.epoch != before.position.epoch
        assert heard.pubs[-1] == ("news", 1, b"2")
        assert not opened.shards.unready


async def test_a_redis_that_stands_still_fails_calls_in_time_and_goes_on() -> None:
    async with running_redis() as server, engine(server, io_timeout="500ms") as (opened, _):
        server.signal(signal.SIGSTOP)
        with trio.fail_after(PATIENCE), pytest.raises(EngineUnavailable, match=r"no reply within 0\.5 s"):
            await opened.broker.inner.publish("news", Publication(b"1"), KEEP)
        server.signal(signal.SIGCONT)
        await again(opened)


async def test_a_cancelled_caller_does_not_shift_the_replies_of_others() -> None:
    async with running_redis() as server, engine(server) as (opened, _):
        commands = opened.shards.all[0].commands
        for n in range(50):
            server.ask("SET", f"k{n}", f"v{n}")
        replies: dict[int, bytes] = {}

        async def get(n: int, scope: trio.CancelScope) -> None:
            with scope:
                replies[n] = await commands.call(b"k", "GET", f"k{n}")

        server.signal(signal.SIGSTOP)  # so that all of them are under way
        async with trio.open_nursery() as nursery:
            scopes = [trio.CancelScope() for _ in range(50)]
            for n, scope in enumerate(scopes):
                nursery.start_soon(get, n, scope)
            await trio.testing.wait_all_tasks_blocked(0.01)
            for scope in scopes[::3]:
                scope.cancel()
            await trio.testing.wait_all_tasks_blocked(0.01)
            server.signal(signal.SIGCONT)
        assert replies == {n: b"v%d" % n for n in range(50) if n % 3}


async def test_links_that_are_killed_are_dialled_again() -> None:
    async with running_redis() as server, engine(server) as (opened, heard):
        await opened.broker.subscribe("news")
        server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        await heard.wait_interrupted()
        await ready(opened)
        await opened.broker.publish("news", Publication(b"1"), KEEP)
        assert heard.pubs == [("news", 1, b"1")]


async def test_a_full_memory_refuses_and_changes_nothing() -> None:
    async with running_redis() as server, engine(server) as (opened, heard):
        await opened.broker.subscribe("news")
        first = await opened.broker.publish("news", Publication(b"1"), KEEP)
        server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(EngineUnavailable, match="OOM"):
            await opened.broker.publish("news", Publication(b"2"), KEEP)
        server.ask("CONFIG", "SET", "maxmemory", "0")
        second = await opened.broker.publish("news", Publication(b"3"), KEEP)
        assert second.position == StreamPosition(2, first.position.epoch)
        assert [data for _, _, data in heard.pubs] == [b"1", b"3"]


async def test_scripts_that_are_forgotten_are_sent_again() -> None:
    async with running_redis() as server, engine(server) as (opened, _):
        server.ask("SCRIPT", "FLUSH")
        assert (await opened.broker.publish("news", Publication(b"1"), KEEP)).position.offset == 1


async def test_a_slow_script_of_somebody_else() -> None:
    async with running_redis() as server, engine(server, io_timeout="500ms") as (opened, _):
        server.ask("CONFIG", "SET", "busy-reply-threshold", "100")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, server.ask, "EVAL", "while true do end", 0)
            try:
                with trio.fail_after(PATIENCE):
                    while not str(server.ask("GET", "x")).startswith("BUSY"):
                        await trio.testing.wait_all_tasks_blocked(0.01)
                    with pytest.raises(EngineUnavailable):
                        await opened.broker.inner.publish("news", Publication(b"1"), KEEP)
            finally:
                server.ask("SCRIPT", "KILL")
        await again(opened)


async def test_a_master_that_becomes_a_replica_is_left() -> None:
    async with running_redis() as server, engine(server) as (opened, _):
        server.ask("CONFIG", "SET", "replica-serve-stale-data", "yes")
        server.ask("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(EngineUnavailable, match="READONLY"):
            await opened.broker.publish("news", Publication(b"1"), KEEP)
        with trio.fail_after(PATIENCE):
            while not any("it is a replica" in why for why in opened.shards.unready):
                await trio.testing.wait_all_tasks_blocked(0.01)
        server.ask("REPLICAOF", "NO", "ONE")
        await ready(opened)
        await opened.broker.publish("news", Publication(b"2"), KEEP)


async def test_garbage_in_pubsub_is_counted_and_ignored() -> None:
    async with running_redis() as server, engine(server) as (opened, heard):
        await opened.broker.subscribe("news")
        for garbage in (b"", b"__", b"__p1:", b"__p1:x:y__", b"__d1:1:e:5:a", b"__q__", b"\xff" * 9, b"__p1:-1:e__"):
            server.ask("PUBLISH", "centrifugo.client.news", garbage)
        await opened.broker.publish("news", Publication(b"1"), KEEP)
        assert heard.pubs[-1] == ("news", 1, b"1")
        assert opened.broker.inner.malformed >= 6


async def test_another_type_under_our_key_is_told_and_does_not_move_the_offset() -> None:
    async with running_redis() as server, engine(server) as (opened, _):
        server.ask("SET", "centrifugo.stream.news", "mine")
        await opened.broker.history("other", HistoryQuery(), 0)
        first = await opened.broker.publish("news", Publication(b"1"), KEEP)  # the first of an epoch clears the stream
        server.ask("SET", "centrifugo.stream.news", "mine")
        with pytest.raises(EngineUnavailable, match="WRONGTYPE"):
            await opened.broker.publish("news", Publication(b"2"), KEEP)
        server.ask("DEL", "centrifugo.stream.news")
        second = await opened.broker.publish("news", Publication(b"3"), KEEP)
        assert second.position == StreamPosition(2, first.position.epoch)


# ---- what the operator is told at the start -------------------------------------------------------------------------


async def test_why_it_cannot_start() -> None:
    async with running_redis("--requirepass", "right") as server:
        address = (Secret(server.address),)
        assert "it asks for a password (NOAUTH" in await start_with_address(address)
        assert "the password is not accepted (WRONGPASS" in await start_with_address(address, password=Secret("wrong"))
    async with running_redis("--replicaof", "127.0.0.1", "1") as server:
        assert "it is a replica" in await start_with_address((Secret(server.address),))
    assert "Connection refused" in await start_with_address((Secret(server.address),))


async def start_with_address(address: tuple[Secret, ...], **more: object) -> str:
    options = EngineOptions(type="redis", redis=RedisEngineOptions(address=address, **more))  # type: ignore[arg-type]
    async with open_stage() as stage:
        with pytest.raises(EngineUnavailable) as raised:
            async with open_engine(options, BrokerOptions(), PresenceManagerOptions(), random.Random(), stage):
                pass
    text = str(raised.value)
    assert text.startswith(f"engine.redis: {address[0].reveal()}: ")
    return text


# ---- the fence ------------------------------------------------------------------------------------------------------


async def test_another_run_of_redis_begins_a_new_epoch_and_keeps_what_there_is() -> None:
    async with running_redis("--save", "3600 1") as server, engine(server) as (opened, heard):
        await opened.broker.subscribe("news")
        for data in (b"1", b"2", b"3"):
            before = await opened.broker.publish("news", Publication(data), KEEP)
        server.ask("SAVE")
        lost = await opened.broker.publish("news", Publication(b"lost4"), KEEP)
        assert lost.position == StreamPosition(4, before.position.epoch)
        server.kill()
        server.start()
        await server.wait_ready()
        await heard.wait_interrupted()
        await ready(opened)
        page = await opened.broker.history("news", HistoryQuery(-1), 600)
        assert page.top.offset == 3
        assert page.top.epoch != before.position.epoch
        assert [pub.data for pub in page.publications] == [b"1", b"2", b"3"]
        new = await opened.broker.publish("news", Publication(b"new4"), KEEP)
        assert new.position == StreamPosition(4, page.top.epoch), "offset 4 again, in another epoch"


async def test_without_the_fence_the_epoch_stays() -> None:
    async with running_redis("--save", "3600 1") as server, engine(server, fence_disabled=True) as (opened, heard):
        await opened.broker.subscribe("news")
        before = await opened.broker.publish("news", Publication(b"1"), KEEP)
        server.ask("SAVE")
        server.kill()
        server.start()
        await server.wait_ready()
        await heard.wait_interrupted()
        await ready(opened)
        assert (await opened.broker.history("news", HistoryQuery(), 600)).top == before.position


# ---- many channels --------------------------------------------------------------------------------------------------


async def test_many_subscriptions_are_restored_in_few_commands() -> None:
    async with running_redis() as server, engine(server) as (opened, heard):
        names = [f"channel:{n}" for n in range(20_000)]
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(opened.broker.subscribe, name)
        server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        await heard.wait_interrupted()
        assert set(heard.lost) == set(names)
        commands = server.ask("INFO", "commandstats")
        assert int(commands.split(b"cmdstat_subscribe:calls=")[1].split(b",")[0]) < 400, "200 for each time"


async def test_what_is_heard_for_good_is_asked_for_again_where_it_was_refused() -> None:
    async with running_redis() as server, engine(server) as (opened, _):
        await ready(opened)
        (redis,) = opened.shards.all
        server.ask("ACL", "SETUSER", "default", "resetchannels", f"&{redis.names.probe.decode()}*")
        heard = trio.Event()
        with trio.fail_after(PATIENCE):
            with pytest.raises(EngineUnavailable, match="NOPERM"):
                await redis.pubsub.listen(b"late", lambda _: heard.set()).wait()
            server.ask("ACL", "SETUSER", "default", "allchannels")
            while not heard.is_set():
                server.ask("PUBLISH", "late", "")
                with trio.move_on_after(0.05):
                    await heard.wait()


async def test_an_error_for_one_of_many_names_is_an_error_for_all_and_shifts_no_reply() -> None:
    async with running_redis() as server, engine(server) as (opened, heard):
        await ready(opened)
        (redis,) = opened.shards.all
        allowed = [f"&{redis.names.probe.decode()}*", f"&{redis.names.message('a').decode()}"]
        server.ask("ACL", "SETUSER", "default", "resetchannels", *allowed)
        failed: list[str] = []

        async def subscribe(channel: str) -> None:
            with pytest.raises(EngineUnavailable, match="NOPERM"):
                await opened.broker.inner.subscribe(channel)
            failed.append(channel)

        works = [subscribe(channel) for channel in ("a", "b", "c")]
        for work in works:
            begin(work)  # all in one turn, so in one command
        with trio.fail_after(PATIENCE):
            for work in works:
                await go_on(work)
        assert sorted(failed) == ["a", "b", "c"]
        server.ask("ACL", "SETUSER", "default", "allchannels")
        await ready(opened)
        for channel in ("a", "b", "c"):
            await opened.broker.subscribe(channel)
            await opened.broker.publish(channel, Publication(b"1"), KEEP)
        with trio.fail_after(PATIENCE):
            while len(heard.pubs) < 3:
                await heard.news.wait()
