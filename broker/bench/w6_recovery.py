"""W6: all clients are cut off at once, publications go on, and all come again and recover what they missed."""

from __future__ import annotations

import time

from broker.bench.api import ApiPool, Publications
from broker.bench.figures import Outcome
from broker.bench.journal import Wrong
from broker.bench.load import Load
from broker.bench.members import Member, Places
from broker.bench.opening import Replies, Stream, subscribe
from broker.bench.records import Latencies
from broker.bench.sockets import Sock
from broker.bench.wire import Command

__all__ = ["recovery"]

READ_BEFORE = 5
MISSED = 20
"""Publications of each channel."""
CONNECTS_PER_PUBLICATION = 20
"""During the storm."""


def recovery(load: Load) -> Outcome:
    """Latency is from the begin of a connection to the last publication that it had missed."""
    settings = load.settings
    count, channels = settings.connections, settings.channels
    load.add_journals(channels)
    places = [Places([load.journals[number % channels]]) for number in range(count)]
    positions: dict[int, tuple[int, str]] = {}
    members: dict[int, Member] = {}
    began: dict[int, float] = {}
    recovered = Latencies()

    def first(number: int) -> list[Command]:
        return [load.connect(number), subscribe(settings.channel(number % channels))]

    def again(number: int) -> list[Command]:
        if not number % CONNECTS_PER_PUBLICATION:
            api.post(publications.spread(1))
        began[number] = time.perf_counter()
        base, epoch = positions[number]
        offset = base + places[number].next[number % channels]
        name = settings.channel(number % channels)
        return [load.connect(number), subscribe(name, recover=True, offset=offset, epoch=epoch)]

    def use(number: int, sock: Sock, stream: Stream | None, replies: Replies, raw: bytes) -> None:
        result = replies[-1].get("subscribe", {})
        if number not in positions:
            if not result.get("recoverable"):
                raise Wrong(f"{settings.channel(0)} keeps no history to recover from: say --namespace")
            positions[number] = int(result.get("offset", 0)), result["epoch"]
        elif not result.get("recovered"):
            raise Wrong("the server could not recover a client")
        members[number] = Member(sock, stream, load.audience, places[number].take)
        load.poll.replace(members[number])
        members[number].feed(raw)
        if number in began:
            recovered.add(time.perf_counter(), began[number])

    load.open_links(range(count), first, use)
    api = load.open_api(1)  # one request at a time, so that the numbers of a channel go up
    publications = load.publications()
    _publish(load, api, publications, READ_BEFORE * channels)
    _wait(load, places)
    for member in members.values():
        load.poll.drop(member)
    _publish(load, api, publications, MISSED * channels)
    load.audience.latencies.clear()
    with load.timed(lambda: len(began), 0) as clock:
        load.open_links(range(count), again, use)
        load.poll.turn_until(lambda: api.idle, "answers of the API")
        _wait(load, places)
    outcome = load.outcome("recoveries", count, clock, recovered)
    outcome.figures["s to the last"] = clock.wall
    return outcome


def _publish(load: Load, api: ApiPool, publications: Publications, count: int) -> None:
    for _ in range(count):
        api.post(publications.spread(1))
    load.poll.turn_until(lambda: api.idle, "answers of the API")


def _wait(load: Load, places: list[Places]) -> None:
    load.poll.turn_until(lambda: not any(place.behind for place in places), "all that was missed")
