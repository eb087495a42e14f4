"""After a break in what an engine delivers, whoever is behind is told, and nobody else."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from broker.hub import Channel, EngineUnavailable, HistoryPage, HistoryQuery
from broker.hub.backlog import Backlog
from broker.hub.positions import PositionChecks
from broker.protocol import Publication, StreamPosition
from tests.support.listeners import Listener

pytestmark = pytest.mark.virtual_time


class Engine:
    """A broker that only tells tops. `away`: so many questions fail first."""

    def __init__(self, **tops: int) -> None:
        self.tops = tops
        self.away = 0
        self.asked: list[str] = []
        self.most = self._under_way = 0

    async def history(self, channel: str, query: HistoryQuery, meta_ttl: float) -> HistoryPage:
        self.asked.append(channel)
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        await trio.sleep(0.01)
        self._under_way -= 1
        if self.away:
            self.away -= 1
            raise EngineUnavailable("away")
        return HistoryPage((), StreamPosition(self.tops[channel], "e"))


class Hall:
    def __init__(self, engine: Engine, nursery: trio.Nursery) -> None:
        self.engine = engine
        self.channels = {name: Channel(name, nursery.start_soon, Backlog()) for name in engine.tops}

    def holder(self, name: str, offset: int) -> Listener:
        listener = Listener().prepare(self.channels[name], positioned=True).go_live(StreamPosition(offset, "e"))
        self.channels[name].top = StreamPosition(offset, "e")
        return listener

    async def check(self, *names: str) -> None:
        """Ten seconds, in which these channels (all of them) are checked."""
        broker: Any = self.engine
        checks = PositionChecks(self.channels.get, broker)
        checks.add(names or list(self.channels))
        with trio.move_on_after(10):
            await checks.run()


@pytest.fixture
def hall(nursery: trio.Nursery) -> Any:
    return lambda **tops: Hall(Engine(**tops), nursery)


async def test_who_is_behind_is_told_and_nobody_else(hall: Any) -> None:
    there = hall(a=5, b=5, c=5)
    knows, behind, plain = there.holder("a", 5), there.holder("b", 4), Listener().prepare(there.channels["c"]).go_live()
    await there.check()
    assert (knows.lost_in, behind.lost_in, plain.lost_in) == ([], ["b"], [])


async def test_what_is_still_on_its_way_is_waited_for(hall: Any) -> None:
    there = hall(a=5)
    holder = there.holder("a", 4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(there.check)
        await trio.sleep(0.5)
        there.channels["a"].push_publication(Publication(b"5", offset=5), "e", None)
    assert holder.lost_in == []


async def test_an_engine_that_is_away_is_asked_again(hall: Any) -> None:
    there = hall(a=5)
    there.engine.away = 3
    holder = there.holder("a", 4)
    await there.check()
    assert (holder.lost_in, len(there.engine.asked)) == (["a"], 4)


async def test_who_is_being_prepared_is_checked_afterwards(hall: Any) -> None:
    there = hall(a=5)
    late = Listener().prepare(there.channels["a"], positioned=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(there.check)
        await trio.sleep(2)
        late.go_live(StreamPosition(4, "e"))
        there.channels["a"].top = StreamPosition(4, "e")
    assert late.lost_in == ["a"]


async def test_a_channel_that_is_gone_is_not_asked_about_and_few_are_asked_at_once(hall: Any) -> None:
    there = hall(**{f"c{n}": 1 for n in range(500)})
    for name in there.channels:
        there.holder(name, 1)
    del there.channels["c7"]
    await there.check(*(f"c{n}" for n in range(500)))
    assert "c7" not in there.engine.asked
    assert len(there.engine.asked) == 499
    assert there.engine.most <= 64
