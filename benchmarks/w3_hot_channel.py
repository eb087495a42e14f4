"""W3: one channel, many subscribers, publications through the HTTP API.

W3p  paced: so few a second that no publication can be joined with another
W3   in turn: the next as soon as the API has answered
W3s  busy: many requests in flight, publications pile up
"""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.figures import Figures, Settings, latencies, rates, timed
from benchmarks.load import PROBES, Load, Publications, drain
from benchmarks.servers import Server
from benchmarks.sockets import Audience

CHANNEL = "hot"
WARM_UP_SECONDS = 0.3
PACED_API_LINKS = 16


def in_turn_or_busy(server: Server, settings: Settings) -> Figures:
    """`settings.in_flight` publications at a time."""
    with Load(server) as load:
        audience = load.subscribe(settings.connections, lambda _: CHANNEL, probes=PROBES)
        api = load.open_api(settings.in_flight)
        publications = Publications(server, audience, [CHANNEL], settings.size)

        def run(seconds: float) -> None:
            api.keep_busy(publications.make_until(time.perf_counter() + seconds), settings.in_flight)
            drain(load, api, audience, lambda: publications.made * settings.connections)

        run(WARM_UP_SECONDS)
        return _figures(server, audience, lambda: run(settings.seconds))


def paced(server: Server, settings: Settings) -> Figures:
    """`settings.rate` deliveries a second, sent when they are due whether or not the server keeps up."""
    with Load(server) as load:
        audience = load.subscribe(settings.connections, lambda _: CHANNEL, probes=PROBES)
        api = load.open_api(PACED_API_LINKS)
        publications = Publications(server, audience, [CHANNEL], settings.size)
        interval = settings.connections / settings.rate

        def run(count: int) -> None:
            begin = time.perf_counter()
            for number in range(count):
                due = begin + number * interval
                while (left := due - time.perf_counter()) > 0:
                    load.poll.turn(left)
                api.post(publications.make(at=due))
            drain(load, api, audience, lambda: publications.made * settings.connections)

        run(max(round(WARM_UP_SECONDS / interval), 2))
        return _figures(server, audience, lambda: run(max(round(settings.seconds / interval), 2)))


def _figures(server: Server, audience: Audience, run: Callable[[], None]) -> Figures:
    before = audience.deliveries
    audience.latencies.clear()
    with timed(server) as clock:
        run()
    return rates("deliveries", audience.deliveries - before, clock) | latencies(audience.latencies)
