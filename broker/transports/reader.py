"""One reader for all TCP connections: an epoll set of our own, nested in Trio's.

Level-triggered, so nothing is re-armed and nothing is read on suspicion: one `recv` per event, and the bytes go
straight into the connection's `feed`, with no task woken. Measured against a task per connection in
docs/adr/0002-one-reader.md.
"""

from __future__ import annotations

import select
from time import perf_counter
from typing import Protocol, final

import trio

__all__ = ["Readable", "Reader"]

_BUDGET = 0.002
"""Seconds of work before other tasks get a turn, also in the middle of a batch."""
_BATCH = 256


class Turn(Protocol):
    """What has to be done around everything that is read at once."""

    def begin(self) -> None: ...

    def end(self) -> None: ...


class Readable(Protocol):
    """Something with a descriptor that has become readable."""

    def readable(self) -> None:
        """Read once and handle what came."""

    def hung_up(self) -> None:
        """The peer is gone; called for paused ones too."""

    def crashed(self) -> None:
        """`readable` raised: the caller is in its `except`. End this one, and this one only."""


@final
class Reader:
    """Reads for everybody who is added. `run` lives in the door stage. There is no await within a `turn`."""

    __slots__ = ("_epoll", "_readables", "_turn")

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._epoll = select.epoll()
        self._readables: dict[int, Readable] = {}

    def __len__(self) -> int:
        return len(self._readables)

    def add(self, fd: int, readable: Readable) -> None:
        self._readables[fd] = readable
        self._epoll.register(fd, select.EPOLLIN)

    def drop(self, fd: int) -> None:
        """Forget a descriptor: before it is closed. Idempotent."""
        if self._readables.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def pause(self, fd: int) -> None:
        """Read nothing from it, but notice when its peer hangs up."""
        if fd in self._readables:
            self._epoll.modify(fd, select.EPOLLRDHUP)

    def resume(self, fd: int) -> None:
        if fd in self._readables:
            self._epoll.modify(fd, select.EPOLLIN)

    async def run(self) -> None:
        """Read for ever."""
        turn = self._turn
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                turn.begin()
                try:
                    done = self._read()
                finally:
                    turn.end()
                if not done:
                    await trio.lowlevel.checkpoint()
        finally:
            self._epoll.close()

    def _read(self) -> bool:
        """One turn. False if its time was over before everybody was read."""
        readables = self._readables
        end = perf_counter() + _BUDGET
        for fd, events in self._epoll.poll(0, _BATCH):
            readable = readables.get(fd)
            if readable is None:
                continue  # dropped by an earlier one of this batch
            try:
                if events & select.EPOLLIN:
                    readable.readable()
                else:
                    readable.hung_up()
            except Exception:  # the wall of a connection: see Connection.crashed
                readable.crashed()
            if perf_counter() > end:
                return False  # the rest is asked for again: a descriptor may be somebody else's by then
        return True
