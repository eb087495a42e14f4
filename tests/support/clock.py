"""Virtual time for a whole test module: `pytestmark = pytest.mark.virtual_time` (tests/conftest.py sees to it)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

import trio
import trio.testing

from tests.support.time_limit import limited

__all__ = ["children", "run_in_real_time", "run_in_virtual_time", "seconds"]

_LONGEST = 4 * 3600.0
"""Virtual seconds: a test that waits for what never comes would go on with pings for ever."""


def run_in_real_time(test: Callable[[], Coroutine[Any, Any, None]], **options: Any) -> None:
    """`trio.run`; but what takes too long is cancelled."""
    trio.run(limited, test, **options)


def run_in_virtual_time(
    test: Callable[[], Coroutine[Any, Any, None]],
    *,
    idle: float = 0.0,
    make_clock: Callable[[], trio.abc.Clock] | None = None,
    **options: Any,
) -> None:
    """`trio.run` with a clock that jumps to the next deadline whenever every task waits: no test truly sleeps.

    Where real sockets are involved, `idle` real seconds have to pass first, so that the kernel has its turn, and the
    processes that were started for tests have to wait, too; or a clock of another kind has to know when it may jump.
    """

    async def bounded() -> None:
        with trio.fail_after(_LONGEST):
            await limited(test)

    if idle:
        together = _Together(idle)
        trio.run(bounded, **{**options, "clock": together, "instruments": [together]})
    else:
        clock = make_clock() if make_clock is not None else trio.testing.MockClock(autojump_threshold=0.0)
        trio.run(bounded, **{**options, "clock": clock})


@final
class _Together(trio.abc.Clock, trio.abc.Instrument):
    """Jumps when no task has run for `idle` real seconds and no process that we started works: what it is about to say
    comes first, however busy the machine is."""

    def __init__(self, idle: float) -> None:
        self._idle = idle
        self._now = 0.0
        self._quiet_since = 0.0
        """Real seconds; 0 where a task has run since trio asked last."""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._quiet_since = 0.0

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        if deadline <= self._now or deadline == math.inf:
            return deadline - self._now
        real = time.monotonic()
        self._quiet_since = self._quiet_since or real
        if real < self._quiet_since + self._idle or any(map(_works, children())):
            return self._idle
        self._now = deadline
        return 0.0


def children() -> Iterator[Path]:
    """Processes that this one started, as their places in /proc."""
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that has just ended
            for pid in (task / "children").read_text().split():
                yield Path("/proc", pid)


def _works(process: Path) -> bool:
    """Whether a thread of it runs, or would if it were its turn."""
    with suppress(OSError):  # it has just ended
        for task in (process / "task").iterdir():
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            if state in "RD":
                return True
    return False


@contextmanager
def seconds(expected: float, *, within: float = 0.06) -> Iterator[None]:
    """The block takes this long, give or take what a timer wheel may be late."""
    began = trio.current_time()
    yield
    took = trio.current_time() - began
    assert expected - 1e-9 <= took <= expected + within, took
