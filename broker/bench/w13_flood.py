"""W13: a paced hot channel, first by itself, then while many clients connect at once, about each of which the server
asks a backend that takes its time.

The many are a process of its own, which the system puts behind the readers of the channel where we may ask for that:
what they need of the load's core is not the server's doing. The second stretch lasts until the last one is connected.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager

from broker.bench.clients import Subscriber
from broker.bench.crowd import Crowd
from broker.bench.figures import Outcome
from broker.bench.journal import Journal
from broker.bench.load import PROBES, Load, pace
from broker.bench.opening import Replies, Stream, connect
from broker.bench.sockets import Sock
from broker.bench.w3_hot_channel import PACED_API_LINKS

__all__ = ["flood"]

WARM_UP_SECONDS = 0.3
AT_ONCE = 4000
"""Clients on their way: what a server's accept queue holds by default on Linux."""
_BEHIND = 10


def flood(load: Load) -> Outcome:
    """`settings.seconds` without, then as long as the flood takes."""
    settings = load.settings
    load.add_journals(1)
    crowd = Crowd(load, probes=PROBES)
    api = load.open_api(PACED_API_LINKS)
    publications = load.publications()
    interval = settings.connections / settings.rate
    latencies = load.audience.latencies

    def publish(due: float) -> None:
        api.post(publications.make(due))

    def drain() -> None:
        load.drain(api, lambda: crowd.deliveries, lambda: publications.made * settings.connections)

    with _urgent():
        pace(load, interval, max(round(WARM_UP_SECONDS / interval), 2), publish)
        drain()
        latencies.clear()
        pace(load, interval, max(round(settings.seconds / interval), 2), publish)
        drain()
        quiet = latencies.histogram().figures()
        latencies.clear()
        before = crowd.deliveries
        with _flooding(load) as clients, load.timed(lambda: crowd.deliveries, settings.seconds) as clock:
            while not clients.done():
                pace(load, interval, 2, publish)
            took = time.perf_counter() - clock.begin
            drain()
    outcome = load.outcome("deliveries", crowd.deliveries - before, clock, latencies)
    outcome.figures["connects/s"] = settings.flood / took
    outcome.figures["p99 ms without"] = quiet["p99 ms"]
    outcome.figures["p99 with / without"] = outcome.figures["p99 ms"] / quiet["p99 ms"]
    crowd.end()
    return outcome


@contextmanager
def _urgent() -> Iterator[None]:
    """Before everybody else on this core, where that is allowed."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class _Clients:
    """The other process, as seen from here."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._poll = select.poll()
        self._poll.register(pipe, select.POLLIN)

    def done(self) -> bool:
        """Whether all are connected.

        Raises:
            ConnectionError: one of them was refused.
        """
        if not self._poll.poll(0):
            return False
        said = os.read(self._pipe, 4096)
        if said != b"done":
            raise ConnectionError(said.decode() or "the process of the clients ended")
        return True


@contextmanager
def _flooding(load: Load) -> Iterator[_Clients]:
    """Clients connect in a process of their own, and stay until the block ends."""
    theirs, ours = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
                os.nice(_BEHIND)
            try:
                with Load(load.target, load.settings) as child:
                    _connect_all(child)
                    os.write(ours, b"done")
                    while os.getppid() != 1:
                        child.poll.turn(0.5)
            except Exception as error:
                os.write(ours, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(ours)
    try:
        yield _Clients(theirs)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(theirs)


def _connect_all(load: Load) -> None:
    silence = Journal(0)
    under_way = 0

    def room() -> bool:
        return under_way < AT_ONCE

    def use(sock: Sock, stream: Stream | None, _: Replies, __: bytes) -> None:
        nonlocal under_way
        under_way -= 1
        load.poll.replace(Subscriber(sock, stream, load.audience, silence))

    for _ in range(load.settings.flood):
        under_way += 1
        load.open_link([connect()], use)
        load.poll.turn(0)
        load.poll.turn_until(room, "connections")
    load.poll.turn_until(lambda: not under_way, "connections")
