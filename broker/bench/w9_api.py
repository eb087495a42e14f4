"""W9: publications through the HTTP API, keep-alive.

W9    one publication per request, one channel with one subscriber
W9b   a `batch` of publications per request
W9bc  a `broadcast` of one publication to many channels
W9d   one per request, over many channels with one subscriber each: the whole way from publish to delivery
"""

from __future__ import annotations

import time
from collections.abc import Callable

from broker.bench.api import ApiPool, Publications, Request
from broker.bench.figures import Outcome
from broker.bench.journal import Journal
from broker.bench.load import Load

__all__ = ["broadcast", "publish", "publish_to_delivery"]

WARM_UP_SECONDS = 0.5


def publish(load: Load) -> Outcome:
    """`settings.batch` publications per request; latency is from the request to its answer."""
    load.add_journals(load.settings.channels)
    load.subscribe(range(load.settings.channels))
    return _run(load, lambda publications: publications.make(batch=load.settings.batch), by_answer=True)


def publish_to_delivery(load: Load) -> Outcome:
    """Latency is from the request to the reading by the subscriber."""
    load.add_journals(load.settings.channels)
    load.subscribe(range(load.settings.channels), probes=load.settings.channels)
    return _run(load, lambda publications: publications.make(batch=load.settings.batch), by_answer=False)


def broadcast(load: Load) -> Outcome:
    load.journals = [Journal(0) for _ in range(load.settings.channels)]  # all carry the same data, so the same keys
    load.subscribe(range(load.settings.channels))
    return _run(load, lambda publications: publications.broadcast(), by_answer=True)


def _run(load: Load, make: Callable[[Publications], Request], *, by_answer: bool) -> Outcome:
    settings = load.settings
    api: ApiPool = load.open_api(settings.in_flight)
    publications = load.publications()

    def run(seconds: float) -> int:
        before = publications.made
        end = time.perf_counter() + seconds
        api.keep_busy(lambda: make(publications) if time.perf_counter() < end else None, settings.in_flight)
        load.drain(api, lambda: load.audience.deliveries, lambda: publications.made)
        return publications.made - before

    run(WARM_UP_SECONDS)
    latencies = api.latencies if by_answer else load.audience.latencies
    latencies.clear()
    with load.timed(lambda: publications.made, settings.seconds) as clock:
        published = run(settings.seconds)
    load.verify()
    return load.outcome("publishes", published, clock, latencies, in_flight=settings.in_flight if by_answer else 0)
