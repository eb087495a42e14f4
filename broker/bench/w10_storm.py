"""W10: connections arrive as fast as the server takes them, each with one subscription.

W10   each with a token of its own
W10n  without tokens
"""

from __future__ import annotations

import time

from broker.bench.clients import Subscriber
from broker.bench.figures import Outcome
from broker.bench.journal import Journal
from broker.bench.load import Load
from broker.bench.opening import Replies, Stream, subscribe
from broker.bench.records import Latencies
from broker.bench.sockets import Sock
from broker.bench.wire import Command

__all__ = ["storm"]

WARM_UP = 300


def storm(load: Load) -> Outcome:
    settings = load.settings
    silence = Journal(0)
    latencies = Latencies()
    began: dict[int, float] = {}
    total = WARM_UP + settings.connections
    commands = [[load.connect(n), subscribe(settings.channel(settings.channel_of(n)))] for n in range(total)]

    def begin(number: int) -> list[Command]:
        began[number] = time.perf_counter()
        return commands[number]

    def use(number: int, sock: Sock, stream: Stream | None, _: Replies, __: bytes) -> None:
        latencies.add(time.perf_counter(), began[number])
        load.poll.replace(Subscriber(sock, stream, load.audience, silence))

    load.open_links(range(WARM_UP), begin, use)
    latencies.clear()
    with load.timed(lambda: len(began) - WARM_UP, 0) as clock:
        load.open_links(range(WARM_UP, total), begin, use)
    return load.outcome("connects", settings.connections, clock, latencies)
