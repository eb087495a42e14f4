"""W1: clients as in Centrifugo's test with a million of them, who come and go while they are told things.

Each has a channel of its own and one that it shares with nine others; half of the deliveries come over each. Every
minute a fifth of the clients connects anew, with recovery in a namespace that has it.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, final

import attrs

from broker.bench.figures import Outcome
from broker.bench.journal import Wrong
from broker.bench.load import Load, pace
from broker.bench.members import Member, Places
from broker.bench.opening import Replies, Stream, subscribe
from broker.bench.sockets import Sock
from broker.bench.wire import Command

__all__ = ["million"]

GROUP = 10
DELIVERIES_PER_PUBLICATION = 2 * GROUP / (GROUP + 1)
EACH_PER_SECOND = 0.5
"""Deliveries to a client."""
CHURN_PER_SECOND = 0.2 / 60
API_LINKS = 16
WARM_UP_SECONDS = 1.0
PATIENCE = 10.0
QUIET_SECONDS = 0.3


@final
@attrs.define
class _Person:
    number: int
    places: Places
    positions: dict[int, tuple[int, str]] = attrs.field(factory=dict)
    """Channel -> offset of its first publication minus one, and epoch; where there is history."""
    member: Member | None = None


def million(load: Load) -> Outcome:
    settings = load.settings
    groups = max(settings.connections // GROUP, 1)
    load.add_journals(groups * (GROUP + 1))
    people = [_Person(n, Places([load.journals[c] for c in _channels(n)])) for n in range(groups * GROUP)]

    def use(number: int, sock: Sock, stream: Stream | None, replies: Replies, raw: bytes) -> None:
        _settle(load, people[number], sock, stream, replies, raw)

    load.open_links(range(len(people)), lambda number: _commands(load, people[number]), use)
    api = load.open_api(API_LINKS)
    publications = load.publications()
    interval = settings.batch * DELIVERIES_PER_PUBLICATION / (settings.rate or EACH_PER_SECOND * len(people))
    leaving: deque[tuple[_Person, float]] = deque()
    cut = 0.0

    def tick(due: float) -> None:
        nonlocal cut
        api.post(publications.spread(settings.batch, due))
        cut += interval * CHURN_PER_SECOND * len(people)
        while cut >= 1:
            cut -= 1
            people.append(people.pop(0))
            leaving.append((people[-1], time.perf_counter()))
        while leaving and _leave(load, *leaving[0]):
            leaving.popleft()

    def run(seconds: float) -> None:
        pace(load, interval, max(round(seconds / interval), 2), tick)
        load.poll.turn_until(lambda: api.idle, "answers of the API")

    run(WARM_UP_SECONDS)
    before = load.audience.deliveries
    load.audience.latencies.clear()
    with load.timed(lambda: load.audience.deliveries, settings.seconds) as clock:
        run(settings.seconds)
    outcome = load.outcome("deliveries", load.audience.deliveries - before, clock, load.audience.latencies)
    load.poll.turn_for(QUIET_SECONDS)
    late = sum(person.places.behind for person in people if person.member is not None)
    if late:
        raise Wrong(f"{late} deliveries were lost")
    return outcome


def _channels(number: int) -> tuple[int, int]:
    """A client's own channel, and the one of its group."""
    first = number // GROUP * (GROUP + 1)
    return first + number % GROUP, first + GROUP


def _commands(load: Load, person: _Person) -> list[Command]:
    commands = [load.connect(person.number)]
    for at, channel in enumerate(_channels(person.number)):
        more: dict[str, Any] = {}
        if channel in person.positions:
            base, epoch = person.positions[channel]
            more = {"recover": True, "offset": base + person.places.next[channel], "epoch": epoch}
        commands.append(subscribe(load.settings.channel(channel), 2 + at, **more))
    return commands


def _settle(load: Load, person: _Person, sock: Sock, stream: Stream | None, replies: Replies, raw: bytes) -> None:
    """Somebody has connected and subscribed."""
    for reply in replies:
        if reply["id"] >= 2:
            channel, result = _channels(person.number)[reply["id"] - 2], reply.get("subscribe", {})
            if channel in person.positions:
                if not result.get("recovered"):
                    raise Wrong(f"channel {channel}: not recovered")
            elif result.get("recoverable"):
                missed = load.journals[channel].posted
                person.positions[channel] = int(result.get("offset", 0)) - missed, result["epoch"]
    if not person.positions:
        person.places.begin_anew()
    person.member = Member(sock, stream, load.audience, person.places.take)
    load.poll.replace(person.member)
    person.member.feed(raw)


def _leave(load: Load, person: _Person, since: float) -> bool:
    """Cut somebody off who has read all that was sent to it, and let it come again; False while it has not."""
    if person.member is None:
        return True
    if person.places.behind:
        if time.perf_counter() - since > PATIENCE:
            raise Wrong(f"{person.places.behind} deliveries to a client were lost")
        return False
    load.poll.drop(person.member)
    person.member = None

    def use(sock: Sock, stream: Stream | None, replies: Replies, raw: bytes) -> None:
        _settle(load, person, sock, stream, replies, raw)

    load.open_link(_commands(load, person), use)
    return True
