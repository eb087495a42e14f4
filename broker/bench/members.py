"""Clients of several channels, which may come and go, and what each of them has to read next."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import final

from broker.bench.clients import Audience, answer_ping
from broker.bench.journal import Journal, Wrong
from broker.bench.marks import find_keys, tail_of
from broker.bench.opening import Stream
from broker.bench.sockets import Sock, read

__all__ = ["Member", "Places"]


@final
class Member:
    """A connection whose publications are looked at one by one."""

    __slots__ = ("_audience", "_rest", "_stream", "_take", "sock")

    def __init__(self, sock: Sock, stream: Stream | None, audience: Audience, take: Callable[[bytes], None]) -> None:
        """`take` gets each key, and raises `Wrong` where another is due."""
        self.sock = sock
        self._stream = stream
        self._audience = audience
        self._take = take
        self._rest = b""

    def readable(self) -> None:
        data = read(self.sock)
        if self._stream is not None:
            data = self._stream.feed(data)
        answer_ping(data, self.sock, self._stream, self._audience.wire)
        self.feed(data)

    def feed(self, data: bytes) -> None:
        """Bytes of the connection, such as those that came before it was ready."""
        data = self._rest + data
        audience = self._audience
        now = time.perf_counter()
        for key in find_keys(data):
            self._take(key)
            audience.deliveries += 1
            if (sent := audience.sent_at.get(key)) is not None:
                audience.latencies.add(now, sent)
        self._rest = tail_of(data)


@final
class Places:
    """How far one client has come in its channels, over all its connections.

    Publications of one channel are sent one after another here, so their numbers go up by one. Whoever subscribes anew
    without recovery may begin anywhere up to what is sent next: what was under way may come or not.
    """

    __slots__ = ("_journals", "_latest", "next")

    def __init__(self, journals: Sequence[Journal]) -> None:
        self._journals = {journal.channel: journal for journal in journals}
        self.next = {journal.channel: journal.posted for journal in journals}
        """Channel -> the number that is due."""
        self._latest: set[int] = set()

    def begin_anew(self) -> None:
        """The client has subscribed without recovery."""
        self.next = {channel: journal.posted for channel, journal in self._journals.items()}
        self._latest = set(self.next)

    def take(self, key: bytes) -> None:
        """
        Raises:
            Wrong: another publication is due.
        """
        channel, number = int(key[:6]), int(key[6:])
        due = self.next.get(channel)
        if due is None:
            raise Wrong(f"a publication of channel {channel} came to somebody who has not subscribed to it")
        if number != due and not (channel in self._latest and number < due):
            what = "lost" if number > due else "doubled or late"
            raise Wrong(f"channel {channel}: publication {number} came where {due} is due, something is {what}")
        self._latest.discard(channel)
        self.next[channel] = number + 1

    @property
    def behind(self) -> int:
        """Publications that were sent and have not been read."""
        return sum(journal.posted - self.next[channel] for channel, journal in self._journals.items())
