"""Stages: services that start in order, live together, and end in the opposite order under one deadline.

Knows no domain word. A stage is an async context manager; `Stages.enter` nests them, so that leaving is
inside-out: the innermost stage (the doors) ends first, the outermost (the engine) last. Signals and the shutdown
deadline are here too, because they decide when the innermost block is left.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, final

import trio

__all__ = ["STOP_SIGNALS", "Signals", "Stopped", "deadline_for_leaving", "open_signals"]


STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@final
class Stopped(Exception):
    """Shutdown took longer than it may: what is left is cut off."""


@final
class Signals:
    """Waits for the operating system: SIGINT and SIGTERM end the server, SIGHUP reloads it.

    `stopping` is set by SIGINT or SIGTERM. More of them change nothing: `make` and service managers send both.
    """

    def __init__(self) -> None:
        self.stopping = trio.Event()

    async def watch(
        self, reload: Callable[[], Awaitable[None]], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Runs in the root nursery until it is cancelled. Once started, no signal takes its default way.

        One reload at a time; those that are asked for meanwhile are one more. A signal to stop waits for none.
        """
        ask, asked = trio.open_memory_channel[None](1)

        async def reload_in_turn() -> None:
            async for _ in asked:
                await reload()

        with trio.open_signal_receiver(*STOP_SIGNALS, signal.SIGHUP) as received:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reload_in_turn, name="reloads")
                task_status.started()
                async for number in received:
                    if number != signal.SIGHUP:
                        self.stopping.set()
                        for each in STOP_SIGNALS:
                            signal.signal(each, signal.SIG_IGN)  # a flood of them would nest handlers without end
                        continue
                    with suppress(trio.WouldBlock):  # one is waiting already
                        ask.send_nowait(None)


@asynccontextmanager
async def open_signals(reload: Callable[[], Awaitable[None]]) -> AsyncIterator[Signals]:
    """The root: signals are watched for as long as the block lives."""
    signals = Signals()
    async with trio.open_nursery() as nursery:
        await nursery.start(signals.watch, reload, name="signals")
        try:
            yield signals
        finally:
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def deadline_for_leaving(signals: Signals, seconds: float) -> AsyncIterator[None]:
    """From the first stop signal on, the block has `seconds` to end.

    Raises:
        Stopped: it had not ended by then; everything within was cancelled.
    """
    late = False
    async with trio.open_nursery() as nursery:
        scope = nursery.cancel_scope

        async def watch() -> None:
            nonlocal late
            await signals.stopping.wait()
            await trio.sleep(seconds)
            late = True
            scope.cancel()

        nursery.start_soon(watch, name="shutdown deadline")
        yield
        scope.cancel()
    if late:
        raise Stopped(f"shutdown did not finish in {seconds:g} s")
