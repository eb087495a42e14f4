"""A connection is no task: it has one, and a nursery, while something of it waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, final

import pytest
import trio

from broker.eager import own_task
from broker.hub import TrySend
from broker.observe import Counters
from broker.protocol import codes
from broker.reader import Readable
from broker.transports.connection import Connection
from broker.transports.links import Spawn
from tests.conftest import ErrorLog

pytestmark = pytest.mark.virtual_time

Work = Callable[[Connection], Coroutine[Any, Any, None]]


@final
class Wire:
    """A `Link` whose peer says what the test says."""

    secure = False
    socket = None
    alpn = None
    peer = ""

    def __init__(self) -> None:
        self.try_send: TrySend | None = len
        self.came: list[bytes] = []
        self.paused = self.closed = False

    def start(self, readable: Readable, spawn: Spawn) -> None:
        """The test reads."""

    def receive(self) -> bytes | None:
        return self.came.pop(0) if self.came else None

    def pending(self) -> bool:
        return False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def stop(self) -> None:
        """The test stops by itself."""

    async def receive_some(self) -> bytes:
        return b""

    async def wait_writable(self) -> None:
        raise AssertionError("everything is taken at once")

    async def send_all(self, data: bytes) -> None:
        """It is taken."""

    async def shut_down(self) -> None:
        """It is told."""

    async def aclose(self) -> None:
        self.closed = True


@final
class Street:
    """A `Home`, and the machine of its one connection: it does what `work` says with what comes."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.counters = Counters()
        self.wire = Wire()
        self.work: Work = lambda connection: self.cleanup()
        self.cleaning: Work | None = None
        self.left = 0
        self.over = trio.Event()
        self.connection = Connection(self.wire, self, outbox_limit=1000, write_timeout=1.0)
        self.connection.machine = self

    def gone(self, connection: Connection) -> None:
        self.over.set()

    @property
    def tasks(self) -> int:
        """How many tasks the connection has here."""
        return len(self.nursery.child_tasks)

    def hear(self, data: bytes) -> None:
        self.wire.came.append(data)
        self.connection.readable()

    # ---- a Machine ------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        self.connection.run_in_order(self.work(self.connection))

    def advance(self) -> None:
        """Nothing waits here."""

    def failed(self, why: codes.Disconnect) -> None:
        """The connection ends by itself."""

    def ended(self) -> None:
        self.left += 1

    def farewell(self) -> bytes:
        return b""

    async def wait_farewell(self, receive: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        """It answers at once."""

    async def cleanup(self) -> None:
        if self.cleaning is not None:
            await self.cleaning(self.connection)


@asynccontextmanager
async def open_street() -> AsyncIterator[Street]:
    async with trio.open_nursery() as nursery:
        street = Street(nursery)
        street.connection.start()
        yield street
        if not street.over.is_set():
            street.connection.drop()
        await street.over.wait()
        assert street.left == 1
        assert street.wire.closed


def sleeping(seconds: float, then: Callable[[], object] = int) -> Work:
    async def work(connection: Connection) -> None:
        await own_task()
        await trio.sleep(seconds)
        then()

    return work


async def test_a_connection_that_never_waits_never_has_a_task() -> None:
    async with open_street() as street:
        for _ in range(3):
            street.hear(b"x")
        assert street.tasks == 0
        street.hear(b"")
        assert street.over.is_set()
        assert street.tasks == 0


async def test_it_has_one_while_something_waits() -> None:
    async with open_street() as street:
        street.work = sleeping(1)
        for _ in range(3):
            street.hear(b"x")
            assert (street.tasks, street.wire.paused) == (1, True)
            await trio.sleep(0.5)
            street.connection.run_beside(sleeping(1)(street.connection))
            await trio.sleep(0.75)
            assert (street.tasks, street.wire.paused) == (1, False)  # what runs beside is still there
            await trio.sleep(0.5)
            assert street.tasks == 0


async def test_what_begins_while_the_nursery_closes_is_run() -> None:
    """Between the last task in it and its end the nursery takes nobody in."""
    async with open_street() as street:
        done: list[int] = []
        street.work = sleeping(0, partial(done.append, 1))

        def again() -> None:
            street.connection.run_beside(sleeping(0, partial(done.append, 2))(street.connection))

        street.hear(b"x")
        trio.lowlevel.current_trio_token().run_sync_soon(again)
        for _ in range(10):
            await trio.lowlevel.checkpoint()
            again()
        await trio.sleep(1)
        assert done.count(1) == 1
        assert done.count(2) == 11
        assert street.tasks == 0


@pytest.mark.parametrize("end", [Connection.end, Connection.drop, Connection.hung_up, Connection.cut])
async def test_what_waits_ends_with_the_connection(end: Callable[[Connection], None]) -> None:
    async with open_street() as street:
        street.work = sleeping(100)
        street.hear(b"x")
        await trio.sleep(1)
        end(street.connection)
        with trio.fail_after(0.5):
            await street.over.wait()


async def test_what_begins_as_the_connection_ends_is_cancelled_before_it_is_over() -> None:
    async with open_street() as street:
        cancelled = trio.Event()

        async def work(connection: Connection) -> None:
            connection.end()
            await own_task()
            assert not street.over.is_set()
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()

        street.work = work
        street.hear(b"x")
        await street.over.wait()
        assert cancelled.is_set()


async def test_where_the_clean_up_waits_the_end_is_a_task() -> None:
    async with open_street() as street:
        street.cleaning = sleeping(2)
        street.hear(b"")
        assert not street.over.is_set()
        assert (street.left, street.tasks) == (1, 1)
        await trio.sleep(1)
        assert street.wire.closed, "nobody waits for an engine to close a socket"
        await street.over.wait()
        assert trio.current_time() == 2


async def test_a_clean_up_that_waits_can_be_cut() -> None:
    async with open_street() as street:
        street.cleaning = sleeping(2)
        street.hear(b"")
        await trio.sleep(0.5)
        street.connection.cut()
        await street.over.wait()
        assert trio.current_time() == 0.5


async def test_a_bug_in_what_waits_ends_its_connection_only(error_log: ErrorLog) -> None:
    error_log.expect("a connection crashed(.|\n)*ZeroDivisionError")
    async with open_street() as street:
        street.work = sleeping(1, lambda: 1 // 0)
        street.hear(b"x")
        await street.over.wait()
        assert street.counters.connection_crashes == 1


async def test_a_bug_in_the_end_is_logged_and_the_end_goes_on(error_log: ErrorLog) -> None:
    error_log.expect("a connection crashed(.|\n)*ZeroDivisionError")

    async def fail(connection: Connection) -> None:
        raise ZeroDivisionError

    async with open_street() as street:
        street.cleaning = fail
        street.hear(b"")
        assert street.over.is_set()
        assert street.counters.connection_crashes == 1
