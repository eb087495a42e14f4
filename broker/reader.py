"""One reader for all TCP connections, of clients and to backends: an epoll set of our own, nested in Trio's.

Level-triggered, so nothing is re-armed and nothing is read on suspicion: one `recv` per event, and the bytes go
straight into the connection's `feed`, with no task woken. Measured against a task per connection in
docs/adr/0002-one-reader.md.

Who has only just come waits behind the others: newcomers are in a second set, which is served a little in each turn of
the first, however many there are at once (docs/adr/0016-answers-without-a-task.md).
"""

from __future__ import annotations

import select
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Final, Protocol, final

import trio

__all__ = ["HAS_EPOLL", "Readable", "Reader", "Stage", "TaskReader", "open_stage"]

HAS_EPOLL: Final = hasattr(select, "epoll")
_BUDGET = 0.002
"""Seconds of work before other tasks get a turn, also in the middle of a batch."""
_BATCH = 256
_FOR_NEWCOMERS = 0.0005
"""Seconds of work for newcomers in a turn; what one of them asks for may take longer."""
_MUCH = 0.0005
"""Seconds that other tasks take between two turns from which on a crowd of newcomers waits: a channel is told, say."""
_PATIENCE = 0.010
"""Seconds that it waits at most, ..."""
_FOR_PATIENCE = 0.0015
"""... and seconds of work that it gets then: of a server that is always busy, an eighth of the time."""
_NEWCOMERS = 16
"""How many of them are looked at in a turn."""


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


def _nothing() -> None:
    """What there is to do where nobody wants anything."""


@final
class _Nothing:
    """The turn while nobody else has one."""

    def begin(self) -> None:
        pass

    def end(self) -> None:
        pass


@final
class _Line:
    """An epoll set, and who has been reported by it and not served: `left`, last one first. They come before anybody
    else, also before those who were served meanwhile and have more to say."""

    __slots__ = ("_most", "epoll", "left")

    def __init__(self, most: int) -> None:
        self.epoll = select.epoll()
        self.left: dict[int, int] = {}
        self._most = most

    def look(self) -> dict[int, int]:
        """Descriptor -> its events, of those who are to be served now."""
        if not self.left:
            self.left = dict(reversed(self.epoll.poll(0, self._most)))
        return self.left


@final
class Reader:
    """Reads for everybody who is added. `run` lives in the reader's stage. There is no await within a `turn`."""

    __slots__ = (
        "_crowd",
        "_line",
        "_newcomers",
        "_paused",
        "_readables",
        "_rested",
        "_served",
        "_waiting",
        "after",
        "reading",
        "turn",
    )

    def __init__(self) -> None:
        self.turn: Turn = _Nothing()
        self.after: Callable[[], None] = _nothing  # each turn
        self.reading = False
        self._line = _Line(_BATCH)
        self._waiting = _Line(_NEWCOMERS)
        self._line.epoll.register(self._waiting.epoll.fileno(), select.EPOLLIN)
        self._readables: dict[int, Readable] = {}
        self._newcomers: set[int] = set()
        self._paused: dict[int, bool] = {}  # and whether the kernel has been told
        self._crowd = False  # whether some newcomers had to wait when others had been served
        self._rested = 0.0  # when the last turn was over
        self._served = 0.0  # when newcomers had their part last

    def __len__(self) -> int:
        return len(self._readables)

    def add(self, fd: int, readable: Readable, *, newcomer: bool = False) -> None:
        self._readables[fd] = readable
        if newcomer:
            self._newcomers.add(fd)
        self._line_of(fd).epoll.register(fd, select.EPOLLIN)

    def admit(self, fd: int) -> None:
        """A newcomer is one of the others from now on. Idempotent; not while it is paused."""
        if fd in self._newcomers:
            self._waiting.epoll.unregister(fd)
            self._waiting.left.pop(fd, None)
            self._newcomers.discard(fd)
            self._line.epoll.register(fd, select.EPOLLIN)
            if fd in self._paused:
                self._paused[fd] = False

    def drop(self, fd: int) -> None:
        """Forget a descriptor: before it is closed. Idempotent."""
        if self._readables.pop(fd, None) is not None:
            line = self._line_of(fd)
            line.epoll.unregister(fd)
            line.left.pop(fd, None)  # by the next turn it may be somebody else's
            self._newcomers.discard(fd)
            self._paused.pop(fd, None)

    def pause(self, fd: int) -> None:
        """Read nothing from it, but notice when its peer hangs up. Most pauses are over before anything has come, so
        the kernel is told when something has."""
        if fd in self._readables:
            self._paused.setdefault(fd, False)
            self._line_of(fd).left.pop(fd, None)

    def resume(self, fd: int) -> None:
        if self._paused.pop(fd, False):
            self._line_of(fd).epoll.modify(fd, select.EPOLLIN)

    def _line_of(self, fd: int) -> _Line:
        return self._waiting if fd in self._newcomers else self._line

    async def run(self) -> None:
        """Read for ever."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._line.epoll.fileno())
                end = perf_counter() + _BUDGET
                while (done := self._take_turn(end)) and self._rested < end and self._more():
                    pass
                if not done:
                    await trio.lowlevel.checkpoint()
        finally:
            self._line.epoll.close()
            self._waiting.epoll.close()

    def _take_turn(self, end: float) -> bool:
        turn = self.turn
        self.reading = True
        turn.begin()
        try:
            return self._read(end)
        finally:
            turn.end()
            self.after()
            self.reading = False
            self._rested = perf_counter()

    def _more(self) -> bool:
        """Whether there is more to read at once: to come here by way of Trio costs as much as two requests. Never for a
        crowd of newcomers (docs/adr/0028-the-reader-looks-again.md)."""
        return not self._crowd and bool(self._line.look())

    def _read(self, end: float) -> bool:
        """What was reported at once. False if the time was over before everybody was read."""
        newcomers = self._waiting.epoll.fileno()
        begin = perf_counter()
        left = self._line.look()
        while left:
            fd, events = left.popitem()
            if fd == newcomers:
                self._serve_newcomers(begin)
            else:
                self._serve(fd, events)
            if perf_counter() > end:
                return not left
        return True

    def _serve_newcomers(self, begin: float) -> None:
        """A part of a turn that has begun then. None of it is a crowd's while others have much to do, unless it has had
        none for long.

        While a crowd waits nobody sleeps between two turns, so the time between them is what others have worked.
        """
        share = _FOR_NEWCOMERS
        if self._crowd and begin - self._rested > _MUCH:
            if begin - self._served < _PATIENCE:
                return
            share = _FOR_PATIENCE
        end = perf_counter() + share
        self._crowd = bool(self._waiting.left)
        left = self._waiting.look()
        self._crowd = self._crowd or len(left) == _NEWCOMERS
        while left:
            self._serve(*left.popitem())
            self._served = perf_counter()
            if self._served > end:
                self._crowd = self._crowd or bool(left)
                return
            if not left and share == _FOR_PATIENCE:
                left = self._waiting.look()

    def _serve(self, fd: int, events: int) -> None:
        readable = self._readables[fd]
        try:
            if fd in self._paused and events & select.EPOLLIN and not self._paused[fd]:
                self._paused[fd] = True
                self._line_of(fd).epoll.modify(fd, select.EPOLLRDHUP)
            elif events & select.EPOLLIN:
                readable.readable()
            else:
                readable.hung_up()
        except Exception:  # the wall of a connection: see Connection.crashed
            readable.crashed()


@final
class TaskReader:
    """The same for connections to backends where there is no epoll: a task for each."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._scopes: dict[int, trio.CancelScope] = {}

    def add(self, fd: int, readable: Readable, *, newcomer: bool = False) -> None:
        scope = self._scopes[fd] = trio.CancelScope()
        self._nursery.start_soon(self._read, fd, readable, scope)

    def drop(self, fd: int) -> None:
        """Forget a descriptor: before it is closed. Idempotent."""
        scope = self._scopes.pop(fd, None)
        if scope is not None:
            scope.cancel()
            trio.lowlevel.notify_closing(fd)

    async def _read(self, fd: int, readable: Readable, scope: trio.CancelScope) -> None:
        with scope:
            while not scope.cancel_called:
                try:
                    await trio.lowlevel.wait_readable(fd)
                except (trio.ClosedResourceError, OSError):
                    return
                if scope.cancel_called:
                    return
                try:
                    readable.readable()
                except Exception:
                    readable.crashed()


@final
class Stage:
    """The outermost stage of a server: what reads for it, and where what belongs to no single client has its tasks."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.reader: Reader | TaskReader = Reader() if HAS_EPOLL else TaskReader(nursery)
        self._soon: list[Callable[[], None]] = []
        self._wake = trio.Event()
        if isinstance(self.reader, Reader):
            self.reader.after = self._do_what_waits

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task that has a deadline of its own."""
        self._nursery.start_soon(task)

    def soon(self, work: Callable[[], None]) -> None:
        """Call `work`, which does not raise, once for all who are at it now: at the end of the reader's turn, or when
        the tasks that run now have had theirs."""
        if not self._soon and not (isinstance(self.reader, Reader) and self.reader.reading):
            self._wake.set()
        self._soon.append(work)

    def _do_what_waits(self) -> None:
        while self._soon:  # some of it makes more
            works, self._soon = self._soon, []
            for work in works:
                work()

    async def run(self) -> None:
        """Do what is to be done soon, for ever."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            self._do_what_waits()


@asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    """Reads for as long as the block lives."""
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery)
        nursery.start_soon(stage.run, name="soon")
        if isinstance(stage.reader, Reader):
            nursery.start_soon(stage.reader.run, name="reader")
        try:
            yield stage
        finally:
            nursery.cancel_scope.cancel()
