"""One channel of this node: who listens, what waits to be told, and the pump that tells it.

The order of a channel is the order of its events; only `Channel` fans them out. A publication enters by `push`
in the same breath in which the engine gave it its offset. Where few listen, it is told at once; else a pump task
runs for as long as events wait, takes all that piled up, and makes one send per subscriber and round. Nothing is
ever delayed in order to be joined.

A positioned subscription goes through three states, each with its own set, so that nothing falls between:
collecting (it is being prepared; what is published meanwhile is noted), joining (its position is known; it
takes part from the first event above it), live (in a group: position checks happen once per channel, here).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, final

import trio

from broker.hub.subscription import DeltaMode, Event, Group, GroupKey, Subscription, encode
from broker.protocol import ClientInfo, NotJson, Publication, StreamPosition, codes

__all__ = ["Channel"]

_FEW = 16
"""Up to so many subscribers are served by whoever publishes."""
_CHUNK = 256
"""Deliveries between two checkpoints of a pump: less than a millisecond."""
_ROUND_EVENTS = 128
_ROUND_BYTES = 1 << 20
_FULL_EVENTS = 1024
_FULL_BYTES = 8 << 20

Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


@final
class Channel:
    """The subscribers of one channel on this node.

    `groups`: live subscriptions by what they are sent. `joining`: subscriptions with the position (or the number of
    the last event) above which they take part. `collecting`: publications noted for those being prepared. `top`:
    position of the last publication told, None until one was or a positioned subscription joined.
    """

    __slots__ = (
        "_room",
        "_running",
        "_spawn",
        "_waiting",
        "_waiting_bytes",
        "collecting",
        "deliveries",
        "groups",
        "joining",
        "name",
        "number",
        "ready",
        "subscriptions",
        "top",
    )

    def __init__(self, name: str, spawn: Spawn) -> None:
        self.name = name
        self._spawn = spawn
        self.groups: dict[GroupKey, Group] = {}
        self.joining: dict[Subscription, tuple[StreamPosition | None, int]] = {}
        self.collecting: dict[Subscription, list[Publication]] = {}
        self.top: StreamPosition | None = None
        self.ready: trio.Event | None = None  # while the engine is being asked to begin or end delivering
        self.number = 0
        self.subscriptions = 0
        self.deliveries = 0
        self._waiting: deque[Event] | None = None
        self._waiting_bytes = 0
        self._running = False
        self._room: trio.Event | None = None

    # ---- subscriptions come and go ------------------------------------------------------------------------------

    def collect(self, sub: Subscription) -> None:
        """Begin to note publications for `sub`, which is being prepared."""
        self.subscriptions += 1
        self.collecting[sub] = []

    def collected(self, sub: Subscription) -> list[Publication]:
        """What was published since `collect`."""
        return self.collecting[sub]

    def go_live(self, sub: Subscription, position: StreamPosition | None) -> None:
        """`sub` knows everything up to `position`, including what was collected; tell it what comes after.

        Without a position it takes part from the next event on.
        """
        del self.collecting[sub]
        if not self._running:
            if position is None or self.top == position:
                self._enter(sub)
                return
            if self.top is None or not self._any_positioned():
                self.top = position
                self._enter(sub)
                return
        self.joining[sub] = (position, self.number)

    def _any_positioned(self) -> bool:
        if self.joining:
            return True
        return any(sub.positioned for group in self.groups.values() for sub in group.members)

    def _enter(self, sub: Subscription) -> None:
        group = self.groups.get(sub.key)
        if group is None:
            group = self.groups[sub.key] = Group(sub.key)
        sub.key = group.key  # equal keys are one object
        group.members[sub] = None
        sub.group = group

    def _exit(self, sub: Subscription) -> None:
        group = sub.group
        if group is not None:
            sub.group = None
            del group.members[sub]
            if not group.members:
                del self.groups[group.key]

    def remove(self, sub: Subscription) -> None:
        """End `sub`, whatever state it is in. Nothing is offered to it afterwards."""
        sub.end()
        self._exit(sub)
        self.joining.pop(sub, None)
        self.collecting.pop(sub, None)
        self.subscriptions -= 1

    # ---- events come in -----------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether publishers should wait for `wait_room`."""
        waiting = self._waiting
        return waiting is not None and (len(waiting) >= _FULL_EVENTS or self._waiting_bytes >= _FULL_BYTES)

    @property
    def busy(self) -> bool:
        """Whether events wait to be told: `top` is about to move."""
        return self._running

    async def wait_room(self) -> None:
        """Wait until the pump has taken something."""
        if self._room is None:
            self._room = trio.Event()
        await self._room.wait()

    def push_publication(self, pub: Publication, epoch: str, base: Publication | None) -> None:
        """A publication came from the engine."""
        if self.collecting and pub.offset:
            for noted in self.collecting.values():
                noted.append(pub)
        self.number += 1
        self._push(Event(self.number, pub=pub, epoch=epoch, base=base), len(pub.data))

    def push_join(self, info: ClientInfo) -> None:
        self.number += 1
        self._push(Event(self.number, join=info), 0)

    def push_leave(self, info: ClientInfo) -> None:
        self.number += 1
        self._push(Event(self.number, leave=info), 0)

    def _push(self, event: Event, size: int) -> None:
        if not self._running:
            if self.subscriptions <= _FEW:
                self._running = True  # a subscriber that ends within this fan-out may publish a leave: it queues
                try:
                    self._tell_few(event)
                finally:
                    self._running = False
                if self._waiting:
                    self._start()
                return
            self._start()
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(event)
        self._waiting_bytes += size

    def _start(self) -> None:
        self._running = True
        self._spawn(self._pump)

    # ---- fan-out ------------------------------------------------------------------------------------------------

    def _tell_few(self, event: Event) -> None:
        events = self._checked([event])
        if events:
            for group, data in self._encoded(events):
                for sub in tuple(group.members):
                    sub.offer(data)
                self.deliveries += len(group.members)
                self._advance_delta(group, events)

    async def _pump(self) -> None:
        """Lives while events wait."""
        while self._waiting:
            events = self._checked(self._take())
            told: list[tuple[Group, list[Subscription], bytes]] = [
                (group, list(group.members), data) for group, data in self._encoded(events)
            ]
            for group, _, _ in told:
                self._advance_delta(group, events)
            for _, members, data in told:
                self.deliveries += len(members) * len(events)
                for start in range(0, len(members), _CHUNK):
                    for sub in members[start : start + _CHUNK]:
                        sub.offer(data)
                    # in order: only this task fans out, so a checkpoint here cannot invert anything
                    await trio.lowlevel.checkpoint()
        self._waiting = None
        # no await between the empty queue and this: an event in between would wait for ever
        self._running = False
        if self.joining:
            self._settle_joining()

    def _take(self) -> list[Event]:
        waiting = self._waiting
        assert waiting is not None
        events: list[Event] = []
        size = 0
        while waiting and len(events) < _ROUND_EVENTS and size < _ROUND_BYTES:
            event = waiting.popleft()
            events.append(event)
            if event.pub is not None:
                size += len(event.pub.data)
        self._waiting_bytes -= size
        if self._room is not None:
            self._room.set()
            self._room = None
        return events

    def _checked(self, events: list[Event]) -> list[Event]:
        """Check positions, once for the whole channel, and let joining subscriptions in where they belong."""
        for at, event in enumerate(events):
            pub = event.pub
            if self.joining:
                # Subscriptions of this round's joiners must see only what is above their position: tell what came
                # before them first, then let them in. Rare, so the round is simply split.
                ready = [sub for sub, mark in self.joining.items() if _takes_part(mark, event)]
                if ready and at:
                    self._put_back(events[at:])
                    return events[:at]
                for sub in ready:
                    position, _ = self.joining.pop(sub)
                    if position is not None and pub is not None and pub.offset and self._gap(position, event):
                        sub.subscriber.lost(self.name)
                    else:
                        self._enter(sub)
            if pub is not None and pub.offset:
                top = self.top
                if top is not None and self._gap(top, event):
                    if at:
                        self._put_back(events[at:])
                        return events[:at]
                    self._lose_all_positioned()
                self.top = StreamPosition(pub.offset, event.epoch)
        return events

    @staticmethod
    def _gap(position: StreamPosition, event: Event) -> bool:
        assert event.pub is not None
        if position.epoch != event.epoch:
            return bool(position.epoch)
        return event.pub.offset > position.offset + 1

    def _put_back(self, events: Sequence[Event]) -> None:
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.extendleft(reversed(events))
        self._waiting_bytes += sum(len(event.pub.data) for event in events if event.pub is not None)

    def _lose_all_positioned(self) -> None:
        lost = [sub for group in self.groups.values() for sub in group.members if sub.positioned]
        for sub in lost:
            sub.subscriber.lost(self.name)

    def _settle_joining(self) -> None:
        for sub, (position, number) in list(self.joining.items()):
            if position is None or self.top is None or position == self.top:
                del self.joining[sub]
                if position is not None:
                    self.top = position
                self._enter(sub)
            elif number <= self.number and position.epoch != self.top.epoch:
                # the channel went on in another epoch while history was read
                del self.joining[sub]
                sub.subscriber.lost(self.name)

    def _encoded(self, events: Sequence[Event]) -> list[tuple[Group, bytes]]:
        told: list[tuple[Group, bytes]] = []
        for group in list(self.groups.values()):
            try:
                data = encode(self.name, group.key, events)
            except NotJson:
                for sub in list(group.members):
                    sub.subscriber.disconnect(codes.INAPPROPRIATE_PROTOCOL)
                continue
            if data:
                told.append((group, data))
        return told

    def _advance_delta(self, group: Group, events: Sequence[Event]) -> None:
        """A group that had no base has one now: it moves on to patches."""
        key = group.key
        if key.delta is not DeltaMode.FIRST or not any(event.pub is not None and event.pub.offset for event in events):
            return
        for sub in list(group.members):
            if sub.positioned:
                self._exit(sub)
                sub.key = key._replace(delta=DeltaMode.PATCHES)
                self._enter(sub)


def _takes_part(mark: tuple[StreamPosition | None, int], event: Event) -> bool:
    position, number = mark
    if position is None or event.pub is None or not event.pub.offset:
        return event.number > number
    return event.epoch != position.epoch or event.pub.offset > position.offset
