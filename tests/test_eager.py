"""Coroutines that start at once, and move to a task of their own before they wait."""

from __future__ import annotations

import contextlib
import gc
import traceback

import pytest
import trio
import trio.testing

from broker.eager import Gate, Promise, WaitedInReader, begin, go_on, in_order, own_task

pytestmark = pytest.mark.virtual_time


async def finish(coro: object) -> object:
    """What a connection does with a coroutine that asked for a task: give it one."""
    results: list[object] = []

    async def run() -> None:
        results.append(await go_on(coro))  # type: ignore[arg-type]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
    return results[0]


# ---- without waiting -------------------------------------------------------------------------------------------------


async def test_what_does_not_wait_ends_at_once_with_its_result() -> None:
    async def handler() -> str:
        return "done"

    assert begin(handler()) == (True, "done")


async def test_no_other_task_runs_before_it_has_ended() -> None:
    order: list[str] = []

    async def other() -> None:
        order.append("other")

    async def handler() -> None:
        order.append("handler")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        begin(handler())
    assert order == ["handler", "other"]


async def test_what_it_raises_reaches_the_caller() -> None:
    async def handler() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        begin(handler())
    await still_usual_here()


async def still_usual_here() -> None:
    """`own_task()` is a no-op again, and this task waits as ever."""
    await own_task()
    await trio.sleep(1)


# ---- moving ----------------------------------------------------------------------------------------------------------


async def test_own_task_moves_it_and_the_task_goes_on_after_it() -> None:
    tasks: list[trio.lowlevel.Task] = []

    async def handler() -> str:
        tasks.append(trio.lowlevel.current_task())
        await own_task()
        tasks.append(trio.lowlevel.current_task())
        await trio.sleep(3)
        return "late"

    work = handler()
    assert begin(work) == (False, None)
    assert tasks == [trio.lowlevel.current_task()]
    started = trio.current_time()
    assert await finish(work) == "late"
    assert trio.current_time() == started + 3
    assert tasks[1] is not tasks[0]


async def test_in_a_task_own_task_does_nothing() -> None:
    """Not even a checkpoint: what follows it has to be as uninterrupted as before."""
    with trio.testing.assert_no_checkpoints():
        await own_task()


async def test_once_moved_it_is_not_moved_again() -> None:
    async def handler() -> int:
        for _ in range(3):
            await own_task()
            await trio.lowlevel.checkpoint()
        return 3

    work = handler()
    assert begin(work) == (False, None)
    assert await finish(work) == 3


async def test_it_moves_from_any_depth() -> None:
    async def deep(n: int) -> int:
        if n:
            return await deep(n - 1) + 1
        await own_task()
        await trio.sleep(1)
        return 0

    work = deep(20)
    assert begin(work) == (False, None)
    assert await finish(work) == 20


async def test_what_it_raises_after_the_move_is_raised_in_its_task() -> None:
    async def handler() -> None:
        await own_task()
        await trio.sleep(1)
        raise LookupError("late")

    work = handler()
    begin(work)
    with pytest.raises(LookupError, match="late"):
        await go_on(work)


async def test_a_cancelled_task_cancels_what_moved_to_it() -> None:
    seen: list[str] = []

    async def handler() -> None:
        try:
            await own_task()
            await trio.sleep_forever()
        finally:
            seen.append("cleaned up")

    work = handler()
    begin(work)
    with trio.CancelScope() as scope:
        scope.cancel()
        await go_on(work)
    assert scope.cancelled_caught
    assert seen == ["cleaned up"]


# ---- one within another ----------------------------------------------------------------------------------------------


async def test_a_nested_start_that_moves_does_not_move_the_outer_one() -> None:
    inner: list[object] = []
    after: list[bool] = []

    async def nested() -> str:
        await own_task()
        await trio.sleep(1)
        return "nested"

    async def handler() -> str:
        work = nested()
        inner.append(work)
        after.append(begin(work)[0])
        return "outer"

    assert begin(handler()) == (True, "outer")
    assert after == [False]
    assert await finish(inner[0]) == "nested"


async def test_after_a_nested_start_the_outer_one_still_moves() -> None:
    async def nested(fail: bool) -> None:
        if fail:
            raise LookupError

    async def handler() -> str:
        begin(nested(False))
        with pytest.raises(LookupError):
            begin(nested(True))
        await own_task()
        await trio.sleep(1)
        return "outer"

    work = handler()
    assert begin(work) == (False, None)
    assert await finish(work) == "outer"


async def test_a_start_within_a_moved_coroutine_is_eager_again() -> None:
    async def nested() -> None:
        await own_task()
        await trio.sleep(1)

    async def handler() -> bool:
        await own_task()
        await trio.sleep(1)
        work = nested()
        done, _ = begin(work)
        await own_task()  # this one has its task: nothing
        await go_on(work)
        return done

    work = handler()
    begin(work)
    assert await finish(work) is False


# ---- waiting without moving ------------------------------------------------------------------------------------------


async def naps() -> None:
    await trio.sleep(5)


async def waits_for_an_event(event: trio.Event) -> None:
    await event.wait()


async def checkpoints() -> None:
    await trio.lowlevel.checkpoint()


async def receives(channel: trio.MemoryReceiveChannel[int]) -> None:
    await channel.receive()


async def test_a_wait_without_a_move_is_an_error_that_names_it() -> None:
    with pytest.raises(WaitedInReader, match="naps waited without own_task"):
        begin(naps())
    await still_usual_here()


async def test_a_checkpoint_counts_as_a_wait() -> None:
    with pytest.raises(WaitedInReader):
        begin(checkpoints())
    await still_usual_here()


async def test_the_traceback_tells_where_it_waited() -> None:
    with pytest.raises(WaitedInReader) as caught:
        begin(naps())
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert "await trio.sleep(5)" in [frame.line for frame in frames]


async def test_what_it_waited_for_does_not_wake_the_reader_later() -> None:
    """Trio had noted the reader's task as the one that waits; waking it for that would end the whole process."""
    event = trio.Event()
    sender, receiver = trio.open_memory_channel[int](0)
    with pytest.raises(WaitedInReader):
        begin(waits_for_an_event(event))
    with pytest.raises(WaitedInReader):
        begin(receives(receiver))
    event.set()
    with pytest.raises(trio.WouldBlock):
        sender.send_nowait(1)
    before = trio.current_time()
    await trio.sleep(7)
    assert trio.current_time() == before + 7


async def test_its_clean_up_runs() -> None:
    seen: list[str] = []

    async def handler() -> None:
        try:
            await trio.sleep(1)
        finally:
            seen.append("finally")

    with pytest.raises(WaitedInReader):
        begin(handler())
    assert seen == ["finally"]


async def test_a_clean_up_that_waits_is_ended_as_well() -> None:
    seen: list[str] = []
    event = trio.Event()

    async def handler() -> None:
        try:
            await trio.sleep(1)
        finally:
            await own_task()  # there is no task to move to any more
            try:
                await event.wait()
            finally:
                seen.append("inner")

    with pytest.raises(WaitedInReader):
        begin(handler())
    assert seen == ["inner"]
    event.set()
    await still_usual_here()


async def test_a_handler_that_swallows_the_error_does_not_hide_it() -> None:
    async def retries_for_ever() -> None:
        while True:
            try:
                await trio.sleep(1)
            except Exception:
                await trio.sleep(2)

    async def swallows() -> str:
        with contextlib.suppress(WaitedInReader):
            await trio.sleep(1)
        return "fine"

    for handler in (retries_for_ever, swallows):
        with pytest.raises(WaitedInReader):
            begin(handler())


async def test_another_error_of_its_clean_up_comes_out() -> None:
    async def handler() -> None:
        try:
            await trio.sleep(1)
        finally:
            raise LookupError("clean-up failed")

    with pytest.raises(LookupError, match="clean-up failed") as caught:
        begin(handler())
    assert isinstance(caught.value.__context__, WaitedInReader)


# ---- dropped half run ------------------------------------------------------------------------------------------------


async def test_one_that_nobody_finishes_can_be_closed() -> None:
    seen: list[str] = []

    async def handler() -> None:
        try:
            await own_task()
        except GeneratorExit:
            seen.append("closed")
            raise

    work = handler()
    begin(work)
    work.close()
    assert seen == ["closed"]
    del work
    gc.collect()
    await still_usual_here()


# ---- a gate ----------------------------------------------------------------------------------------------------------


async def test_a_gate_lets_everybody_in_with_a_task_or_without() -> None:
    gate = Gate()
    came: list[str] = []

    async def visit(name: str) -> None:
        await gate.wait()
        came.append(name)

    held = visit("held")
    done, promise = begin(held)
    assert not done
    assert promise is not None
    promise.when_settled(lambda: begin(held))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(visit, "task")
        nursery.start_soon(visit_until_cancelled, gate)
        await trio.testing.wait_all_tasks_blocked()
        gate.open()
        assert came == ["held"]
    assert came == ["held", "task"]
    assert begin(visit("late")) == (True, None)


async def visit_until_cancelled(gate: Gate) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await gate.wait()
    assert scope.cancelled_caught


# ---- many at once ----------------------------------------------------------------------------------------------------


async def test_all_are_begun_before_the_first_is_waited_for() -> None:
    promises = [Promise[int]() for _ in range(3)]
    begun: list[int] = []

    async def work(number: int) -> int:
        begun.append(number)
        return await promises[number].wait()

    waiting = in_order(map(work, range(3)))
    assert begin(waiting) == (False, promises[0])
    assert begun == [0, 1, 2]
    promises[2].settle(20)
    promises[0].settle(0)
    assert begin(waiting) == (False, promises[1])
    promises[1].settle(10)
    assert begin(waiting) == (True, [0, 10, 20])


async def test_one_that_needs_a_task_is_finished_before_the_next_begins() -> None:
    seen: list[str] = []

    async def waits() -> None:
        await own_task()
        await trio.lowlevel.checkpoint()
        seen.append("waited")

    async def follows() -> None:
        seen.append("followed")

    works = (work() for work in (waits, follows))
    waiting = in_order(works)
    assert begin(waiting) == (False, None)
    await go_on(waiting)
    assert seen == ["waited", "followed"]


async def test_those_that_have_begun_are_closed_with_it() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await Promise[None]().wait()
        finally:
            ended.append("ended")

    with trio.move_on_after(0):
        await in_order(work() for _ in range(2))
    assert ended == ["ended", "ended"]
