"""Virtual time for a whole test module: `pytestmark = pytest.mark.virtual_time` (tests/conftest.py sees to it)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import trio
import trio.testing

__all__ = ["run_in_virtual_time", "seconds"]

_LONGEST = 4 * 3600.0
"""Virtual seconds: a test that waits for what never comes would go on with pings for ever."""


def run_in_virtual_time(
    test: Callable[[], Coroutine[Any, Any, None]],
    *,
    idle: float = 0.0,
    make_clock: Callable[[], trio.abc.Clock] | None = None,
    **options: Any,
) -> None:
    """`trio.run` with a clock that jumps to the next deadline whenever every task waits: no test truly sleeps.

    Where real sockets are involved, `idle` real seconds have to pass first, so that the kernel has its turn; or
    a clock of another kind has to know when it may jump.
    """

    async def bounded() -> None:
        with trio.fail_after(_LONGEST):
            await test()

    clock = make_clock() if make_clock is not None else trio.testing.MockClock(autojump_threshold=idle)
    trio.run(bounded, **{**options, "clock": clock})


@contextmanager
def seconds(expected: float, *, within: float = 0.06) -> Iterator[None]:
    """The block takes this long, give or take what a timer wheel may be late."""
    began = trio.current_time()
    yield
    took = trio.current_time() - began
    assert expected - 1e-9 <= took <= expected + within, took
