from __future__ import annotations

import random

import pytest
import trio

from broker.workers.patience import DEAF_AFTER, Pauses, deaf

pytestmark = pytest.mark.virtual_time


async def test_pauses_grow_up_to_a_bound_and_begin_anew_after_a_good_life() -> None:
    for seed in range(20):
        pauses = Pauses(random.Random(seed))
        taken = [pauses.after(lived=1) for _ in range(12)]
        wanted = [min(0.2 * 2**n, 15) for n in range(12)]
        assert all(most / 2 <= pause <= most for pause, most in zip(taken, wanted, strict=True))
        assert pauses.after(lived=29) > 7
        assert pauses.after(lived=30) <= 0.2
        assert pauses.after(lived=0) <= 0.4


async def test_chance_parts_those_that_crash_together() -> None:
    assert len({Pauses(random.Random(seed)).after(0) for seed in range(20)}) == 20


async def test_who_answers_slowly_is_not_deaf() -> None:
    times = 0

    async def ask() -> None:
        nonlocal times
        times += 1
        await trio.sleep(DEAF_AFTER - 1)

    with trio.move_on_after(1000):
        await deaf(ask)
        raise AssertionError("it answered")
    assert times > 25


async def test_who_answers_no_more_is_deaf() -> None:
    times = 0

    async def ask() -> None:
        nonlocal times
        times += 1
        if times > 3:
            await trio.sleep_forever()

    await deaf(ask)
    assert times == 4
    assert trio.current_time() >= DEAF_AFTER
