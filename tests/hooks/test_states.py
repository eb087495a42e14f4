"""Occupied and vacated channels: told in batches, again until acknowledged, and a late one never wins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, final

import pytest
import trio

from broker.hooks import HookError, Hooks, StateEvent
from broker.rules import make_rules
from tests.support.peers import NO_PINGS, WALL, WallClock, configured, open_house, open_leaving_house, secured, token

pytestmark = pytest.mark.virtual_time


@final
class Book:
    """A backend: what it was told, and what it makes of it. While `down` it fails."""

    def __init__(self) -> None:
        self.app = Hooks()
        self.down = False
        self.calls: list[tuple[float, StateEvent]] = []
        self.state: dict[str, tuple[int, str]] = {}
        self.app.on.state("*")(self.note)

    async def note(self, event: StateEvent) -> None:
        self.calls.append((trio.current_time(), event))
        if self.down:
            raise HookError(1000, "not now")
        for state in event.events:
            if state.generation > self.state.get(state.channel, (0, ""))[0]:
                self.state[state.channel] = (state.generation, state.type)

    def said(self) -> list[str]:
        """Everything told since the last time, in short."""
        calls, self.calls = self.calls, []
        return [f"{state.channel} {state.type}" for _, event in calls for state in event.events]


def options(**state: Any) -> dict[str, Any]:
    channel = {"without_namespace": {"allow_subscribe_for_client": True}, "state": state}
    return {**secured(client=NO_PINGS), "channel": channel}


@asynccontextmanager
async def members(book: Book, count: int = 1, **state: Any) -> AsyncIterator[tuple[Any, list[Any]]]:
    async with open_house(options(**state), hooks=book.app) as house:
        yield house, [await house.connected(token=token("42")) for _ in range(count)]


async def test_the_first_occupies_and_the_last_vacates_after_a_while() -> None:
    book = Book()
    async with members(book, 2) as (house, (first, second)):
        await first.ask(subscribe={"channel": "news"})
        began = trio.current_time()
        await trio.sleep(1)
        ((at, event),) = book.calls
        assert at - began == pytest.approx(0.1)
        assert event.node == house.server.node.uid
        (state,) = event.events
        assert (state.channel, state.type) == ("news", "occupied")
        assert abs(state.time_ms - (WALL + began) * 1000) <= 101
        await second.ask(subscribe={"channel": "news"})
        await first.leave()
        await trio.sleep(20)
        assert len(book.calls) == 1
        await second.ask(unsubscribe={"channel": "news"})
        empty = trio.current_time()
        await trio.sleep(20)
        ((at, event),) = book.calls[1:]
        (vacated,) = event.events
        assert (vacated.channel, vacated.type) == ("news", "vacated")
        assert 5 <= at - empty <= 5.3
        assert abs(vacated.time_ms - (WALL + empty) * 1000) <= 101
        assert vacated.generation > state.generation
        assert house.server.context.notices.states._records == {}


async def test_who_comes_back_in_time_was_never_away() -> None:
    book = Book()
    async with members(book) as (_, (client,)):
        for _ in range(3):
            await client.ask(subscribe={"channel": "news"})
            await trio.sleep(4)
            await client.ask(unsubscribe={"channel": "news"})
            await trio.sleep(4)
        assert book.said() == ["news occupied"]
        await trio.sleep(4)
        assert book.said() == ["news vacated"]


async def test_what_happens_together_is_told_together_but_not_too_much_of_it() -> None:
    book = Book()
    async with members(book, batch_max_size=20, batch_max_delay="2s", vacated_event_delay="1ms") as (_, (client,)):
        for number in range(50):
            await client.ask(subscribe={"channel": f"c{number}"})
        await client.ask(unsubscribe={"channel": "c7"})
        await trio.sleep(3)
        assert [len(event.events) for _, event in book.calls] == [20, 20, 9]
        assert len(set(book.said())) == 49
        await client.leave()
        await trio.sleep(6)
        assert sorted(book.state) == sorted(f"c{number}" for number in range(50) if number != 7)
        assert {kind for _, kind in book.state.values()} == {"vacated"}


async def test_it_is_told_until_it_is_acknowledged() -> None:
    """Ever more rarely, for a minute and more; then soon again."""
    book = Book()
    book.down = True
    async with members(book, vacated_event_delay="1ms") as (house, (client,)):
        await client.ask(subscribe={"channel": "news"})
        await trio.sleep(90)
        pauses = [later - sooner for (sooner, _), (later, _) in zip(book.calls, book.calls[1:], strict=False)]
        assert 0.05 <= pauses[0] <= 0.1
        assert all(pause <= 20 for pause in pauses)
        assert max(pauses) > 10
        assert len(book.calls) < 20
        assert {event.events for _, event in book.calls} == {book.calls[0][1].events}
        assert house.server.context.notices.waiting() == {"state": 1}
        book.down = False
        await trio.sleep(20)
        assert book.state["news"][1] == "occupied"
        assert house.server.context.notices.waiting() == {"state": 0}
        book.said()
        await client.ask(unsubscribe={"channel": "news"})
        await trio.sleep(1)
        assert book.said() == ["news vacated"]


async def test_a_backend_that_is_down_costs_no_memory_for_what_came_and_went() -> None:
    book = Book()
    book.down = True
    async with members(book, vacated_event_delay="1ms", batch_max_size=3) as (house, (client,)):
        states = house.server.context.notices.states
        for number in range(300):
            await client.ask(subscribe={"channel": f"c{number}"})
            await trio.sleep(0.3)
            await client.ask(unsubscribe={"channel": f"c{number}"})
            await trio.sleep(0.3)
        assert len(states._records) == states.owed <= 4  # those that it may have heard of, for all we know
        book.down = False
        await trio.sleep(30)
        assert {kind for _, kind in book.state.values()} <= {"vacated"}
        assert states._records == {}


async def test_a_late_event_has_the_lower_generation(error_log: Any) -> None:
    """A backend that takes its time may carry a call out after the next one was answered."""
    error_log.expect("no answer within 1 s")
    app = Hooks()
    done: list[tuple[int, str]] = []

    @app.on.state("*", timeout=1)
    async def note(event: StateEvent) -> None:
        (state,) = event.events
        if not done and state.type == "occupied":
            nursery.start_soon(late, state)
            await trio.sleep_forever()
        done.append((state.generation, state.type))

    async def late(state: Any) -> None:
        await trio.sleep(10)
        done.append((state.generation, state.type))

    async with (
        trio.open_nursery() as nursery,
        open_house(options(vacated_event_delay="1ms"), hooks=app) as house,
    ):
        client = await house.connected(token=token("42"))
        await client.ask(subscribe={"channel": "news"})
        await trio.sleep(0.5)
        await client.ask(unsubscribe={"channel": "news"})
        await trio.sleep(20)
        assert [kind for _, kind in done] == ["vacated", "occupied"]
        assert max(done)[1] == "vacated"


async def test_generations_grow_over_restarts() -> None:
    book = Book()
    for _ in range(2):
        async with members(book, vacated_event_delay="1ms") as (_, (client,)):
            await client.ask(subscribe={"channel": "news"})
            await trio.sleep(1)
    generations = [state.generation for _, event in book.calls for state in event.events]
    assert book.said() == ["news occupied", "news vacated"] * 2
    assert generations == sorted(set(generations))
    assert max(generations) < 2**53


async def test_at_the_end_of_the_server_every_channel_is_vacated() -> None:
    book = Book()
    async with open_leaving_house(options(), book.app) as house:
        for number in range(3):
            client = await house.connected(token=token("42"))
            await client.ask(subscribe={"channel": f"c{number}"})
        await trio.sleep(1)
        assert len(book.said()) == 3
    assert {channel: kind for channel, (_, kind) in book.state.items()} == dict.fromkeys(["c0", "c1", "c2"], "vacated")


async def test_the_end_of_the_server_does_not_wait_for_ever() -> None:
    book = Book()
    book.down = True
    async with open_leaving_house({**options(), "shutdown": {"timeout": "8s"}}, book.app) as house:
        client = await house.connected(token=token("42"))
        await client.ask(subscribe={"channel": "news"})
        await trio.sleep(30)
        await client.leave()
        counters = house.server.node.counters
        ending = trio.current_time()
    assert 2 <= trio.current_time() - ending <= 2.1
    assert counters.events_dropped["state", "shutdown"] == 1
    late = [event.events[0].type for at, event in book.calls if at > ending]
    assert len(late) >= 4  # not once every 20 s any more
    assert late[-1] == "vacated"


async def test_a_reload_changes_which_channels_are_told() -> None:
    book, other = Book(), Book()
    book.app.functions.clear()
    book.app.on.state("news")(book.note)
    async with members(book) as (house, (client,)):
        for channel in ("news", "chat"):
            await client.ask(subscribe={"channel": channel})
        await trio.sleep(1)
        assert book.said() == ["news occupied"]
        counters = house.server.node.counters
        house.server.reload(make_rules(configured(options()), counters, house.server.stage, WallClock(), book.app))
        await trio.sleep(1)
        assert book.said() == ["news occupied"]  # new code of the same hooks may have forgotten it
        house.server.reload(make_rules(configured(options()), counters, house.server.stage, WallClock(), other.app))
        await trio.sleep(1)
        assert sorted(other.said()) == ["chat occupied", "news occupied"]
        house.server.reload(make_rules(configured(options()), counters, house.server.stage, WallClock()))
        await client.leave()
        await trio.sleep(10)
        assert book.said() == other.said() == []
        assert house.server.context.notices.states._records == {}


async def test_thousands_at_once_hold_nobody_up() -> None:
    book = Book()
    async with members(book, 20, vacated_event_delay="1s") as (house, clients):
        for at, client in enumerate(clients):
            await client.frame(*({"subscribe": {"channel": f"c{at}-{number}"}} for number in range(100)))
        await trio.sleep(0.3)
        assert len(book.state) == 2000
        for client in clients:
            await client.leave()
        await trio.sleep(3)
        assert {kind for _, kind in book.state.values()} == {"vacated"}
        assert len(book.calls) == 4
        assert house.server.context.notices.states._records == {}
