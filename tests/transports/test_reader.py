"""The reader of all sockets: one wall per connection, turns for others, and nothing for who has gone."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

import pytest
import trio

from broker import reader as reader_module
from broker.reader import Reader

pytestmark = pytest.mark.virtual_time(idle=0.01)


class Pair:
    """A `Readable` with one end of a socket pair; the test has the other."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.came = b""
        self.events: list[str] = []
        self.then: Callable[[Pair], None] | None = None

    @property
    def fd(self) -> int:
        return self.theirs.fileno()

    def readable(self) -> None:
        self.events.append("readable")
        if self.then is not None:
            self.then(self)
        self.came += self.theirs.recv(1000)

    def hung_up(self) -> None:
        self.events.append("hung up")
        self.reader.drop(self.fd)

    def crashed(self) -> None:
        self.events.append("crashed")
        self.reader.drop(self.fd)


@asynccontextmanager
async def open_pairs(count: int, *, newcomers: bool = False) -> AsyncIterator[tuple[Reader, list[Pair]]]:
    reader = Reader()
    pairs = [Pair(reader) for _ in range(count)]
    for pair in pairs:
        reader.add(pair.fd, pair, newcomer=newcomers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.run)
        yield reader, pairs
        nursery.cancel_scope.cancel()
    for pair in pairs:
        with closing(pair.ours), closing(pair.theirs):
            pass


async def settled() -> None:
    await trio.sleep(0.001)  # virtual: the kernel had its turn, and every task waits


async def test_everybody_is_read_and_once_per_event() -> None:
    async with open_pairs(300) as (_, pairs):
        for n, pair in enumerate(pairs):
            pair.ours.send(b"%d" % n)
        await settled()
        assert [pair.came for pair in pairs] == [b"%d" % n for n in range(300)]
        assert all(pair.events == ["readable"] for pair in pairs)


async def test_one_that_raises_is_ended_and_the_others_are_read() -> None:
    def fail(_: Pair) -> None:
        raise LookupError

    async with open_pairs(5) as (reader, pairs):
        pairs[2].then = fail
        for pair in pairs:
            pair.ours.send(b"x")
        await settled()
        assert pairs[2].events == ["readable", "crashed"]
        assert [pair.came for pair in pairs] == [b"x", b"x", b"", b"x", b"x"]
        assert len(reader) == 4


async def test_one_that_is_paused_is_not_read_and_its_end_is_noticed() -> None:
    async with open_pairs(2) as (reader, (stays, goes)):
        for pair in (stays, goes):
            reader.pause(pair.fd)
            pair.ours.send(b"x")
        await settled()
        assert (stays.events, goes.events) == ([], [])
        reader.resume(stays.fd)
        goes.ours.close()
        await settled()
        assert (stays.came, goes.events) == (b"x", ["hung up"])


async def test_one_that_another_drops_in_the_same_moment_is_not_read() -> None:
    async with open_pairs(2) as (reader, pairs):
        for pair, other in zip(pairs, reversed(pairs), strict=True):
            pair.then = lambda _, other=other: reader.drop(other.fd)  # type: ignore[misc]
        for pair in pairs:
            pair.ours.send(b"x")
        await settled()
        assert sorted(pair.events for pair in pairs) == [[], ["readable"]]


async def test_others_have_their_turn_in_the_middle_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_BUDGET", 0.0)
    async with open_pairs(50) as (_, pairs):
        for pair in pairs:
            pair.ours.send(b"x")
        seen: list[int] = []
        while not all(pair.came for pair in pairs):
            seen.append(sum(bool(pair.came) for pair in pairs))
            await trio.lowlevel.checkpoint()
        assert len(set(seen)) > 40


@pytest.mark.parametrize("newcomers", [False, True])
async def test_nobody_is_served_twice_while_others_wait(newcomers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has more to say than is read at once, and a turn has time for one of them."""
    monkeypatch.setattr(reader_module, "_BUDGET", 0.0)
    monkeypatch.setattr(reader_module, "_FOR_NEWCOMERS", 0.0)
    async with open_pairs(9, newcomers=newcomers) as (_, pairs):
        for pair in pairs:
            pair.ours.send(bytes(5000))
        while not all(len(pair.events) >= 4 for pair in pairs):
            await trio.lowlevel.checkpoint()
            served = [len(pair.events) for pair in pairs]
            assert max(served) <= min(served) + 1


async def test_one_that_waits_for_the_next_turn_and_is_paused_until_then_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader_module, "_BUDGET", 0.0)
    async with open_pairs(2) as (reader, pairs):
        for pair, other in zip(pairs, reversed(pairs), strict=True):
            pair.then = lambda _, other=other: reader.pause(other.fd)  # type: ignore[misc]
            pair.ours.send(b"x")
        await settled()
        assert sorted(pair.events for pair in pairs) == [[], ["readable"]]


async def test_a_descriptor_that_is_somebody_elses_by_then_is_not_told_of_what_was_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its peer hung up, it was closed, and its number given to a newcomer, all within one batch."""
    monkeypatch.setattr(reader_module, "_BUDGET", 0.0)
    async with open_pairs(2) as (reader, (first, gone)):
        newcomer = Pair(reader)

        def replace(_: Pair) -> None:
            first.then = None
            reader.drop(gone.fd)
            fd = gone.fd
            gone.theirs.close()
            os.dup2(newcomer.theirs.fileno(), fd, inheritable=False)
            newcomer.theirs.close()
            newcomer.theirs = socket.socket(fileno=fd)
            newcomer.theirs.setblocking(False)
            nursery.start_soon(add)

        async def add() -> None:
            reader.add(newcomer.fd, newcomer)

        async with trio.open_nursery() as nursery:
            first.then = replace
            reader.pause(gone.fd)
            first.ours.send(b"x")
            gone.ours.close()
            await settled()
        assert newcomer.events == []
        newcomer.ours.send(b"y")
        await settled()
        assert newcomer.came == b"y"
        newcomer.ours.close()
        newcomer.theirs.close()


async def test_dropping_twice_is_nothing() -> None:
    async with open_pairs(1) as (reader, (pair,)):
        reader.drop(pair.fd)
        reader.drop(pair.fd)
        reader.pause(pair.fd)
        reader.resume(pair.fd)
        pair.ours.send(b"x")
        await settled()
        assert pair.events == []
        assert len(reader) == 0


async def test_it_looks_once_more_before_it_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come while others were served is read in the same turn, within the budget."""
    monkeypatch.setattr(reader_module, "_BUDGET", 60.0)
    async with open_pairs(2) as (_, (first, second)), trio.open_nursery() as nursery:
        read: list[bytes] = []

        async def look() -> None:
            read.append(second.came)

        def more(_: Pair) -> None:
            nursery.start_soon(look)
            second.ours.send(b"y")

        first.then = more
        first.ours.send(b"x")
        await settled()
        assert read == [b"y"]


# ---- newcomers ------------------------------------------------------------------------------------------------------


async def test_a_crowd_of_newcomers_waits_while_others_work_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_MUCH", -1.0)  # whatever others do is much
    monkeypatch.setattr(reader_module, "_PATIENCE", 1e9)
    monkeypatch.setattr(reader_module, "_FOR_NEWCOMERS", 0.0)
    monkeypatch.setattr(reader_module, "_FOR_PATIENCE", 0.0)
    async with open_pairs(40, newcomers=True) as (reader, pairs):
        served = Pair(reader)
        reader.add(served.fd, served)
        for pair in pairs:
            pair.ours.send(b"x")
        for n in range(20):
            served.ours.send(b"y")
            while len(served.came) <= n:
                await trio.lowlevel.checkpoint()
        assert sum(bool(pair.came) for pair in pairs) == 1  # the first of them: nobody knew of a crowd
        monkeypatch.setattr(reader_module, "_PATIENCE", 0.0)
        while not all(pair.came for pair in pairs):
            await trio.lowlevel.checkpoint()
        reader.drop(served.fd)
        with closing(served.ours), closing(served.theirs):
            pass


async def test_newcomers_that_are_no_crowd_wait_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_MUCH", -1.0)
    monkeypatch.setattr(reader_module, "_PATIENCE", 1e9)
    async with open_pairs(3, newcomers=True) as (_, pairs):
        for pair in pairs:
            pair.ours.send(b"x")
            await settled()
        assert [pair.came for pair in pairs] == [b"x"] * 3
