"""Both ends of the line, in one process."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from broker.workers.talk import Gone, Handler, Talk
from tests.support.patience import PATIENCE


@asynccontextmanager
async def two_ends(**handlers: Handler) -> AsyncIterator[tuple[Talk, Talk, trio.Event]]:
    """One that asks, one that answers; the event is set when the second has no more to hear."""
    one, other = (trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in socket.socketpair())
    asks, answers, over = Talk(one, {}), Talk(other, handlers), trio.Event()

    async def answer() -> None:
        await answers.run()
        over.set()
        await other.aclose()  # as the process does that ends

    async with one, other, trio.open_nursery() as nursery:
        nursery.start_soon(asks.run)
        nursery.start_soon(answer)
        with trio.fail_after(PATIENCE):
            yield asks, answers, over
        nursery.cancel_scope.cancel()


async def echo(what: Mapping[str, Any]) -> Mapping[str, Any]:
    return what


async def test_many_questions_at_once_and_each_gets_its_answer() -> None:
    held = trio.Event()

    async def first_last(what: Mapping[str, Any]) -> Mapping[str, Any]:
        if what["n"] == 0:
            await held.wait()
        elif what["n"] == 49:
            held.set()
        return {"n": what["n"], "text": "\n" + "x" * 10_000}

    async with two_ends(q=first_last) as (asks, _, _), trio.open_nursery() as nursery:
        got: list[int] = []

        async def ask(n: int) -> None:
            answer = await asks.ask("q", n=n)
            assert answer == {"n": n, "text": "\n" + "x" * 10_000}
            got.append(n)

        for n in range(50):
            nursery.start_soon(ask, n)
    assert sorted(got) == list(range(50))


async def test_who_loses_patience_harms_nobody() -> None:
    """A line longer than the socket's buffer is given up half sent, and the next one is understood all the same."""
    async with two_ends(q=echo) as (asks, _, _):
        with trio.move_on_after(0) as gave_up:
            await asks.ask("q", text="x" * 5_000_000)
        assert gave_up.cancelled_caught
        assert await asks.ask("q", text="y") == {"text": "y"}


async def test_the_end_is_heard_and_ends_questions() -> None:
    async def never(_: Mapping[str, Any]) -> Mapping[str, Any]:
        await trio.sleep_forever()
        raise AssertionError

    async with two_ends(q=never) as (asks, answers, over):
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(Gone):
                    await asks.ask("q")

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.01)
            asks.end()
            await over.wait()
        with pytest.raises(Gone):
            await asks.ask("q")
        with pytest.raises(Gone):
            await answers.ask("q")


async def test_one_that_died_is_gone() -> None:
    ours, theirs = socket.socketpair()
    async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream, trio.open_nursery() as nursery:
        talk = Talk(stream, {})
        nursery.start_soon(talk.run)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as inner:

                async def ask() -> None:
                    with pytest.raises(Gone):
                        await talk.ask("q")

                inner.start_soon(ask)
                await trio.lowlevel.wait_readable(theirs)
                assert json.loads(theirs.recv(1000))["ask"] == "q"
                theirs.close()
