"""The way out of a connection: in order, bounded, with a deadline, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import trio

from broker.hub import Outbox, TrySend
from broker.protocol import codes

pytestmark = pytest.mark.virtual_time


class Pipe:
    """A `Sink` and the `OutboxOwner`. The peer takes `room` bytes, then no more until `take` makes room again."""

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        room: float = float("inf"),
        limit: int = 1000,
        straight: bool = True,
        full: str = "raises",
    ) -> None:
        self.taken = bytearray()
        self.room = room
        self.writes: list[int] = []
        self.failed: list[codes.Disconnect] = []
        self.gone = False
        self.tasks = 0
        self.failed_at = 0.0
        self._writers: list[trio.CancelScope] = []
        self._full = full
        self._nursery = nursery
        self._changed = trio.Event()
        self.try_send: TrySend | None = self._try_send if straight else None
        self.outbox = Outbox(self, self, limit=limit, write_timeout=1.0)

    def take(self, room: float = float("inf")) -> None:
        self.room += room
        self._changed.set()
        self._changed = trio.Event()

    def _try_send(self, data: bytes | memoryview) -> int:
        if self.gone:
            raise ConnectionResetError
        if not self.room and self._full == "raises":
            raise BlockingIOError
        part = bytes(data[: min(len(data), int(min(self.room, 1 << 30)))])
        self.room -= len(part)
        self.taken += part
        self.writes.append(len(part))
        return len(part)

    async def wait_writable(self) -> None:
        while not self.room and not self.gone:
            await self._changed.wait()
        await trio.lowlevel.checkpoint()

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.gone:
            raise trio.BrokenResourceError
        while data:
            sent = self._try_send(data) if self.room else 0
            data = data[sent:]
            if data:
                await self._changed.wait()

    def write_failed(self, why: codes.Disconnect) -> None:
        self.failed.append(why)
        self.failed_at = trio.current_time()
        self.cancel_writer()

    def cancel_writer(self) -> None:
        for scope in self._writers:
            scope.cancel()

    def spawn(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def run() -> None:
            self.tasks += 1
            with trio.CancelScope() as scope:
                self._writers.append(scope)
                await task()
            self.tasks -= 1

        self._nursery.start_soon(run)


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


def some(count: int, size: int = 10) -> list[bytes]:
    return [f"<{n:0{size - 2}}>".encode() for n in range(count)]


# ---- straight --------------------------------------------------------------------------------------------------------


async def test_bytes_go_straight_to_a_socket_that_takes_them(nursery: trio.Nursery) -> None:
    pipe = Pipe(nursery)
    for data in some(5):
        pipe.outbox.offer(data)
    assert pipe.taken == b"".join(some(5))
    assert (pipe.outbox.queued, pipe.tasks) == (0, 0)


@pytest.mark.parametrize("full", ["raises", "gives 0"])
@pytest.mark.parametrize("room", [0, 1, 9, 10, 11, 25, 49])
async def test_what_the_socket_does_not_take_follows_in_order(nursery: trio.Nursery, room: int, full: str) -> None:
    """A TLS socket gives 0 where a plain one raises."""
    pipe = Pipe(nursery, room=room, full=full)
    for data in some(5):
        pipe.outbox.offer(data)
    await settled()
    assert pipe.taken == b"".join(some(5))[:room]
    assert pipe.outbox.queued == 50 - room
    assert pipe.tasks == 1
    pipe.take(7)
    await settled()
    pipe.outbox.offer(b"last")
    pipe.take()
    await settled()
    assert pipe.taken == b"".join(some(5)) + b"last"
    assert (pipe.outbox.queued, pipe.tasks) == (0, 0)


async def test_after_the_backlog_bytes_go_straight_again(nursery: trio.Nursery) -> None:
    pipe = Pipe(nursery, room=0)
    pipe.outbox.offer(b"waits")
    pipe.take()
    await settled()
    pipe.outbox.offer(b" goes")
    assert pipe.taken == b"waits goes"
    assert pipe.tasks == 0


async def test_a_write_that_is_repeated_begins_with_the_same_bytes(nursery: trio.Nursery) -> None:
    """OpenSSL wants it so: the same bytes again, or more that begin with them."""
    pipe = Pipe(nursery, room=0, full="gives 0")
    attempts: list[bytes] = []

    def try_send(data: bytes | memoryview) -> int:
        attempts.append(bytes(data))
        return 0 if len(attempts) % 3 else len(data)

    pipe.try_send = pipe.outbox._straight = try_send
    pipe.outbox.offer(b"one")
    pipe.outbox.offer(b"two")
    pipe.room = 1
    await settled()
    assert attempts[1].startswith(attempts[0])
    assert attempts[2].startswith(attempts[1])


async def test_a_backlog_leaves_in_few_writes(nursery: trio.Nursery) -> None:
    pipe = Pipe(nursery, room=0, limit=10_000)
    for data in some(200):
        pipe.outbox.offer(data)
    pipe.take()
    await settled()
    assert pipe.taken == b"".join(some(200))
    assert len(pipe.writes) <= 5


# ---- streams ---------------------------------------------------------------------------------------------------------


async def test_a_stream_is_written_to_by_a_task(nursery: trio.Nursery) -> None:
    pipe = Pipe(nursery, straight=False)
    for data in some(5):
        pipe.outbox.offer(data)
    assert pipe.taken == b""
    await settled()
    assert pipe.taken == b"".join(some(5))
    assert (pipe.outbox.queued, pipe.tasks) == (0, 0)


# ---- corked ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("straight", [True, False])
async def test_what_is_offered_while_corked_leaves_in_one_write_and_in_order(
    nursery: trio.Nursery, straight: bool
) -> None:
    pipe = Pipe(nursery, straight=straight)
    pipe.outbox.cork()
    for data in some(5):
        pipe.outbox.offer(data)
    await settled()
    assert pipe.taken == b""
    assert pipe.outbox.queued == 50
    pipe.outbox.uncork()
    await settled()
    assert pipe.taken == b"".join(some(5))
    assert pipe.writes == [50]
    assert pipe.outbox.queued == 0


async def test_an_uncorked_rest_that_does_not_fit_waits(nursery: trio.Nursery) -> None:
    pipe = Pipe(nursery, room=12)
    pipe.outbox.cork()
    for data in some(2):
        pipe.outbox.offer(data)
    pipe.outbox.uncork()
    assert pipe.outbox.queued == 8
    pipe.outbox.offer(b"more")
    pipe.take()
    await settled()
    assert pipe.taken == b"".join(some(2)) + b"more"


async def test_a_cork_behind_a_backlog_changes_nothing_of_the_order(nursery: trio.Nursery) -> None:
    pipe = Pipe(nursery, room=3)
    first, second, third, fourth = some(4)
    pipe.outbox.offer(first)
    pipe.outbox.cork()
    pipe.outbox.offer(second)
    pipe.outbox.offer(third)
    pipe.outbox.uncork()
    pipe.outbox.offer(fourth)
    pipe.take()
    await settled()
    assert pipe.taken == b"".join(some(4))


async def test_nothing_corked_writes_nothing(nursery: trio.Nursery) -> None:
    pipe = Pipe(nursery)
    pipe.outbox.cork()
    pipe.outbox.uncork()
    pipe.outbox.uncork()
    pipe.outbox.offer(b"x")
    assert pipe.writes == [1]


# ---- too slow, too late, gone ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("straight", [True, False])
async def test_more_than_may_wait_cuts_the_connection_off_once(nursery: trio.Nursery, straight: bool) -> None:
    pipe = Pipe(nursery, room=0, limit=100, straight=straight)
    for data in some(10):
        pipe.outbox.offer(data)
    assert pipe.failed == []
    pipe.outbox.offer(b"!")
    assert pipe.failed == [codes.SLOW]
    pipe.outbox.offer(b"!")
    pipe.take()
    await settled()
    assert pipe.failed == [codes.SLOW]
    assert b"!" not in pipe.taken


async def test_what_is_held_by_a_cork_counts_as_waiting(nursery: trio.Nursery) -> None:
    pipe = Pipe(nursery, limit=100)
    pipe.outbox.cork()
    for data in some(11):
        pipe.outbox.offer(data)
    assert pipe.failed == [codes.SLOW]
    pipe.outbox.offer(b"!")
    pipe.outbox.uncork()
    pipe.outbox.offer(b"!")
    assert pipe.taken == b""
    assert pipe.failed == [codes.SLOW]


@pytest.mark.parametrize("straight", [True, False])
async def test_a_write_has_a_second(nursery: trio.Nursery, straight: bool) -> None:
    pipe = Pipe(nursery, room=4, straight=straight)
    pipe.outbox.offer(b"0123456789")
    await trio.sleep(5)
    assert pipe.failed == [codes.WRITE_ERROR]
    assert pipe.failed_at == 1
    assert pipe.tasks == 0


async def test_every_batch_has_a_second_of_its_own(nursery: trio.Nursery) -> None:
    pipe = Pipe(nursery, room=0)
    for _ in range(3):
        pipe.outbox.offer(b"0123456789")
        await trio.sleep(0.9)
        pipe.take(10)
        await settled()
    assert pipe.failed == []
    assert len(pipe.taken) == 30


@pytest.mark.parametrize("straight", [True, False])
async def test_a_peer_that_is_gone_is_told_once(nursery: trio.Nursery, straight: bool) -> None:
    pipe = Pipe(nursery, straight=straight)
    pipe.gone = True
    pipe.outbox.offer(b"a")
    pipe.outbox.offer(b"b")
    await settled()
    pipe.outbox.offer(b"c")
    assert pipe.failed == [codes.CONNECTION_CLOSED]


async def test_a_peer_may_go_while_something_waits(nursery: trio.Nursery) -> None:
    pipe = Pipe(nursery, room=0)
    pipe.outbox.offer(b"a")
    await settled()
    pipe.gone = True
    pipe.take(0)
    await settled()
    assert pipe.failed == [codes.CONNECTION_CLOSED]
    assert pipe.tasks == 0


# ---- closed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 1, 10, 35, 50])
async def test_close_gives_back_exactly_what_has_not_left(nursery: trio.Nursery, room: int) -> None:
    pipe = Pipe(nursery, room=room)
    for data in some(5):
        pipe.outbox.offer(data)
    await settled()
    pipe.cancel_writer()
    await settled()
    rest = pipe.outbox.close()
    assert rest is not None
    assert bytes(pipe.taken) + rest == b"".join(some(5))
    assert pipe.outbox.close() == b""
    pipe.outbox.offer(b"late")
    pipe.take()
    await settled()
    assert b"late" not in pipe.taken


async def test_close_gives_back_what_was_offered_when_its_connection_was_ending() -> None:
    async with trio.open_nursery() as ending:
        ending.cancel_scope.cancel()
        pipe = Pipe(ending, straight=False)
        pipe.outbox.offer(b"waits")
    assert pipe.taken == b""
    assert pipe.outbox.close() == b"waits"


async def test_close_gives_back_what_a_cork_holds(nursery: trio.Nursery) -> None:
    pipe = Pipe(nursery)
    pipe.outbox.cork()
    pipe.outbox.offer(b"held")
    assert pipe.outbox.close() == b"held"
    pipe.outbox.uncork()
    pipe.outbox.offer(b"late")
    assert pipe.taken == b""


async def test_nothing_follows_a_write_to_a_stream_that_was_cut_off(nursery: trio.Nursery) -> None:
    """Half of a frame has left; whatever came behind it would be taken for its other half."""
    pipe = Pipe(nursery, straight=False, room=4)
    pipe.outbox.offer(b"0123456789")
    await settled()
    pipe.outbox.offer(b"next")
    pipe.cancel_writer()
    await settled()
    assert pipe.taken == b"0123"
    assert pipe.outbox.close() is None


# ---- more than may wait ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("straight", [True, False])
async def test_a_whole_may_be_larger_than_what_may_wait(nursery: trio.Nursery, straight: bool) -> None:
    pipe = Pipe(nursery, straight=straight, room=5, limit=200_000)
    data = bytes(range(256)) * 4000
    pipe.outbox.offer(b"first")

    async def read() -> None:
        while len(pipe.taken) < len(data) + 5:
            await trio.sleep(0.5)
            pipe.take(150_000)

    async with trio.open_nursery() as inner:
        inner.start_soon(read)
        await pipe.outbox.send_whole(data)
        assert pipe.taken == b"first" + data
    assert pipe.failed == []


async def test_a_peer_that_does_not_take_a_whole_is_cut_off(nursery: trio.Nursery) -> None:
    pipe = Pipe(nursery, room=300_000, limit=200_000)
    with trio.move_on_after(10):  # as its connection ends then
        await pipe.outbox.send_whole(bytes(1_000_000))
    assert pipe.failed == [codes.WRITE_ERROR]
    assert pipe.failed_at == 1
