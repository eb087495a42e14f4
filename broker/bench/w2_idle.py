"""W2: what a connection costs while nothing happens.

W2   each with one subscription
W2n  with none
"""

from __future__ import annotations

from collections.abc import Callable

from broker.bench import usage
from broker.bench.clients import Subscriber
from broker.bench.figures import Outcome
from broker.bench.journal import Journal
from broker.bench.load import Load
from broker.bench.opening import Replies, Stream, subscribe
from broker.bench.sockets import Sock
from broker.bench.wire import Command

__all__ = ["with_none", "with_one_subscription"]

WARM_UP = 200
"""Connections that are there before the first look: they pay for what a server sets up once."""
SETTLE_SECONDS = 1.0


def with_one_subscription(load: Load) -> Outcome:
    settings = load.settings
    return _idle(load, lambda number: [load.connect(number), subscribe(settings.channel(settings.channel_of(number)))])


def with_none(load: Load) -> Outcome:
    return _idle(load, lambda number: [load.connect(number)])


def _idle(load: Load, commands: Callable[[int], list[Command]]) -> Outcome:
    pids, settings = load.target.pids, load.settings
    if not pids:
        raise ValueError("W2 needs the server's process: say --pid")
    silence = Journal(0)

    def use(number: int, sock: Sock, stream: Stream | None, _: Replies, __: bytes) -> None:
        load.poll.replace(Subscriber(sock, stream, load.audience, silence))

    load.open_links(range(settings.connections, settings.connections + WARM_UP), commands, use)
    load.poll.turn_for(SETTLE_SECONDS)
    before, kernel = usage.resident(pids), usage.kernel_socket_bytes()
    load.open_links(range(settings.connections), commands, use)
    load.poll.turn_for(SETTLE_SECONDS)
    grown = usage.resident(pids) - before
    figures = {
        "KiB/connection": grown / 1024 / settings.connections,
        "kernel KiB/connection": (usage.kernel_socket_bytes() - kernel) / 1024 / settings.connections,
    }
    if settings.seconds:
        with load.timed(lambda: 0, settings.seconds) as clock:
            load.poll.turn_for(settings.seconds)
        figures["CPU µs/s/connection"] = 1e6 * clock.cpu / clock.wall / (settings.connections + WARM_UP)
    return Outcome(figures)
