"""The recovery checker C1: from logs of publishers and subscribers, did anybody miss something and was not told?

Linear, because offsets give the order. Rules: (a) in one epoch, an offset is one publication, in every log; (b) on a
live subscription offsets go up by exactly one; (c) after `recovered: true` nothing is missing between the old and the
new position; (d) what was acknowledged is where it was said to be; (e) nothing comes that nobody published, or from
another channel; (f) at the end every subscriber is at the top.
"""

from __future__ import annotations

from typing import Any, final

import attrs

__all__ = ["Checker", "Place", "View", "Violation"]


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
        self._attempts: dict[str, str] = {}
        self._what: dict[tuple[str, str, int], str] = {}

    def attempted(self, channel: str, id: str) -> None:
        """Somebody is about to publish `id`."""
        self._attempts[id] = channel

    def acknowledged(self, channel: str, id: str, place: Place) -> None:
        """A publisher was told where `id` is."""
        self._is(channel, place, id)

    def seen(self, channel: str, id: str, place: Place) -> None:
        """A subscriber got `id`."""
        if self._attempts.get(id) != channel:
            raise Violation(f"{id} came in {channel}, where nobody published it")
        self._is(channel, place, id)

    def _is(self, channel: str, place: Place, id: str) -> None:
        known = self._what.setdefault((channel, place.epoch, place.offset), id)
        if known != id:
            raise Violation(f"{channel} {place} is {known} to one and {id} to another")

    def top(self, channel: str, epoch: str) -> int:
        """The highest offset anybody knows of."""
        return max((o for c, e, o in self._what if c == channel and e == epoch), default=0)


@final
class View:
    """What one client knows of one channel. `place` outlives the subscription: recovery begins there."""

    def __init__(self, checker: Checker, channel: str) -> None:
        self._checker = checker
        self.channel = channel
        self.live = False
        self.place: Place | None = None

    def subscribed(self, result: dict[str, Any]) -> None:
        """The answer to a subscribe."""
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
                self.pushed(pub)
        else:
            if pubs:
                raise Violation(f"{self.channel}: publications, but not recovered")
            self.place = Place(epoch, offset)
            self.live = True

    def pushed(self, pub: dict[str, Any]) -> None:
        """A publication came."""
        if not self.live or self.place is None:
            raise Violation(f"{self.channel}: a push without a subscription")
        place = Place(self.place.epoch, pub["offset"])
        if place.offset != self.place.offset + 1:
            raise Violation(f"{self.channel}: {place.offset} after {self.place.offset}")
        self._checker.seen(self.channel, pub["data"], place)
        self.place = place

    def ended(self) -> None:
        """No longer subscribed, whoever ended it."""
        self.live = False

    def finish(self) -> None:
        """Everything has been quiet for long."""
        if self.live and self.place is not None:
            top = self._checker.top(self.channel, self.place.epoch)
            if self.place.offset < top:
                raise Violation(f"{self.channel}: stays at {self.place}, the top is {top}")
