"""What an engine delivers, on its way to the channels it is for; and what is told together because it came together."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import final

import structlog

from broker.hub.channel import Channel
from broker.hub.ports import Room
from broker.hub.registry import Registry
from broker.observe import Counters
from broker.protocol import ClientInfo, Publication

__all__ = ["Delivery", "Turn", "let_go"]

_log = structlog.get_logger("broker.hub")

Parcels = dict[Callable[[bytes], None], bytes]
"""What goes to whom. A subscriber in several channels offers the same outbox in each, and offers of one are equal."""


@final
class Turn:
    """A turn of the reader: what it reads at once, some milliseconds at most. Requests that came together are answered
    one after another; what they publish to few subscribers leaves after the last of them, in one send for each.

    `channels` are those that hold publications; None between turns.
    """

    __slots__ = ("channels",)

    def __init__(self) -> None:
        self.channels: list[Channel] | None = None

    def begin(self) -> None:
        """From here to `end` there is no await."""
        self.channels = []

    def end(self) -> None:
        """Let go of what was held."""
        held, self.channels = self.channels, None
        if held:
            let_go(held)


def let_go(held: list[Channel]) -> None:
    """Tell what these channels hold back, in one send for each subscriber, in however many of them it is.

    What takes the long way waits for nobody: those before it leave first.
    """
    if len(held) == 1:
        _let_go(held[0])
        return
    parcels: Parcels = {}
    taken: list[Channel] = []
    for channel in held:
        if not channel.held:
            continue
        told = channel.take()
        if told is None:
            _deliver(parcels, taken)
            _let_go(channel)
            continue
        taken.append(channel)
        members, data = told
        for sub in members:
            offer = sub.offer
            before = parcels.get(offer)
            parcels[offer] = data if before is None else before + data
    _deliver(parcels, taken)


def _let_go(channel: Channel) -> None:
    try:
        channel.let_go()
    except Exception:  # a bug that one channel meets must end neither the others nor the reader
        _log.exception("telling a channel failed", channel=channel.name)


def _deliver(parcels: Parcels, taken: list[Channel]) -> None:
    for offer, data in parcels.items():
        try:
            offer(data)
        except Exception:
            _log.exception("telling a subscriber failed")
    for channel in taken:
        channel.told()
    parcels.clear()
    taken.clear()


@final
class _Together:
    """A block of `Delivery.together`; a generator would cost as much as a message that is read in it."""

    __slots__ = ("_delivery", "_held", "_outer")

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def __enter__(self) -> None:
        delivery = self._delivery
        self._outer = delivery.held
        self._held = delivery.held = []

    def __exit__(self, *_: object) -> None:
        self._delivery.held = self._outer
        let_go(self._held)


@final
class Delivery:
    """What the engine calls. Synchronous; hands everything to the channel it is for.

    `held`: the channels that hold publications back, while some are made together. A publication that is not one of
    those waits for nobody, and lets go of those before it.
    """

    __slots__ = ("_channels", "_counters", "_received", "held", "interrupted")

    def __init__(self, registry: Registry, counters: Counters, interrupted: Callable[[Collection[str]], None]) -> None:
        self.interrupted = interrupted
        self._channels = registry.channels
        self._counters = counters
        self._received = counters.received
        self.held: list[Channel] | None = None

    def publication(self, channel: str, pub: Publication, epoch: str, base: Publication | None) -> Room | None:
        local = self._channels.get(channel)
        if local is not None and local.subscriptions:
            self._received["publication"] += 1
            if self.held is None:
                if local.held:
                    local.let_go()
            elif local.hold():
                self.held.append(local)
            local.push_publication(pub, epoch, base)
            if local.full:
                if local.held:
                    local.let_go()  # tells all of it
                    return None
                self._counters.pauses += 1
                return local.wait_room
        return None

    def together(self) -> AbstractContextManager[None]:
        """What is published within leaves together, one send per subscriber and channel, at the end of the block.

        There must be no await in it: what others do meanwhile would come too early.
        """
        return _Together(self)

    def join(self, channel: str, info: ClientInfo) -> None:
        local = self._channels.get(channel)
        if local is not None and local.subscriptions:
            self._received["join"] += 1
            local.push_join(info)

    def leave(self, channel: str, info: ClientInfo) -> None:
        local = self._channels.get(channel)
        if local is not None and local.subscriptions:
            self._received["leave"] += 1
            local.push_leave(info)
