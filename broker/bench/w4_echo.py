"""W4: every client publishes, to a channel that only it hears and to one that it shares with five others."""

from __future__ import annotations

from broker.bench.figures import Outcome
from broker.bench.load import Load, pace
from broker.bench.marks import data_of, key_of
from broker.bench.members import Member
from broker.bench.opening import Replies, Stream, subscribe
from broker.bench.sockets import Sock, send
from broker.bench.wire import Command

__all__ = ["echo"]

GROUP = 6
DELIVERIES_PER_ROUND = 1 + GROUP
WARM_UP_SECONDS = 0.5


def echo(load: Load) -> Outcome:
    """`settings.rate` deliveries a second, a seventh of them to the publisher alone."""
    settings = load.settings
    if load.target.transport != "websocket":
        raise ValueError("W4 sends its commands over WebSocket only")
    groups = max(settings.connections // GROUP, 1)
    count = groups * GROUP
    load.add_journals(count + groups)
    members: dict[int, Member] = {}
    sent_at: dict[bytes, float] = {}
    load.audience.sent_at = sent_at
    expected = 0
    data = data_of(settings.size)
    turn = 0

    def commands(number: int) -> list[Command]:
        group = count + number // GROUP
        return [
            load.connect(number),
            subscribe(settings.channel(number), 2),
            subscribe(settings.channel(group), 3),
        ]

    def use(number: int, sock: Sock, stream: Stream | None, _: Replies, __: bytes) -> None:
        at: dict[int, int] = {}

        def take(key: bytes) -> None:
            channel = int(key[:6])
            at[channel] = load.journals[channel].follow(at.get(channel, 0), key)

        members[number] = Member(sock, stream, load.audience, take)
        load.poll.replace(members[number])

    def publish(member: Member, channel: int, due: float) -> None:
        key = key_of(channel, load.journals[channel].post())
        sent_at[b"%015d" % key] = due
        send(member.sock, load.wire.publish_frame(settings.channel(channel), data % key))

    def tick(due: float) -> None:
        nonlocal turn, expected
        number = turn % groups * GROUP + turn // groups % GROUP
        publish(members[number], number, due)
        publish(members[number], count + number // GROUP, due)
        turn += 1
        expected += DELIVERIES_PER_ROUND

    def run(seconds: float) -> None:
        interval = DELIVERIES_PER_ROUND / settings.rate
        pace(load, interval, max(round(seconds / interval), 2), tick)
        load.drain(None, lambda: load.audience.deliveries, lambda: expected)

    load.open_links(range(count), commands, use)
    run(WARM_UP_SECONDS)
    before = load.audience.deliveries
    load.audience.latencies.clear()
    with load.timed(lambda: load.audience.deliveries, settings.seconds) as clock:
        run(settings.seconds)
    load.verify()
    return load.outcome("deliveries", load.audience.deliveries - before, clock, load.audience.latencies)
