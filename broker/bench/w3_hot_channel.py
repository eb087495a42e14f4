"""W3: one channel, many subscribers, publications through the HTTP API.

W3p  paced: so few a second that no publication can be joined with another
W3   in turn: the next as soon as the API has answered
W3s  busy: many requests in flight, publications pile up
"""

from __future__ import annotations

import time
from collections.abc import Callable

from broker.bench.api import ApiPool, Publications
from broker.bench.crowd import Crowd
from broker.bench.figures import Outcome
from broker.bench.load import PROBES, Load, pace

__all__ = ["PACED_API_LINKS", "in_turn_or_busy", "paced"]

WARM_UP_SECONDS = 0.3
PACED_API_LINKS = 16


def in_turn_or_busy(load: Load) -> Outcome:
    """`settings.in_flight` publications at a time."""
    settings = load.settings
    load.add_journals(1)
    crowd = Crowd(load, probes=PROBES)
    api = load.open_api(settings.in_flight)
    publications = load.publications()

    def run(seconds: float) -> None:
        end = time.perf_counter() + seconds
        api.keep_busy(publications.make_until(end, settings.batch), settings.in_flight)
        _drain(load, api, crowd, publications)

    run(WARM_UP_SECONDS)
    return _outcome(load, crowd, lambda: run(settings.seconds), settings.seconds)


def paced(load: Load) -> Outcome:
    """`settings.rate` deliveries a second, sent when they are due whether or not the server keeps up."""
    settings = load.settings
    load.add_journals(1)
    crowd = Crowd(load, probes=PROBES)
    api = load.open_api(PACED_API_LINKS)
    publications = load.publications()
    interval = settings.connections / settings.rate

    def run(count: int) -> None:
        pace(load, interval, count, lambda due: api.post(publications.make(due)))
        _drain(load, api, crowd, publications)

    run(max(round(WARM_UP_SECONDS / interval), 2))
    return _outcome(load, crowd, lambda: run(max(round(settings.seconds / interval), 2)), settings.seconds)


def _drain(load: Load, api: ApiPool, crowd: Crowd, publications: Publications) -> None:
    load.drain(api, lambda: crowd.deliveries, lambda: publications.made * load.settings.connections)


def _outcome(load: Load, crowd: Crowd, run: Callable[[], None], seconds: float) -> Outcome:
    before = crowd.deliveries
    load.audience.latencies.clear()
    with load.timed(lambda: crowd.deliveries, seconds) as clock:
        run()
    count = crowd.deliveries - before
    outcome = load.outcome("deliveries", count, clock, load.audience.latencies)
    crowd.end()
    return outcome
