"""W11: commands of many clients, one in flight per connection.

W11   each client publishes to a channel of its own that nobody hears
W11r  each client calls the RPC method `ping`, which a Centrifugo has under `rpc.ping.enabled`
"""

from __future__ import annotations

import time
from collections.abc import Callable

from broker.bench.clients import Caller
from broker.bench.figures import Outcome
from broker.bench.load import Load
from broker.bench.opening import Replies, Stream, subscribe
from broker.bench.records import Latencies
from broker.bench.sockets import Sock
from broker.bench.wire import Command

__all__ = ["calls", "publish", "rpc"]

WARM_UP_SECONDS = 0.5
RPC_METHOD = "ping"
FIRST_ID = 50
IDS = 8
"""Commands of a client that differ in their ids, so that an answer to an earlier one is not taken for it."""


def publish(load: Load) -> Outcome:
    data = {"pad": "x" * max(load.settings.size - len('{"pad":""}'), 0)}
    channel = load.settings.channel
    return calls(load, lambda number: {"publish": {"channel": channel(10**6 + number), "data": data}})


def rpc(load: Load) -> Outcome:
    return calls(load, lambda _: {"rpc": {"method": RPC_METHOD, "data": {}}})


def calls(load: Load, command: Callable[[int], Command], what: str = "commands") -> Outcome:
    """Each client sends its command, and again as soon as it has been answered. `what` names the figures."""
    settings = load.settings
    if load.target.transport != "websocket":
        raise ValueError("clients send their commands over WebSocket only")
    callers: list[Caller] = []
    latencies = Latencies()
    asked = answers = 0
    end = 0.0

    def ask(caller: Caller) -> None:
        nonlocal asked
        asked += 1
        caller.call()

    def answered(caller: Caller) -> None:
        nonlocal answers
        answers += 1
        if time.perf_counter() < end:
            ask(caller)

    def opening(number: int) -> list[Command]:
        first = number * settings.subscriptions
        some = range(settings.subscriptions)
        return [load.connect(number), *(subscribe(settings.channel(first + n), 2 + n) for n in some)]

    def use(number: int, sock: Sock, _: Stream | None, __: Replies, ___: bytes) -> None:
        frames = {n: load.wire.frame({"id": n} | command(number)) for n in range(FIRST_ID, FIRST_ID + IDS)}
        caller = Caller(sock, load.wire, frames, latencies, answered)
        callers.append(caller)
        load.poll.replace(caller)

    def run(seconds: float) -> int:
        nonlocal end
        before = answers
        end = time.perf_counter() + seconds
        for caller in callers:
            ask(caller)
        load.poll.turn_until(lambda: answers == asked, "replies")
        return answers - before

    load.open_links(range(settings.connections), opening, use)
    run(WARM_UP_SECONDS)
    latencies.clear()
    with load.timed(lambda: answers, settings.seconds) as clock:
        count = run(settings.seconds)
    return load.outcome(what, count, clock, latencies, in_flight=settings.connections)
