"""One read of history for all who ask the same while the engine is busy with it.

When a node or Redis comes back, thousands of clients ask for the same channel from the same position. Who asks alone
reads alone. Who asks what is being read already takes a seat in the *next* read, which begins when that one has ended:
so nobody is given what was read before they asked, and a publication that was confirmed before somebody asked is in
their page, as if they had read by themselves (docs/adr/0029).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, final

import trio

from broker.eager import Promise
from broker.hub.ports import Broker, EngineUnavailable, HistoryPage, HistoryQuery
from broker.observe import Counters

__all__ = ["HistoryReads"]

_SEATED_AT_ONCE: Final = 64
"""Answers handed out between two checkpoints: who is answered goes on at once, and sends some hundred bytes."""

Read = tuple[str, HistoryQuery, float]
Seat = Promise[HistoryPage]
Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


@final
class HistoryReads:
    """Reads of an engine that has to be waited for. `_next` has an entry for every read that is under way: the seats of
    the one after it. Who takes a seat is counted as the action `history_shared`."""

    def __init__(self, broker: Broker, counters: Counters, spawn: Spawn) -> None:
        self._broker = broker
        self._counters = counters
        self._spawn = spawn
        self._next: dict[Read, list[Seat]] = {}

    async def history(self, channel: str, query: HistoryQuery, meta_ttl: float) -> HistoryPage:
        """`Broker.history`. The publications of a page belong to all who got it: nobody changes them.

        A read that fails fails also those who wait for the next one: nobody waits longer than one call may take.
        """
        read = (channel, query, meta_ttl)
        seats = self._next.get(read)
        if seats is not None:
            self._counters.actions["history_shared"] += 1
            seat = Seat()
            seats.append(seat)
            return await seat.wait()
        self._next[read] = []
        try:
            page = await self._broker.history(channel, query, meta_ttl)
        except EngineUnavailable as error:
            _fail(self._next.pop(read), error)
            raise
        except BaseException:
            self._go_on(read)
            raise
        self._go_on(read)
        return page

    def _go_on(self, read: Read) -> None:
        """One has ended, for whoever asked first: the others still want theirs."""
        if self._next[read]:
            self._spawn(lambda: self._read_for_all(read))
        else:
            del self._next[read]

    async def _read_for_all(self, read: Read) -> None:
        """A task of the hub, for as long as somebody asks."""
        while seats := self._next[read]:
            self._next[read] = []
            try:
                page = await self._broker.history(*read)
            except EngineUnavailable as error:
                _fail(seats + self._next.pop(read), error)
                return
            except Exception as error:  # for those who wait: what clients ask for must not end them all
                _fail(seats, error)
                continue
            for number, seat in enumerate(seats, 1):
                seat.settle(page)
                if number % _SEATED_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
        del self._next[read]


def _fail(seats: list[Seat], error: Exception) -> None:
    """Each gets an error of its own: one that is raised in many places collects all their tracebacks."""
    for seat in seats:
        seat.fail(type(error)(*error.args))
