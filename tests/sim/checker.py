"""The recovery checker C1: from logs of publishers and subscribers, did anybody miss something and was not told?

Linear, because offsets give the order. Rules: (a) in one epoch, an offset is one publication, in every log; (b) on a
live subscription offsets go up by exactly one, or a filter left out all between; (c) after `recovered: true` nothing is
missing between the old and the new position; (d) what was acknowledged is where it was said to be; (e) nothing comes
that nobody published, or from another channel, or that a filter does not let through; (f) at the end every subscriber
is at the top.

Beside it: who joins and leaves is told in turns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import attrs

__all__ = ["Checker", "Place", "Told", "View", "Violation"]

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
    """All logs of one run."""

    def __init__(self) -> None:
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
