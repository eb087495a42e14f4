"""Handlers that start at once in the reader, and move to a task of their own before the first wait.

Every handler is one `async def`. `begin` runs it on the spot; most finish without waiting. Whoever is about
to wait says `await own_task()` first: inside `begin` that hands the half-run coroutine back, to be finished by
`go_on` in a task of its connection's nursery; anywhere else it does nothing.

Before `own_task()` a handler must not open a cancel scope or a nursery: those belong to the task that entered
them. A wait without `own_task()` is a programming error, raised as `WaitedInReader`.

One kind of wait needs no task: that for a `Promise`, which somebody else settles. `begin` hands it back, and whoever
drives the coroutine calls `begin` again when it is settled.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import Any, Generic, NoReturn, TypeVar

import trio

T = TypeVar("T")

_MOVE = object()
_eager = False


class WaitedInReader(RuntimeError):
    """A handler waited without saying `await own_task()` first. Ends its connection, fails the tests."""


class Promise(Generic[T]):
    """Something that will come, or fail, once; one coroutine waits for it."""

    __slots__ = ("_error", "_result", "_wake", "settled")

    def __init__(self) -> None:
        self.settled = False
        self._result: T | None = None
        self._error: Exception | None = None
        self._wake: Callable[[], object] | None = None

    def settle(self, result: T) -> None:
        """It has come. Who waits goes on within this call, or soon; once it is settled, nothing changes it."""
        if not self.settled:
            self._result = result
            self._end()

    def fail(self, error: Exception) -> None:
        """It will not come, and why: raised where it is waited for."""
        if not self.settled:
            self._error = error
            self._end()

    def _end(self) -> None:
        self.settled = True
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def when_settled(self, wake: Callable[[], object] | None) -> None:
        """For whoever drives the coroutine that waits: what to call then; None to call nothing."""
        self._wake = wake

    def give_up(self) -> None:
        """Nobody waits any more: its task was cancelled."""

    @types.coroutine
    def wait(self) -> Generator[Any, Any, T]:
        """Wait for it; without a task, where `begin` runs this.

        Raises:
            Exception: the one it failed with.
        """
        while not self.settled:
            if _eager:
                yield self
            else:
                yield from self._wait_in_task()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    async def _wait_in_task(self) -> None:
        task = trio.lowlevel.current_task()
        self._wake = lambda: trio.lowlevel.reschedule(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._wake = None
            self.give_up()
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)


class Gate:
    """What any number of coroutines wait for, with or without a task, until it opens, once."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Promise[None]] | None = []

    def open(self) -> None:
        """Let everybody in, in the order in which they came."""
        waiting, self._waiting = self._waiting, None
        for promise in waiting or ():
            promise.settle(None)

    async def wait(self) -> None:
        """Wait until it is open."""
        if self._waiting is not None:
            promise = Promise[None]()
            self._waiting.append(promise)
            await promise.wait()


@types.coroutine
def own_task() -> Generator[Any, Any, None]:
    """Say this before anything that may wait. Where the coroutine already has a task, it is a no-op."""
    if _eager:
        yield _MOVE


def begin(coro: Coroutine[Any, Any, T]) -> tuple[bool, T | Promise[Any] | None]:
    """Run `coro` until it ends, asks for a task of its own, or waits for a promise; from there on, if it has begun.

    Returns:
        `(True, result)` when it has ended, `(False, None)` when it waits for `go_on`, and `(False, promise)` when it
        waits for that: to be called again when it is settled. `go_on` will do there, too.

    Raises:
        WaitedInReader: it waited without `own_task()`; it has been ended.
    """
    global _eager
    outer, _eager = _eager, True
    try:
        trap = coro.send(None)
    except StopIteration as end:
        return True, end.value
    finally:
        _eager = outer
    if trap is _MOVE:
        return False, None
    if isinstance(trap, Promise):
        return False, trap
    _give_up(coro, trap)


def _give_up(coro: Coroutine[Any, Any, object], trap: Any) -> NoReturn:
    """End a coroutine that waits. Its error is raised where it waits, so that the traceback tells the place."""
    error: BaseException = WaitedInReader(f"{getattr(coro, '__qualname__', coro)!s} waited without own_task()")
    raised = error

    def cancel() -> NoReturn:
        raise error

    while True:
        # Trio believes that the reader's task waits for whatever this was, and would wake it: take that back first
        abort = getattr(trap, "abort_func", None)
        if abort is not None:
            abort(cancel)
        try:
            trap = coro.throw(raised)
        except (StopIteration, GeneratorExit):
            raise error from None
        raised = GeneratorExit()  # it waits in its clean-up


async def in_order(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Begin each when the one before has ended or waits for a promise, and give the results of all, in their order.

    One that needs a task of its own is finished before the next one begins. If one raises, or this is cancelled, those
    that have begun are closed where they wait.
    """
    results: list[T] = []
    begun: deque[tuple[bool, Any]] = deque()
    try:
        for work in works:
            done, result = begin(work)
            begun.append((done, result if done else work))
            if not done and result is None:
                await own_task()
                await _finish(begun, results)
        await _finish(begun, results)
    finally:
        for done, work in begun:
            if not done:
                work.close()
    return results


async def _finish(begun: deque[tuple[bool, Any]], results: list[T]) -> None:
    while begun:
        done, what = begun[0]
        result = what if done else await go_on(what)
        begun.popleft()
        results.append(result)


async def go_on(coro: Coroutine[Any, Any, T]) -> T:
    """Finish in this task what `begin` left half run."""
    return await _rest_of(coro)


@types.coroutine
def _rest_of(coro: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    result: T = yield from coro  # `await` refuses a coroutine that has begun
    return result
