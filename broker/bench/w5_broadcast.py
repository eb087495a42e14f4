"""W5: a few channels with history, a paced broadcast to all of them, and reads of their history mixed in."""

from __future__ import annotations

import json

from broker.bench.api import post
from broker.bench.figures import Outcome
from broker.bench.journal import Wrong
from broker.bench.load import PROBES, Load, pace
from broker.bench.w3_hot_channel import PACED_API_LINKS

__all__ = ["broadcast_and_history"]

PUBLICATIONS_PER_READ = 5
READ_LIMIT = 10
READ_LINKS = 4
WARM_UP_SECONDS = 0.5


def broadcast_and_history(load: Load) -> Outcome:
    """Latency is that of deliveries; the p99 of the reads stands beside it.

    Raises:
        Wrong: a read gave less than there was to give.
    """
    settings, target = load.settings, load.target
    each = settings.connections // settings.channels
    load.add_journals(settings.channels)
    load.subscribe(range(each * settings.channels), probes=PROBES)
    api, side = load.open_api(PACED_API_LINKS), load.open_api(READ_LINKS)
    publications = load.publications()
    interval = each / settings.rate
    turn = 0

    def read(due: float) -> None:
        number = turn // PUBLICATIONS_PER_READ % settings.channels
        kept = min(load.journals[number].posted - PACED_API_LINKS, READ_LIMIT)  # the others may be under way
        body = json.dumps({"channel": settings.channel(number), "limit": READ_LIMIT, "reverse": True}).encode()

        def answered(answer: bytes) -> None:
            found = json.loads(answer)["result"].get("publications", [])
            if len(found) < kept:
                raise Wrong(f"{len(found)} publications were read from a history of {kept} or more")

        side.post((post(target.api, "history", target.api_key, body), due, answered))

    def tick(due: float) -> None:
        nonlocal turn
        turn += 1
        api.post(publications.make(due))
        if turn % PUBLICATIONS_PER_READ == 0:
            read(due)

    def run(seconds: float) -> None:
        pace(load, interval, max(round(seconds / interval), 2), tick)
        load.drain(api, lambda: load.audience.deliveries, lambda: publications.made * each)
        load.poll.turn_until(lambda: side.idle, "answers to reads")

    run(WARM_UP_SECONDS)
    before = load.audience.deliveries
    load.audience.latencies.clear()
    side.latencies.clear()
    with load.timed(lambda: load.audience.deliveries, settings.seconds) as clock:
        run(settings.seconds)
    load.verify()
    outcome = load.outcome("deliveries", load.audience.deliveries - before, clock, load.audience.latencies)
    reads = side.latencies.histogram()
    outcome.figures["p95 ms"] = 1000 * outcome.latency.percentile(95)
    outcome.figures["history p99 ms"] = 1000 * reads.percentile(99)
    return outcome
