"""The timer wheel: everybody is woken once, in time, and nothing remains of who left."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import trio

from broker.hub import TimerWheel

pytestmark = pytest.mark.virtual_time

TICK = 0.05


class Sleeper:
    """A `Timed` that notes when it is woken."""

    def __init__(self, then: Callable[[Sleeper, float], None] | None = None) -> None:
        self.slot: int | None = None
        self.woken: list[float] = []
        self.crashes = 0
        self._then = then

    def on_timer(self, now: float) -> None:
        assert self.slot is None
        assert now == trio.current_time()
        self.woken.append(now)
        if self._then is not None:
            self._then(self, now)

    def crashed(self) -> None:
        self.crashes += 1


@pytest.fixture
async def wheel(nursery: trio.Nursery) -> TimerWheel:
    wheel = TimerWheel()
    nursery.start_soon(wheel.run)
    return wheel


@pytest.mark.parametrize("when", [0.01, 0.05, 0.051, 1.0, 25.0, 3600.0])
async def test_one_is_woken_once_and_hardly_late(wheel: TimerWheel, when: float) -> None:
    sleeper = Sleeper()
    wheel.arm(sleeper, when)
    await trio.sleep(2 * when + 1)
    (woken,) = sleeper.woken
    assert when <= woken + 1e-9
    assert woken < when + TICK + 1e-9
    assert len(wheel) == 0


async def test_many_are_woken_in_the_order_of_their_times(wheel: TimerWheel) -> None:
    rng = random.Random(1)
    times = [rng.uniform(0, 30) for _ in range(500)]
    order: list[float] = []
    for when in times:
        wheel.arm(Sleeper(lambda _, now, when=when: order.append(when)), when)  # type: ignore[misc]
    assert len(wheel) == 500
    await trio.sleep(31)
    assert sorted(order) == sorted(times)
    assert [math.ceil(when / TICK) for when in order] == sorted(math.ceil(when / TICK) for when in times)
    assert len(wheel) == 0


async def test_those_of_one_tick_are_woken_in_the_order_in_which_they_asked(wheel: TimerWheel) -> None:
    order: list[int] = []
    for n in range(200):
        wheel.arm(Sleeper(lambda _, now, n=n: order.append(n)), 1.0)  # type: ignore[misc]
    await trio.sleep(2)
    assert order == list(range(200))


async def test_an_earlier_time_asked_for_later_is_kept(wheel: TimerWheel) -> None:
    late, early = Sleeper(), Sleeper()
    wheel.arm(late, 10)
    await trio.sleep(1)
    wheel.arm(early, 2)
    await trio.sleep(20)
    assert [round(at, 3) for at in early.woken + late.woken] == [2, 10]


async def test_arming_again_takes_the_place_of_the_appointment_before(wheel: TimerWheel) -> None:
    sleeper = Sleeper()
    for when in (5, 1, 8, 3):
        wheel.arm(sleeper, when)
        assert len(wheel) == 1
    await trio.sleep(10)
    assert [round(at, 3) for at in sleeper.woken] == [3]


async def test_the_disarmed_are_forgotten(wheel: TimerWheel) -> None:
    sleeper = Sleeper()
    wheel.arm(sleeper, 1)
    wheel.disarm(sleeper)
    wheel.disarm(sleeper)
    assert len(wheel) == 0
    await trio.sleep(2)
    assert sleeper.woken == []
    assert sleeper.slot is None


async def test_never_is_no_appointment(wheel: TimerWheel) -> None:
    sleeper = Sleeper()
    wheel.arm(sleeper, 1)
    wheel.arm(sleeper, math.inf)
    assert len(wheel) == 0
    await trio.sleep(5)
    assert sleeper.woken == []


async def test_one_that_arms_itself_again_goes_on(wheel: TimerWheel) -> None:
    sleeper = Sleeper(lambda self, now: wheel.arm(self, now + 1))
    wheel.arm(sleeper, 1)
    await trio.sleep(10.5)
    assert len(sleeper.woken) == 10
    wheel.disarm(sleeper)


async def test_one_that_wants_to_be_woken_at_once_again_does_not_keep_the_others_waiting(wheel: TimerWheel) -> None:
    greedy, other = Sleeper(lambda self, now: wheel.arm(self, now)), Sleeper()
    wheel.arm(greedy, 1)
    wheel.arm(other, 2)
    await trio.sleep(3)
    assert [round(at, 3) for at in other.woken] == [2]
    assert len(greedy.woken) <= 2 / TICK + 1
    wheel.disarm(greedy)


async def test_a_time_that_is_over_is_the_next_tick(wheel: TimerWheel) -> None:
    await trio.sleep(100)
    sleeper = Sleeper()
    wheel.arm(sleeper, 3)
    await trio.sleep(1)
    assert len(sleeper.woken) == 1


async def test_one_may_disarm_and_arm_others_of_the_same_tick(wheel: TimerWheel) -> None:
    disarmed, moved = Sleeper(), Sleeper()

    def interfere(_: Sleeper, now: float) -> None:
        wheel.disarm(disarmed)
        wheel.arm(moved, now + 1)

    wheel.arm(Sleeper(interfere), 1)
    wheel.arm(disarmed, 1)
    wheel.arm(moved, 1)
    await trio.sleep(5)
    assert disarmed.woken == []
    assert [round(at, 3) for at in moved.woken] == [2]
    assert len(wheel) == 0


async def test_a_crowd_of_one_tick_lets_others_run_and_may_leave_meanwhile(wheel: TimerWheel) -> None:
    begun = trio.Event()
    crowd = [Sleeper(lambda _, now: begun.set()) for _ in range(1000)]
    for sleeper in crowd:
        wheel.arm(sleeper, 1)
    await begun.wait()
    wheel.disarm(crowd[-1])
    wheel.arm(crowd[-2], 9)
    turns = 0
    while not crowd[-3].woken:
        await trio.lowlevel.checkpoint()
        turns += 1
    assert turns > 10
    assert [len(sleeper.woken) for sleeper in crowd] == [1] * 998 + [0, 0]
    wheel.disarm(crowd[-2])
    assert len(wheel) == 0


async def test_one_that_crashes_is_told_so_and_keeps_nobody_else_from_waking(wheel: TimerWheel) -> None:
    def crash(sleeper: Sleeper, now: float) -> None:
        raise RuntimeError("a bug")

    before, faulty, after = Sleeper(), Sleeper(crash), Sleeper()
    for each in (before, faulty, after):
        wheel.arm(each, 1.0)
    await trio.sleep(2)
    assert (before.crashes, faulty.crashes, after.crashes) == (0, 1, 0)
    assert before.woken == faulty.woken == after.woken
    assert len(wheel) == 0
