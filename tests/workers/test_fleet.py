"""What workers say together; each is the other end of a line, in this process."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

from broker.config import Sources
from broker.observe import Counters, Metrics, Read, as_data
from broker.workers.fleet import Fleet
from broker.workers.talk import Talk
from tests.support.patience import PATIENCE


class Worker:
    """Answers as a worker does, and remembers what it was told."""

    def __init__(self) -> None:
        self.published = 0
        self.unready: list[str] = []
        self.refuses = ""
        self.prepared: Any = None
        self.took: list[Any] = []
        self.dead = trio.CancelScope()

    async def metrics(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        counters = Counters()
        counters.sent["publication"] = self.published
        metrics = Metrics(counters, lambda: Read(1, 0, 0, 0, 0, 0), "v", 0)
        return {"families": as_data(metrics.families())}

    async def state(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"unready": self.unready}

    async def prepare(self, told: Mapping[str, Any]) -> Mapping[str, Any]:
        self.prepared = told["sources"]["options"]
        return {"error": self.refuses}

    async def take(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        self.took.append(self.prepared)
        return {}

    async def live(self, stream: trio.SocketStream) -> None:
        handlers = {name: getattr(self, name) for name in ("metrics", "state", "prepare", "take")}
        with self.dead:
            async with stream:
                await Talk(stream, handlers).run()


def sources(name: str) -> Sources:
    return Sources(file=None, options={"name": name}, environ={})


START = sources("start")


@asynccontextmanager
async def opened(count: int, joined: int | None = None) -> AsyncIterator[tuple[Fleet, list[Worker], list[Talk]]]:
    fleet, workers, talks = Fleet(count, START), [Worker() for _ in range(count)], []
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for worker in workers:
            ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in socket.socketpair())
            await stack.enter_async_context(ours)
            talks.append(Talk(ours, {}))
            nursery.start_soon(talks[-1].run)
            nursery.start_soon(worker.live, theirs)
        with trio.fail_after(PATIENCE):
            for number in range(count if joined is None else joined):
                assert await fleet.join(number + 1, talks[number], START) == ""
            yield fleet, workers, talks
        nursery.cancel_scope.cancel()


async def published(fleet: Fleet) -> float:
    text = (await fleet.metrics()).decode()
    (count,) = re.findall(r'(?m)^centrifugo_node_messages_sent_count\{.*type="publication"\} (\S+)$', text)
    return float(count)


async def test_all_take_a_reload_or_none_does() -> None:
    async with opened(3) as (fleet, workers, _):
        workers[1].refuses = "no such module"
        assert await fleet.reload(sources("bad")) == "no such module"
        assert [worker.took for worker in workers] == [[], [], []]
        assert fleet.sources is START
        workers[1].refuses = ""
        good = sources("good")
        assert await fleet.reload(good) == ""
        assert [worker.took for worker in workers] == [[{"name": "good"}]] * 3
        assert fleet.sources is good


async def test_the_same_objection_is_told_once() -> None:
    async with opened(3) as (fleet, workers, _):
        for worker in workers:
            worker.refuses = "no such module"
        assert await fleet.reload(sources("bad")) == "no such module"


async def test_one_that_started_before_a_reload_is_brought_along() -> None:
    async with opened(2, joined=1) as (fleet, workers, talks):
        assert not fleet.complete.is_set()
        assert await fleet.reload(sources("new")) == ""
        assert workers[1].took == []
        assert await fleet.join(2, talks[1], START) == ""
        assert workers[1].took == [{"name": "new"}]
        assert fleet.complete.is_set()


async def test_one_that_cannot_be_brought_along_is_not_one_of_them() -> None:
    async with opened(2, joined=1) as (fleet, workers, talks):
        await fleet.reload(sources("new"))
        workers[1].refuses = "broken since"
        assert await fleet.join(2, talks[1], START) == "broken since"
        assert await fleet.unready() == ["worker 2: it is not running"]


async def test_who_waits_for_what() -> None:
    async with opened(2) as (fleet, workers, _):
        assert await fleet.unready() == []
        for worker in workers:
            worker.unready = ["redis at 127.0.0.1"]
        assert await fleet.unready() == ["redis at 127.0.0.1"]
        workers[1].dead.cancel()
        fleet.ended(2)
        assert await fleet.unready() == ["redis at 127.0.0.1", "worker 2: it is not running"]


@pytest.mark.parametrize("read_before", [True, False])
async def test_counters_do_not_go_back_when_one_ends(read_before: bool) -> None:
    async with opened(2) as (fleet, workers, _):
        workers[0].published, workers[1].published = 5, 7
        if read_before:
            assert await published(fleet) == 12
        workers[1].dead.cancel()
        fleet.ended(2)
        workers[0].published = 6
        assert await published(fleet) == (13 if read_before else 6)  # what nobody has read is not known
