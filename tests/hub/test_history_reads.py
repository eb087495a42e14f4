"""Reads of history that many share: who asks meanwhile gets the next one, never one that began before they asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from broker.hub import EngineUnavailable, HistoryPage, HistoryQuery, UnrecoverablePosition
from broker.hub.history_reads import HistoryReads
from broker.observe import Counters
from broker.protocol import Publication, StreamPosition
from tests.support.peers import open_house, options
from tests.support.slow_engine import Gates

pytestmark = pytest.mark.virtual_time

STREAM = {"history_size": 500, "history_ttl": "60s", "force_recovery": True}
Outcome = Callable[[], Awaitable[HistoryPage]]


class Books:
    """A broker of which only `history` is asked: calls are answered by the test, one after another."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, HistoryQuery, float]] = []
        self._answers, self._answered = trio.open_memory_channel[HistoryPage | Exception](0)

    async def history(self, *read: Any) -> HistoryPage:
        self.asked.append(read)
        answer = await self._answered.receive()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def answer(self, answer: HistoryPage | Exception) -> None:
        await self._answers.send(answer)
        await trio.testing.wait_all_tasks_blocked()


class Readers:
    """Everybody who asks, in order, and what they got."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.books = Books()
        self.counters = Counters()
        self.reads = HistoryReads(self.books, self.counters, nursery.start_soon)  # type: ignore[arg-type]
        self.got: dict[str, HistoryPage | Exception] = {}

    async def ask(self, name: str, offset: int = 0) -> trio.CancelScope:
        scope = trio.CancelScope()

        async def ask() -> None:
            with scope:
                try:
                    self.got[name] = await self.reads.history("chat", HistoryQuery(10, StreamPosition(offset)), 5)
                except Exception as error:
                    self.got[name] = error

        self.nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        return scope


def page(offset: int) -> HistoryPage:
    return HistoryPage((Publication(b"1", offset=offset),), StreamPosition(offset, "e"))


async def test_who_asks_while_it_is_read_gets_the_next_read(nursery: trio.Nursery) -> None:
    readers = Readers(nursery)
    for name in ("a", "b", "c"):
        await readers.ask(name)
    assert len(readers.books.asked) == 1
    await readers.books.answer(page(1))
    assert readers.got == {"a": page(1)}, "the others asked after it had begun"
    assert len(readers.books.asked) == 2
    await readers.ask("d")
    await readers.books.answer(page(2))
    assert readers.got == {"a": page(1), "b": page(2), "c": page(2)}
    await readers.books.answer(page(3))
    assert readers.got["d"] == page(3)
    assert readers.counters.actions["history_shared"] == 3
    await readers.ask("e")
    assert len(readers.books.asked) == 4, "nothing is remembered"
    await readers.books.answer(page(4))
    assert readers.reads._next == {}


async def test_other_questions_are_asked_by_themselves(nursery: trio.Nursery) -> None:
    readers = Readers(nursery)
    await readers.ask("a", offset=1)
    await readers.ask("b", offset=2)
    assert len(readers.books.asked) == 2
    for n in (1, 2):
        await readers.books.answer(page(n))
    assert set(readers.got) == {"a", "b"}
    assert readers.reads._next == {}


@pytest.mark.parametrize("who", ["the first", "one of the others"])
async def test_who_goes_takes_nobody_along(nursery: trio.Nursery, who: str) -> None:
    readers = Readers(nursery)
    first = await readers.ask("a")
    goes = await readers.ask("b")
    await readers.ask("c")
    if who == "the first":
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert len(readers.books.asked) == 2
        await readers.books.answer(page(1))
        assert readers.got == {"b": page(1), "c": page(1)}
    else:
        goes.cancel()
        await readers.books.answer(page(1))
        await readers.books.answer(page(2))
        assert readers.got == {"a": page(1), "c": page(2)}
    assert readers.reads._next == {}


async def test_an_engine_that_is_away_keeps_nobody_waiting(nursery: trio.Nursery) -> None:
    """A read that failed fails those who wait for the next one: one call has a deadline, and so has everybody."""
    readers = Readers(nursery)
    for name in ("a", "b", "c"):
        await readers.ask(name)
    await readers.books.answer(EngineUnavailable("away"))
    assert {name: str(error) for name, error in readers.got.items()} == dict.fromkeys("abc", "away")
    assert len({id(error) for error in readers.got.values()}) == 3
    assert readers.reads._next == {}
    for name in ("d", "e", "f"):
        await readers.ask(name)
    await readers.books.answer(page(1))
    await readers.ask("g")
    await readers.books.answer(EngineUnavailable("away"))
    assert [type(readers.got[name]) for name in "defg"] == [HistoryPage, *3 * [EngineUnavailable]]
    assert readers.reads._next == {}


async def test_a_position_that_is_refused_is_refused_to_all_who_ask(nursery: trio.Nursery) -> None:
    readers = Readers(nursery)
    for name in ("a", "b"):
        await readers.ask(name)
    await readers.books.answer(UnrecoverablePosition())
    assert set(readers.got) == {"a"}, "an answer like another: it was given before the other one asked"
    await readers.ask("c")
    await readers.books.answer(UnrecoverablePosition())
    await readers.books.answer(page(1))
    assert [type(readers.got[name]) for name in "abc"] == [UnrecoverablePosition, UnrecoverablePosition, HistoryPage]


async def test_who_comes_back_gets_what_was_confirmed_before_it_asked() -> None:
    """The read that is under way has been carried out, and its answer is late; then somebody publishes, is told the
    offset, and only then the next client comes: it must not be given what was read before."""
    gates = Gates()
    async with open_house(options(STREAM), pace=gates) as house:
        epoch = (await house.api("publish", channel="chat", data=1))["result"]["epoch"]
        first, late = await house.connected(), await house.connected()
        back = {"channel": "chat", "recover": True, "epoch": epoch, "offset": 1}
        gates.hold("history done")
        await first.command(subscribe=back)
        await gates.wait_until_held("history done")
        assert (await house.api("publish", channel="chat", data=2))["result"]["offset"] == 2
        await late.command(subscribe=back)
        await late.nothing()
        gates.open("history done")
        for client in (first, late):
            result = (await client.next())["subscribe"]
            assert (result["recovered"], [pub["offset"] for pub in result["publications"]]) == (True, [2])
        await house.api("publish", channel="chat", data=3)
        assert [(await client.push())["pub"]["offset"] for client in (first, late)] == [3, 3]


async def test_a_crowd_that_comes_back_costs_two_reads() -> None:
    gates = Gates()
    async with open_house(options(STREAM), pace=gates) as house:
        epoch = ""
        for n in range(1, 5):
            epoch = (await house.api("publish", channel="chat", data=n))["result"]["epoch"]
        crowd = [await house.connected() for _ in range(200)]
        broker = house.server.node._broker
        read: list[int] = []
        ask = broker.history

        async def counted(*args: Any) -> HistoryPage:
            read.append(1)
            return await ask(*args)

        broker.history = counted  # type: ignore[method-assign]
        gates.hold("history")
        for client in crowd:
            await client.command(subscribe={"channel": "chat", "recover": True, "epoch": epoch, "offset": 2})
        await gates.wait_until_held("history")
        await house.api("publish", channel="chat", data=5)
        gates.open("history")
        for client in crowd:
            result = (await client.next())["subscribe"]
            assert (result["recovered"], [pub["offset"] for pub in result["publications"]]) == (True, [3, 4, 5])
        await house.api("publish", channel="chat", data=6)
        assert {(await client.push())["pub"]["offset"] for client in crowd} == {6}
        assert len(read) == 2
        assert house.server.node.counters.actions["history_shared"] == 199
        gone = crowd[:100]
        gates.hold("history")
        for client in crowd:
            await client.ask(unsubscribe={"channel": "chat"})
            await client.command(subscribe={"channel": "chat", "recover": True, "epoch": epoch, "offset": 5})
        await gates.wait_until_held("history")
        for client in gone:  # while they wait for the read of another
            await client.leave()
        gates.open("history")
        for client in crowd[100:]:
            assert (await client.next())["subscribe"]["recovered"]


async def test_an_engine_that_never_waits_is_asked_directly() -> None:
    async with open_house(options(STREAM)) as house:
        node = house.server.node
        assert node._history == node._broker.history
