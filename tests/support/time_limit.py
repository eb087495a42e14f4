"""No test goes on for ever: one that takes too long fails, says what it waited for, and its fixtures end as usual."""

from __future__ import annotations

import faulthandler
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest
import trio

__all__ = ["SECONDS", "SECONDS_IF_LONG", "cancel_running", "limited", "time_limit"]

SECONDS: Final = 300.0
SECONDS_IF_LONG: Final = 1800.0
_TO_END: Final = 60.0
"""Seconds that fixtures have, until what does not listen to Trio is interrupted wherever it is."""

_running: list[trio.CancelScope] = []


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Around a test and its fixtures, those of the session among them if it is their first."""
    before = signal.signal(signal.SIGALRM, lambda *_: _too_late(seconds))
    signal.setitimer(signal.ITIMER_REAL, seconds, _TO_END)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


async def limited(test: Callable[[], Awaitable[None]]) -> None:
    """What runs on Trio is cancelled when its time is over."""
    with trio.CancelScope() as scope:
        _running.append(scope)
        try:
            await test()
        finally:
            _running.clear()
    if scope.cancelled_caught:
        pytest.fail("the test took too long, or was told to end; what its tasks waited for is above", pytrace=False)


def cancel_running() -> bool:
    """Called by a signal: whether there is a test that runs on Trio; it fails, and says what its tasks waited for."""
    faulthandler.dump_traceback(sys.__stderr__)
    if not _running:
        return False
    trio.lowlevel.current_trio_token().run_sync_soon(_end, _running.pop())
    return True


def _too_late(seconds: float) -> None:
    if not cancel_running():
        pytest.fail(f"the test took longer than {seconds:g} s")


def _end(scope: trio.CancelScope) -> None:
    root = trio.lowlevel.current_root_task()
    tasks = [root] if root is not None else []
    for task in tasks:
        print(f"\n{task.name}", *traceback.StackSummary.extract(task.iter_await_frames()).format(), sep="\n")
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    scope.cancel()
