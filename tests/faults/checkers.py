"""Two checkers that judge a run by what its clients saw.

C1, recovery (`Checker`, `View`): from logs of publishers and subscribers, did anybody miss something and was not
told? Linear, because offsets give the order. Rules: (a) in one epoch, an offset is one publication, in every log;
(b) on a live subscription offsets go up by exactly one, or a filter left out all between; (c) after
`recovered: true` nothing is missing between the old and the new position; (d) what was acknowledged is where it was
said to be; (e) nothing comes that nobody published, or from another channel, or that a filter does not let through;
(f) at the end every subscriber is at the top.

C2, presence (`PresenceChecker`, `Told`): nobody who is surely there is missing, nobody who is surely gone is shown,
and who joins and leaves is told in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, final

import attrs

__all__ = ["Checker", "Place", "PresenceChecker", "Told", "View", "Violation"]

Tags = dict[str, str]


class Violation(AssertionError):
    """A promise was broken."""


@final
@attrs.frozen
class Place:
    """A position in a channel."""

    epoch: str
    offset: int


@final
class Checker:
    """All logs of one run. With `once`, a publication may have one place only, however often it was tried."""

    def __init__(self, *, once: bool = False) -> None:
        self._once = once
        self._where: dict[str, Place] = {}
        self._attempts: dict[str, tuple[str, Tags]] = {}
        self._what: dict[tuple[str, str, int], str] = {}
        self._skipped: list[tuple[str, Place, Callable[[Tags], bool]]] = []

    def attempted(self, channel: str, id: str, tags: Tags | None = None) -> None:
        """Somebody is about to publish `id`."""
        self._attempts[id] = (channel, tags or {})

    def acknowledged(self, channel: str, id: str, place: Place) -> None:
        """A publisher was told where `id` is."""
        self._is(channel, place, id)

    def seen(self, channel: str, id: str, place: Place) -> Tags:
        """A subscriber got `id`. Returns its tags."""
        where, tags = self._attempts.get(id, ("", {}))
        if where != channel:
            raise Violation(f"{id} came in {channel}, where nobody published it")
        self._is(channel, place, id)
        return tags

    def skipped(self, channel: str, place: Place, wanted: Callable[[Tags], bool]) -> None:
        """A subscriber did not get what is at `place`, because of its filter."""
        self._skipped.append((channel, place, wanted))

    def _is(self, channel: str, place: Place, id: str) -> None:
        known = self._what.setdefault((channel, place.epoch, place.offset), id)
        if known != id:
            raise Violation(f"{channel} {place} is {known} to one and {id} to another")
        if self._once and self._where.setdefault(id, place) != place:
            raise Violation(f"{channel}: {id} is at {self._where[id]} and at {place}")

    def top(self, channel: str, epoch: str) -> int:
        """The highest offset anybody knows of."""
        return max((o for c, e, o in self._what if c == channel and e == epoch), default=0)

    def finish(self) -> None:
        """Everything is known now: was what filters left out theirs to leave out?"""
        for channel, place, wanted in self._skipped:
            id = self._what.get((channel, place.epoch, place.offset))
            if id is not None and wanted(self._attempts[id][1]):
                raise Violation(f"{channel} {place}, {id}, was kept from one who wants it")


@final
class View:
    """What one client knows of one channel. `place` outlives the subscription: recovery begins there.

    `wanted` is its filter, if it has one.
    """

    def __init__(self, checker: Checker, channel: str) -> None:
        self._checker = checker
        self.channel = channel
        self.live = False
        self.place: Place | None = None
        self.wanted: Callable[[Tags], bool] | None = None

    def subscribed(self, result: dict[str, Any]) -> None:
        """The answer to a subscribe. Its publications are (offset, id)."""
        if self.live:
            raise Violation(f"{self.channel}: subscribed twice")
        epoch, offset = result.get("epoch", ""), result.get("offset", 0)
        pubs = result.get("publications", [])
        if result.get("recovered"):
            if self.place is None or self.place.epoch not in ("", epoch):
                raise Violation(f"{self.channel}: recovered {self.place} in epoch {epoch}")
            self.place = Place(epoch, self.place.offset)
            if offset != self.place.offset:
                raise Violation(f"{self.channel}: recovered from {offset}, not from {self.place}")
            self.live = True
            for pub in pubs:
                self.pushed(*pub)
        else:
            if pubs:
                raise Violation(f"{self.channel}: publications, but not recovered")
            self.place = Place(epoch, offset)
            self.live = True

    def pushed(self, offset: int, id: str) -> None:
        """A publication came."""
        if not self.live or self.place is None:
            raise Violation(f"{self.channel}: a push without a subscription")
        place = Place(self.place.epoch, offset)
        self._pass_over(place.offset)
        tags = self._checker.seen(self.channel, id, place)
        if self.wanted is not None and not self.wanted(tags):
            raise Violation(f"{self.channel}: {id} came through a filter that does not let it through")
        self.place = place

    def _pass_over(self, until: int) -> None:
        assert self.place is not None
        if until <= self.place.offset or (until != self.place.offset + 1 and self.wanted is None):
            raise Violation(f"{self.channel}: {until} after {self.place.offset}")
        for offset in range(self.place.offset + 1, until):
            assert self.wanted is not None
            self._checker.skipped(self.channel, Place(self.place.epoch, offset), self.wanted)

    def ended(self) -> None:
        """No longer subscribed, whoever ended it."""
        self.live = False

    def finish(self) -> None:
        """Everything has been quiet for long."""
        if self.live and self.place is not None:
            top = self._checker.top(self.channel, self.place.epoch)
            if self.place.offset < top:
                self._pass_over(top + 1)


@final
class Told:
    """Whom one subscription was told of: each joins and leaves in turns. Who was there before is not known."""

    def __init__(self) -> None:
        self._there: dict[str, bool] = {}

    def joined(self, client: str) -> None:
        self._turn(client, True)

    def left(self, client: str) -> None:
        self._turn(client, False)

    def _turn(self, client: str, there: bool) -> None:
        if self._there.get(client) is there:
            raise Violation(f"{client} {'joined' if there else 'left'} twice")
        self._there[client] = there


@final
@attrs.frozen
class _Sample:
    """Who was shown by an answer that was asked for at one time and came at another."""

    asked: float
    answered: float
    clients: frozenset[str]


@final
class PresenceChecker:
    """Samples of the presence of one channel against what its clients know of themselves. Times in seconds.

    Args:
        ttl: how long entries of a node that died may stay.
        margin: how long a client has to be there before it must be shown.
        clean: how long a client that left in good order may still be shown.
        slack: how much later than `ttl` an entry may go.
    """

    def __init__(self, ttl: float, *, margin: float = 1.0, clean: float = 1.0, slack: float = 2.0) -> None:
        self._dead_after = ttl + slack
        self._margin = margin
        self._clean_after = clean
        self._came: dict[str, float] = {}
        self._leaving: dict[str, float] = {}
        self._shown_until: dict[str, float] = {}
        self._samples: list[_Sample] = []

    def came(self, client: str, at: float) -> None:
        """`client` was told that it is subscribed."""
        self._came[client] = at

    def leaving(self, client: str, at: float) -> None:
        """From here on nobody knows: it is about to leave, or its node is about to die. The first time counts."""
        self._leaving.setdefault(client, at)

    def gone(self, client: str, at: float, *, node_died: bool = False) -> None:
        """It has surely left; with its node, which cleaned up nothing, or in good order."""
        self._leaving.setdefault(client, at)
        self._shown_until[client] = at + (self._dead_after if node_died else self._clean_after)

    def sampled(self, clients: Iterable[str], *, asked: float, answered: float) -> None:
        """The server answered who is there."""
        self._samples.append(_Sample(asked, answered, frozenset(clients)))

    @property
    def samples(self) -> int:
        """How often somebody looked."""
        return len(self._samples)

    def finish(self) -> None:
        """Judge all samples: they may have been logged before what they are judged by."""
        if not self._samples:
            raise Violation("nobody looked")
        for sample in self._samples:
            there = {
                client
                for client, since in self._came.items()
                if since + self._margin <= sample.asked
                and self._leaving.get(client, sample.answered) >= sample.answered
            }
            if missing := there - sample.clients:
                raise Violation(f"there, but not shown at {sample.answered:.2f}: {sorted(missing)}")
            ghosts = {client for client, until in self._shown_until.items() if until < sample.asked} & sample.clients
            if ghosts:
                raise Violation(f"gone, but shown at {sample.answered:.2f}: {sorted(ghosts)}")
            if strangers := sample.clients - self._came.keys() - self._leaving.keys():
                raise Violation(f"shown at {sample.answered:.2f}, but never there: {sorted(strangers)}")
