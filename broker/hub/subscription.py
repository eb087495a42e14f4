"""A subscription, as the fan-out sees it, and the groups that share encoded bytes."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, final

from broker.hub.ports import Subscriber
from broker.protocol import ClientInfo, Filter, Publication, fossil
from broker.protocol.wire import Wire

__all__ = ["DeltaMode", "Event", "Group", "GroupKey", "Subscription", "encode", "plain_key"]


@final
class DeltaMode(enum.Enum):
    """Whether a subscription gets patches.

    FIRST: negotiated, but the client has no base yet: the next publication goes out full, then the subscription
    moves to PATCHES.
    """

    OFF = 0
    FIRST = 1
    PATCHES = 2

    __hash__ = object.__hash__  # that of Enum is a method in Python, and keys of groups are hashed all the time


class GroupKey(NamedTuple):
    """What makes subscriptions of one channel get the same bytes."""

    wire: Wire
    delta: DeltaMode
    join_leave: bool
    filter: Filter | None


@lru_cache(maxsize=64)  # more than a server has wires
def plain_key(wire: Wire) -> GroupKey:
    """The key of those who get publications as they are."""
    return GroupKey(wire, DeltaMode.OFF, False, None)


@final
class Event:
    """What happened in a channel, waiting for its fan-out. Exactly one of `pub`, `join`, `leave` is set.

    `number` counts the events of a channel; `base` is the publication that a patch starts from.
    """

    __slots__ = ("_patches", "base", "epoch", "join", "leave", "number", "pub")

    def __init__(
        self,
        number: int,
        *,
        pub: Publication | None = None,
        epoch: str = "",
        base: Publication | None = None,
        join: ClientInfo | None = None,
        leave: ClientInfo | None = None,
    ) -> None:
        self.number = number
        self.pub = pub
        self.epoch = epoch
        self.base = base
        self.join = join
        self.leave = leave
        self._patches: dict[bool, Publication] | None = None

    def patched(self, effort: fossil.Effort, *, text: bool) -> Publication:
        """The publication as a patch to its base, if that is shorter; made once for all groups."""
        assert self.pub is not None
        assert self.base is not None
        text = text and not self.pub.data.isascii()  # ASCII can be cut anywhere
        if self._patches is None:
            self._patches = {}
        made = self._patches.get(text)
        if made is None:
            made = self._patches[text] = patched(self.base, self.pub, effort, text=text)
        return made


def _ended(_: bytes) -> None:
    """The pipe of a subscription that has ended: what a running fan-out still sends to it goes nowhere."""


class Subscription:
    """One client in one channel.

    `offer` is its pipe: the outbox of its connection while it lives, a void once it has ended, so that a fan-out
    under way needs no check. `group` is None until it is live. `meta_ttl`: seconds for which its channel's position
    outlives the last use.
    """

    __slots__ = ("group", "key", "meta_ttl", "offer", "positioned", "subscriber")

    def __init__(self, subscriber: Subscriber, key: GroupKey, *, positioned: bool) -> None:
        self.subscriber = subscriber
        self.key = key
        self.positioned = positioned
        self.meta_ttl = 0.0
        self.group: Group | None = None
        self.offer: Callable[[bytes], None] = subscriber.outbox.offer

    def end(self) -> None:
        """Close the pipe."""
        self.offer = _ended


@final
class Group:
    """The live subscriptions of a channel that get the same bytes."""

    __slots__ = ("key", "members", "plain")

    def __init__(self, key: GroupKey) -> None:
        self.key = key
        self.plain = key.delta is DeltaMode.OFF and key.filter is None and not key.join_leave
        self.members: dict[Subscription, None] = {}


def encode(channel: str, key: GroupKey, events: Sequence[Event]) -> bytes:
    """The bytes that tell `events` to one group; empty if none of them is for it.

    Raises:
        NotJson: a payload cannot be told to JSON clients.
    """
    codec = key.wire.codec
    if key.filter is None and key.delta is DeltaMode.OFF and not key.join_leave:
        units = [
            codec.push_publication(channel, event.pub, epoch=event.epoch if event.pub.offset == 1 else "")
            for event in events
            if event.pub is not None
        ]
    else:
        effort = fossil.Effort()  # for the whole round: nobody else gets a turn before its end
        units = [unit for event in events if (unit := _encode_one(channel, key, event, effort)) is not None]
    return key.wire.pack(units) if units else b""


def _encode_one(channel: str, key: GroupKey, event: Event, effort: fossil.Effort) -> bytes | None:
    codec = key.wire.codec
    pub = event.pub
    if pub is None:
        if not key.join_leave:
            return None
        if event.join is not None:
            return codec.push_join(channel, event.join)
        assert event.leave is not None
        return codec.push_leave(channel, event.leave)
    if key.delta is DeltaMode.OFF:
        if key.filter is not None and not key.filter.matches(pub.tags):
            return None
        return codec.push_publication(channel, pub, epoch=event.epoch if pub.offset == 1 else "")
    # Filters do not apply to delta subscriptions: dropping one publication would break the chain of patches.
    if key.delta is DeltaMode.PATCHES and event.base is not None:
        pub = event.patched(effort, text=not codec.binary)
    return codec.push_publication(channel, pub, escaped=True)


def patched(base: Publication, pub: Publication, effort: fossil.Effort, *, text: bool) -> Publication:
    """`pub` as a patch to `base`, or `pub` itself where a patch would not be shorter, or is not worth the effort."""
    make = fossil.create_text if text else fossil.create
    patch = make(base.data, pub.data, effort)
    if patch is None or len(patch) >= len(pub.data):
        return pub
    return Publication(data=patch, info=pub.info, offset=pub.offset, tags=pub.tags, delta=True)
