"""Signals and the deadline under which everything has to end."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from broker.supervisor import Signals, Stopped, deadline_for_leaving, open_signals

pytestmark = pytest.mark.virtual_time


async def nothing() -> None:
    """A reload that changes nothing."""


async def test_a_block_that_ends_in_time_is_left_alone() -> None:
    signals = Signals()
    async with deadline_for_leaving(signals, 10):
        signals.stopping.set()
        await trio.sleep(9)
    assert trio.current_time() == 9


async def test_a_block_that_does_not_end_is_cut_off_at_the_deadline() -> None:
    signals = Signals()
    with pytest.RaisesGroup(Stopped, allow_unwrapped=True):
        async with deadline_for_leaving(signals, 10):
            await trio.sleep(5)
            signals.stopping.set()
            await trio.sleep_forever()
    assert trio.current_time() == 15


async def test_without_a_signal_there_is_no_deadline() -> None:
    async with deadline_for_leaving(Signals(), 10):
        await trio.sleep(1000)


async def test_an_error_within_goes_on() -> None:
    with pytest.RaisesGroup(KeyError):
        async with deadline_for_leaving(Signals(), 10):
            raise KeyError


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_and_a_second_one_changes_nothing(number: signal.Signals) -> None:
    async with open_signals(nothing) as signals:
        os.kill(os.getpid(), number)
        await signals.stopping.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.testing.wait_all_tasks_blocked()


async def test_sighup_reloads_and_does_not_stop() -> None:
    reloaded = trio.Event()

    async def reload() -> None:
        reloaded.set()

    async with open_signals(reload) as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        await reloaded.wait()
        assert not signals.stopping.is_set()


async def test_a_signal_to_stop_does_not_wait_for_a_reload() -> None:
    began = trio.Event()

    async def reload() -> None:
        began.set()
        await trio.sleep_forever()

    async with open_signals(reload) as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        await began.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await signals.stopping.wait()


async def test_reloads_take_turns_and_those_that_wait_are_one() -> None:
    under_way, most, count = 0, 0, 0

    async def reload() -> None:
        nonlocal under_way, most, count
        count += 1
        under_way += 1
        most = max(most, under_way)
        await trio.sleep(10)
        under_way -= 1

    async with open_signals(reload):
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGHUP)
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(100)
    assert (most, count) == (1, 2)
