"""W9: publications through the HTTP API, keep-alive, to one subscriber per channel.

W9   one publication per request, one channel
W9b  a `batch` of publications per request
W9d  one per request, over many channels: the whole way from publish to delivery
"""

from __future__ import annotations

import time

from benchmarks.figures import Figures, Settings, latencies, rates, timed
from benchmarks.load import Load, Publications, drain
from benchmarks.servers import Server

BATCH = 100
WARM_UP_SECONDS = 0.5


def single(server: Server, settings: Settings) -> Figures:
    return _publish(server, settings, 1)


def batch(server: Server, settings: Settings) -> Figures:
    return _publish(server, settings, BATCH)


def _publish(server: Server, settings: Settings, per_request: int) -> Figures:
    with Load(server) as load:
        channels = [settings.channel(number) for number in range(settings.channels)]
        audience = load.subscribe(len(channels), lambda number: channels[number])
        api = load.open_api(settings.in_flight)
        publications = Publications(server, audience, channels, settings.size, per_request)

        def run(seconds: float) -> int:
            before = publications.made
            api.keep_busy(publications.make_until(time.perf_counter() + seconds), settings.in_flight)
            drain(load, api, audience, lambda: publications.made)
            return publications.made - before

        run(WARM_UP_SECONDS)
        api.latencies.clear()
        with timed(server) as clock:
            published = run(settings.seconds)
        return rates("publishes", published, clock) | latencies(api.latencies)
