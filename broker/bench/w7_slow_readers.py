"""W7: a paced hot channel while one in a hundred subscribers does not read, until the server cuts them off."""

from __future__ import annotations

import json
import socket
import time

from broker.bench.api import Publications, post
from broker.bench.crowd import Crowd
from broker.bench.figures import Outcome
from broker.bench.journal import Journal
from broker.bench.load import PROBES, Load, pace
from broker.bench.members import Member
from broker.bench.opening import Replies, Stream, subscribe
from broker.bench.sockets import Sock
from broker.bench.w3_hot_channel import PACED_API_LINKS
from broker.bench.wire import Command

__all__ = ["slow_readers"]

SHARE = 100
FLOOD_CHANNEL = 1
FLOOD_BYTES = 32_768
FLOOD_PER_SECOND = 100.0
LOOK_SECONDS = 0.25
WARM_UP_SECONDS = 0.3


def slow_readers(load: Load) -> Outcome:
    """Those who do not read are in a second channel too, which fills their buffers. Latency is of all others."""
    settings = load.settings
    flood_channel = settings.channel(FLOOD_CHANNEL)
    load.add_journals(1)
    crowd = Crowd(load, probes=PROBES)
    stopped = max(settings.connections // SHARE, 1)
    _open_stopped(load, range(settings.connections, settings.connections + stopped), flood_channel)
    api, side = load.open_api(PACED_API_LINKS), load.open_api(2)
    publications = load.publications()
    flood = Publications(load.target.api, load.target.api_key, [Journal(FLOOD_CHANNEL)], [flood_channel], FLOOD_BYTES)
    look = post(load.target.api, "channels", load.target.api_key, json.dumps({"pattern": flood_channel}).encode())
    interval = settings.connections / settings.rate
    next_flood = next_look = float("inf")
    flooding_since = cut_after = 0.0

    def looked(body: bytes) -> None:
        nonlocal cut_after, next_flood, next_look
        if flood_channel not in json.loads(body).get("result", {}).get("channels", {}):
            cut_after = time.perf_counter() - flooding_since
            next_flood = next_look = float("inf")

    def tick(due: float) -> None:
        nonlocal next_flood, next_look
        api.post(publications.make(due))
        now = time.perf_counter()
        while now >= next_flood:
            side.post(flood.make())
            next_flood += 1 / FLOOD_PER_SECOND
        if now >= next_look:
            side.post((look, now, looked))
            next_look = now + LOOK_SECONDS

    def run(count: int) -> None:
        pace(load, interval, count, tick)
        load.drain(api, lambda: crowd.deliveries, lambda: publications.made * settings.connections)

    run(max(round(WARM_UP_SECONDS / interval), 2))
    before = crowd.deliveries
    load.audience.latencies.clear()
    with load.timed(lambda: crowd.deliveries, settings.seconds) as clock:
        flooding_since = time.perf_counter()
        next_flood = next_look = flooding_since
        run(max(round(settings.seconds / interval), 2))
    load.poll.turn_until(lambda: side.idle, "answers of the API")
    outcome = load.outcome("deliveries", crowd.deliveries - before, clock, load.audience.latencies)
    if cut_after:
        outcome.figures["s to 3008"] = cut_after
    crowd.end()
    return outcome


def _open_stopped(load: Load, numbers: range, flood_channel: str) -> None:
    def commands(number: int) -> list[Command]:
        return [load.connect(number), subscribe(load.settings.channel(0)), subscribe(flood_channel, 3)]

    def use(number: int, sock: Sock, stream: Stream | None, _: Replies, __: bytes) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        load.poll.ignore(Member(sock, stream, load.audience, lambda key: None))

    load.open_links(numbers, commands, use)
