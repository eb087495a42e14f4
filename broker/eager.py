"""Handlers that start at once in the reader, and move to a task of their own before the first wait.

Every handler is one `async def`. `begin` runs it on the spot; most finish without waiting. Whoever is about
to wait says `await own_task()` first: inside `begin` that hands the half-run coroutine back, to be finished by
`go_on` in a task of its connection's nursery; anywhere else it does nothing.

Before `own_task()` a handler must not open a cancel scope or a nursery: those belong to the task that entered
them. A wait without `own_task()` is a programming error, raised as `WaitedInReader`.
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

_MOVE = object()
_eager = False


class WaitedInReader(RuntimeError):
    """A handler waited without saying `await own_task()` first. Ends its connection, fails the tests."""


@types.coroutine
def own_task() -> Generator[Any, Any, None]:
    """Say this before anything that may wait. Where the coroutine already has a task, it is a no-op."""
    if _eager:
        yield _MOVE


def begin(coro: Coroutine[Any, Any, T]) -> tuple[bool, T | None]:
    """Run `coro` until it ends or asks for a task of its own.

    Returns:
        `(True, result)` when it has ended, `(False, None)` when it waits for `go_on`.

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
    if trap is not _MOVE:
        _give_up(coro, trap)
    return False, None


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


async def go_on(coro: Coroutine[Any, Any, T]) -> T:
    """Finish in this task what `begin` left half run."""
    return await _rest_of(coro)


@types.coroutine
def _rest_of(coro: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    result: T = yield from coro  # `await` refuses a coroutine that has begun
    return result
