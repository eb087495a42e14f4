"""More comes through pub/sub than is taken: it waits in Redis, which bounds it, and not in this process."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext

import trio
import trio.testing

from broker.hub import Room
from broker.protocol import ClientInfo, Publication
from tests.conftest import ErrorLog
from tests.support.patience import PATIENCE
from tests.support.redis import running_redis
from tests.support.redis_engine import open_redis

MOST = 100


class Slow:
    """A `Deliver` that takes `MOST`, and no more until it is told to."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.waits = 0
        self.room = trio.Event()
        self.lost: list[str] = []
        self.news = trio.Event()
        self.interruption = trio.Event()

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def publication(self, channel: str, pub: Publication, epoch: str, base: Publication | None) -> Room | None:
        self.taken.append(int(pub.data))
        self.news.set()
        self.news = trio.Event()
        return self._wait if len(self.taken) >= MOST and not self.room.is_set() else None

    async def _wait(self) -> None:
        self.waits += 1
        await self.room.wait()

    def join(self, channel: str, info: ClientInfo) -> None: ...

    def leave(self, channel: str, info: ClientInfo) -> None: ...

    def interrupted(self, channels: Collection[str]) -> None:
        self.lost += channels
        self.interruption.set()

    async def until(self, count: int) -> None:
        with trio.fail_after(PATIENCE):
            while len(self.taken) < count:
                await self.news.wait()


def _many(first: int, last: int) -> list[bytes]:
    """Publications as they are stored: Protobuf, field 4 (data)."""
    texts = [b"%d" % n for n in range(first, last)]
    return [b"\x22" + bytes([len(text)]) + text for text in texts]


async def test_what_is_not_taken_waits_in_redis() -> None:
    async with running_redis() as server, open_redis(server) as opened:
        slow = Slow()
        opened.broker.attach(slow)
        await opened.broker.subscribe("news")
        many = _many(0, 20_000)
        publish = "for n = 2, #ARGV do redis.call('PUBLISH', ARGV[1], ARGV[n]) end"
        for start in range(0, len(many), 4000):
            server.ask("EVAL", publish, 0, "centrifugo.client.news", *many[start : start + 4000])
        await slow.until(MOST)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (slow.taken, slow.waits) == (list(range(MOST)), 1)
        assert await opened.broker.inner.publish_join("other", ClientInfo("u", "c")) is None, "commands go on"
        slow.room.set()
        await slow.until(len(many))
        assert slow.taken == list(range(len(many)))
        assert slow.lost == []


async def test_redis_cuts_off_who_takes_nothing_for_long_and_that_is_told() -> None:
    """What may wait there is bounded (client-output-buffer-limit)."""
    async with (
        running_redis("--client-output-buffer-limit", "pubsub", "1mb", "1mb", "1") as server,
        open_redis(server) as opened,
    ):
        slow = Slow()
        opened.broker.attach(slow)
        await opened.broker.subscribe("news")
        pubsub = opened.shards.all[0].pubsub
        link = pubsub.line.need()
        message = ("centrifugo.client.news", b"\x22\xe8\x07" + b"1" * 1000)
        with trio.fail_after(PATIENCE):
            while server.ask("CLIENT", "LIST", "TYPE", "pubsub"):
                server.ask("EVAL", "for n = 1, 5000 do redis.call('PUBLISH', ARGV[1], ARGV[2]) end", 0, *message)
                await trio.lowlevel.checkpoint()
        slow.room.set()
        with trio.fail_after(PATIENCE):
            await link.gone.wait()
            await slow.interruption.wait()
        assert slow.lost == ["news"]
        assert await pubsub.line.need().call("PING") == [b"pong", b""]


class Failing(Slow):
    """Fails once, at what comes after it has waited."""

    def publication(self, channel: str, pub: Publication, epoch: str, base: Publication | None) -> Room | None:
        if self.room.is_set() and not self.lost:
            raise ZeroDivisionError
        return super().publication(channel, pub, epoch, base)


async def test_what_fails_after_a_wait_ends_the_link_alone(error_log: ErrorLog) -> None:
    error_log.expect("what came from Redis could not be handled")
    async with running_redis() as server, open_redis(server) as opened:
        failing = Failing()
        opened.broker.attach(failing)
        await opened.broker.subscribe("news")
        for text in _many(0, MOST + 1):
            server.ask("PUBLISH", "centrifugo.client.news", text)
        await failing.until(MOST)
        failing.room.set()
        with trio.fail_after(PATIENCE):
            await failing.interruption.wait()
        assert failing.lost == ["news"]
        server.ask("PUBLISH", "centrifugo.client.news", *_many(MOST, MOST + 1))
        await failing.until(MOST + 1)
        assert failing.taken == list(range(MOST + 1))
