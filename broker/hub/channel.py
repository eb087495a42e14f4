"""One channel of this node: who listens, what waits to be told, and the pump that tells it.

The order of a channel is the order of its events; only `Channel` fans them out. A publication enters by `push`
in the same breath in which the engine gave it its offset. Where few listen, it is told at once; else a pump task
runs for as long as events wait, takes all that piled up, and makes one send per subscriber and round. Nothing is
ever delayed in order to be joined.

A positioned subscription goes through three states, each with its own set, so that nothing falls between:
collecting (it is being prepared; what is published meanwhile is noted), joining (its position is known, and the
channel has not told that much, or not yet; it takes part from the first publication above it), live (in a group:
position checks happen once per channel, here). An engine elsewhere may have read further than it has delivered: then
publications come that a joining subscription knows already, and others do not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, final

import trio

from broker.eager import Gate
from broker.hub.backlog import Backlog
from broker.hub.subscription import DeltaMode, Event, Group, GroupKey, Subscription, encode
from broker.protocol import ClientInfo, NotJson, Publication, StreamPosition, codes

__all__ = ["Channel"]

_FEW = 16
"""Up to so many subscribers are served by whoever publishes."""
_CHUNK = 128
"""Deliveries between two checkpoints of a pump: about a millisecond of system calls. A checkpoint costs as much as half
a delivery, and who publishes in between is answered sooner."""
_ROUND_EVENTS = 256
"""As many as come in while a thousand are told: with fewer, publishers who wait for nobody would fill the queue."""
_ROUND_BYTES = 1 << 20
_FULL_EVENTS = 1024
_FULL_BYTES = 8 << 20

Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


@final
class Channel:
    """The subscribers of one channel on this node.

    `groups`: live subscriptions by what they are sent. `joining`: subscriptions with the position and the number of
    the event above which they take part. `collecting`: publications noted for those being prepared. `top`: position
    of the last publication told, None until one was. `held`: what is pushed waits for `let_go`. `_unchained`: the last
    publication had no offset, so none can be a patch to it.
    """

    __slots__ = (
        "_backlog",
        "_room",
        "_running",
        "_spawn",
        "_unchained",
        "_waiting",
        "_waiting_bytes",
        "collecting",
        "deliveries",
        "failure",
        "groups",
        "held",
        "joining",
        "name",
        "number",
        "ready",
        "subscriptions",
        "top",
    )

    def __init__(self, name: str, spawn: Spawn, backlog: Backlog) -> None:
        self.name = name
        self._spawn = spawn
        self._backlog = backlog
        self.groups: dict[GroupKey, Group] = {}
        self.joining: dict[Subscription, tuple[StreamPosition | None, int]] = {}
        self.collecting: dict[Subscription, list[tuple[Publication, str]]] = {}
        self.top: StreamPosition | None = None
        self.ready: Gate | None = None  # while the engine is being asked to begin or end delivering
        self.failure: Exception | None = None  # it could not be asked: the channel never was
        self.number = 0
        self.subscriptions = 0
        self.deliveries = 0
        self.held = False
        self._waiting: deque[Event] | None = None
        self._waiting_bytes = 0
        self._running = False
        self._room: trio.Event | None = None
        self._unchained = False

    # ---- subscriptions come and go ------------------------------------------------------------------------------

    def collect(self, sub: Subscription) -> None:
        """Begin to note publications for `sub`, which is being prepared."""
        self.subscriptions += 1
        self.collecting[sub] = []

    def collected(self, sub: Subscription) -> list[tuple[Publication, str]]:
        """What was published since `collect`, each with its epoch."""
        return self.collecting[sub]

    def go_live(self, sub: Subscription, position: StreamPosition | None) -> None:
        """`sub` knows everything up to `position`, including what was collected; tell it what comes after.

        Without a position it takes part from the next event on.
        """
        del self.collecting[sub]
        if not self._running and (position is None or position == self.top):
            self._enter(sub)
        else:
            self.joining[sub] = (position, self.number)

    @property
    def occupied(self) -> bool:
        """Whether somebody is subscribed, not only about to be."""
        return self.subscriptions > len(self.collecting)

    def position(self, sub: Subscription) -> StreamPosition | None:
        """The position up to which `sub` knows everything, if it has one and went live."""
        if sub.group is not None:
            return self.top if sub.positioned else None
        mark = self.joining.get(sub)
        return mark[0] if mark is not None else None

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
        """Whether publishers should wait for `wait_room`: too much waits here, or in all channels. Where nothing waits
        there is nobody who would make room."""
        waiting = self._waiting
        if not waiting:
            return False
        return len(waiting) >= _FULL_EVENTS or self._waiting_bytes >= _FULL_BYTES or self._backlog.full

    @property
    def busy(self) -> bool:
        """Whether events wait to be told: `top` is about to move."""
        return self._running

    async def wait_room(self) -> None:
        """Wait until the pump has taken something; not at all where there is room."""
        if not self.full:
            return
        if self._room is None:
            self._room = trio.Event()
        await self._room.wait()

    def push_publication(self, pub: Publication, epoch: str, base: Publication | None) -> None:
        """A publication came from the engine."""
        if not self._running and self.subscriptions <= _FEW and self._told_plainly(pub, epoch):
            return
        if self.collecting and pub.offset:
            for noted in self.collecting.values():
                noted.append((pub, epoch))
        self.number += 1
        self._push(Event(self.number, pub=pub, epoch=epoch, base=base), len(pub.data))

    def _told_plainly(self, pub: Publication, epoch: str) -> bool:
        """Tell a publication the short way, if nobody wants more than its bytes."""
        packed = self._packed(pub, epoch)
        if packed is None:
            return False
        self.number += 1
        self._running = True  # a subscriber that ends within this fan-out may publish a leave: it queues
        self._tell_packed(*packed)
        return True

    def _tell_packed(self, members: Sequence[Subscription], data: bytes) -> None:
        try:
            for sub in members:
                sub.offer(data)
        finally:
            self.told()

    def _packed(self, pub: Publication, epoch: str) -> tuple[Sequence[Subscription], bytes] | None:
        """What most publications are: to few, who all get the same. Who is told of this one, and in which bytes; None
        where that takes the long way."""
        if len(self.groups) != 1 or self.joining or self.collecting:
            return None
        (group,) = self.groups.values()
        if not group.plain:
            return None
        wire = group.key.wire
        try:
            unit = wire.codec.push_publication(self.name, pub, epoch=epoch if pub.offset == 1 else "")
        except NotJson:
            return None
        if not self._moves_on(pub, epoch):
            return None
        self.deliveries += len(group.members)
        return tuple(group.members), wire.pack_one(unit)

    def _moves_on(self, pub: Publication, epoch: str) -> bool:
        """Whether nothing but the top changes with `pub`; then it does."""
        if not pub.offset:
            self._unchained = True
            return True
        top = self.top
        if top is not None and (top.epoch != epoch or pub.offset != top.offset + 1):
            return False
        self.top = StreamPosition(pub.offset, epoch)
        self._unchained = False
        return True

    def hold(self) -> bool:
        """Keep what is pushed from now on until `let_go`. False if it waits anyway, or is kept already."""
        if self._running or self.subscriptions > _FEW:
            return False
        self._running = self.held = True
        return True

    def let_go(self) -> None:
        """Tell what was kept. Nothing happens if nothing is."""
        if not self.held:
            return
        packed = self.take()
        if packed is not None:
            self._tell_packed(*packed)
            return
        self.held = False
        if self._waiting and self.subscriptions > _FEW:
            self._spawn(self._pump)
            return
        try:
            while self._waiting:
                self._tell_few(self._take())
        finally:
            self.told()

    def take(self) -> tuple[Sequence[Subscription], bytes] | None:
        """What was kept, if it is one publication that everybody gets alike: whoever takes it tells it, and then says
        `told`. None where `let_go` has to do that."""
        waiting = self._waiting
        if waiting is None or len(waiting) != 1 or self.subscriptions > _FEW or (pub := waiting[0].pub) is None:
            return None
        packed = self._packed(pub, waiting[0].epoch)
        if packed is not None:
            self._waiting, self._waiting_bytes = None, 0
            self._backlog.add(-1, -len(pub.data))
            self.held = False
        return packed

    def told(self) -> None:
        """What was taken has been told: what came meanwhile is next."""
        if self._waiting:
            self._start()
        else:
            self._rest()

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
                    self._tell_few([event])
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
        self._backlog.add(1, size)

    def _start(self) -> None:
        self._running = True
        self._spawn(self._pump)

    # ---- fan-out ------------------------------------------------------------------------------------------------

    def _tell_few(self, events: list[Event]) -> None:
        for members, data in self._told(self._checked(events)):
            for sub in members:
                sub.offer(data)

    async def _pump(self) -> None:
        """Lives while events wait."""
        while self._waiting:
            for members, data in self._told(self._checked(self._take())):
                for start in range(0, len(members), _CHUNK):
                    for sub in members[start : start + _CHUNK]:
                        sub.offer(data)
                    # in order: only this task fans out, so a checkpoint here cannot invert anything
                    await trio.lowlevel.checkpoint()
        self._rest()

    def _rest(self) -> None:
        # no await between the empty queue and this: an event in between would wait for ever
        self._waiting = None
        self._running = False
        if self.joining:
            self._settle_joining()

    def _take(self) -> list[Event]:
        waiting = self._waiting
        assert waiting is not None
        if len(waiting) <= _ROUND_EVENTS and self._waiting_bytes <= _ROUND_BYTES:
            events = list(waiting)
            waiting.clear()
            size = self._waiting_bytes
        else:
            events = []
            size = 0
            while waiting and len(events) < _ROUND_EVENTS and size < _ROUND_BYTES:
                event = waiting.popleft()
                events.append(event)
                if event.pub is not None:
                    size += len(event.pub.data)
        self._waiting_bytes -= size
        self._backlog.add(-len(events), -size)
        if self._room is not None:
            self._room.set()
            self._room = None
        return events

    def _checked(self, events: list[Event]) -> list[Event]:
        """Check positions, once for the whole channel, and let joining subscriptions in where they belong.

        An event that changes who is told begins a round: what comes before it is told first, and the rest is put
        back. Rare, so this is simple rather than quick.
        """
        for at, event in enumerate(events):
            pub = event.pub
            ready = [sub for sub in self.joining if self._takes_part(sub, event)] if self.joining else ()
            top = self.top
            gap = top is not None and pub is not None and pub.offset > 0 and not _follows(top, event)
            if at and (ready or gap):
                self._put_back(events[at:])
                return events[:at]
            if gap:
                self._lose_all_positioned()  # but not those who join with this event
            for sub in ready:
                position, _ = self.joining.pop(sub)
                if position is None or _follows(position, event):
                    self._enter(sub)
                else:
                    sub.subscriber.lost(self.name)
            if pub is None:
                continue
            if not pub.offset:
                self._unchained = True
                continue
            last = pub.offset - 1 if top is None else top.offset  # whoever joins a channel so far silent has that
            if event.base is not None and (self._unchained or event.base.offset != last):
                event.base = None  # not what subscribers got last: a patch to it would not apply
            self.top = StreamPosition(pub.offset, event.epoch)
            self._unchained = False
        return events

    def _takes_part(self, sub: Subscription, event: Event) -> bool:
        position, number = self.joining[sub]
        if position is None:
            return event.number > number
        pub = event.pub
        return pub is not None and pub.offset > 0 and (event.epoch != position.epoch or pub.offset > position.offset)

    def _put_back(self, events: Sequence[Event]) -> None:
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.extendleft(reversed(events))
        size = sum(len(event.pub.data) for event in events if event.pub is not None)
        self._waiting_bytes += size
        self._backlog.add(len(events), size)

    def _lose_all_positioned(self) -> None:
        lost = [sub for group in self.groups.values() for sub in group.members if sub.positioned]
        for sub in lost:
            sub.subscriber.lost(self.name)

    def _settle_joining(self) -> None:
        for sub, (position, _) in list(self.joining.items()):
            if position is None or position == self.top:
                del self.joining[sub]
                self._enter(sub)

    def _told(self, events: Sequence[Event]) -> list[tuple[list[Subscription], bytes]]:
        """Who is told of a round, and in which bytes. Who comes or changes groups from here on is not concerned."""
        told: list[tuple[list[Subscription], bytes]] = []
        fresh: list[Group] = []
        for group in list(self.groups.values()):
            members = list(group.members)
            if self._tell(told, group.key, members, events) and group.key.delta is DeltaMode.FIRST:
                fresh.append(group)
        for group in fresh:
            self._advance_delta(group, events)
        if self.joining:
            self._tell_joining(told, events)
        return told

    def _tell(
        self,
        told: list[tuple[list[Subscription], bytes]],
        key: GroupKey,
        members: list[Subscription],
        events: Sequence[Event],
    ) -> bool:
        try:
            data = encode(self.name, key, events)
        except NotJson:
            for sub in members:
                sub.subscriber.disconnect(codes.INAPPROPRIATE_PROTOCOL)
            return False
        if data:
            told.append((members, data))
            self.deliveries += len(members) * len(events)
        return bool(data)

    def _tell_joining(self, told: list[tuple[list[Subscription], bytes]], events: Sequence[Event]) -> None:
        """What has no position goes to joining subscriptions as well: they join for as long as no offset comes."""
        events = [event for event in events if event.pub is None or not event.pub.offset]
        alike: dict[tuple[GroupKey, int], list[Subscription]] = {}
        for sub, (_, number) in self.joining.items():
            known = sum(event.number <= number for event in events)
            if known < len(events):
                alike.setdefault((sub.key, known), []).append(sub)
        for (key, known), members in alike.items():
            self._tell(told, key, members, events[known:])

    def _advance_delta(self, group: Group, events: Sequence[Event]) -> None:
        """A group that had no base has one now: it moves on to patches."""
        if not any(event.pub is not None and event.pub.offset for event in events):
            return
        key = group.key
        for sub in list(group.members):
            if sub.positioned:
                self._exit(sub)
                sub.key = key._replace(delta=DeltaMode.PATCHES)
                self._enter(sub)


def _follows(position: StreamPosition, event: Event) -> bool:
    """Whether a publication is the next one after `position`. An epoch that is not known agrees with any."""
    assert event.pub is not None
    if position.epoch and position.epoch != event.epoch:
        return False
    return not position.epoch or event.pub.offset == position.offset + 1
