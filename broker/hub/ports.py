"""The contracts between the hub and what it is plugged into: engines below, subscribers above.

An engine keeps what outlives a connection: history with its positions, and presence; and it carries messages between
nodes. The hub knows engines only through `Broker`, `Presence` and `Controller`, and hands them a `Deliver` at start.
Every engine passes `tests/contracts`.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, final, runtime_checkable

import attrs

from broker.hub.control import ControlCommand
from broker.hub.outbox import Outbox
from broker.protocol import ClientInfo, Publication, StreamPosition, codes
from broker.protocol.wire import Wire

__all__ = [
    "Broker",
    "Controller",
    "Deliver",
    "EngineUnavailable",
    "HistoryOptions",
    "HistoryPage",
    "HistoryQuery",
    "ImmediateBroker",
    "Presence",
    "PresenceStats",
    "PublishOptions",
    "PublishResult",
    "Room",
    "Subscriber",
    "UnrecoverablePosition",
    "publish_options",
]


class EngineUnavailable(Exception):
    """The only thing an engine raises for the outside world's fault. Clients get error 100, temporary."""


class UnrecoverablePosition(Exception):
    """History was asked for from a position of another epoch."""


@final
@attrs.frozen
class HistoryOptions:
    """What a channel keeps: `size` publications for `ttl` seconds; its position for `meta_ttl` seconds of silence."""

    size: int = 0
    ttl: float = 0.0
    meta_ttl: float = 0.0
    on: bool = attrs.field(init=False)
    """Whether the channel keeps history at all."""

    @on.default
    def _on(self) -> bool:
        return self.size > 0 and self.ttl > 0


NO_HISTORY = HistoryOptions()


@final
@attrs.frozen
class PublishOptions:
    """How one publication is made.

    `idempotency_key` makes repeats within 300 s return the first result. A `version` not above the channel's last
    one (in the same `version_epoch`, or any where it is empty) suppresses the publication. `delta` asks for the
    previous publication to be delivered along.
    """

    history: HistoryOptions = NO_HISTORY
    idempotency_key: str = ""
    version: int = 0
    version_epoch: str = ""
    delta: bool = False


PLAIN_PUBLISH = PublishOptions()


@functools.lru_cache(maxsize=1024)
def publish_options(size: int, ttl: float, meta_ttl: float, delta: bool) -> PublishOptions:
    """The options that most publications of a channel share. Remembered: publishing is the hottest path there is."""
    history = HistoryOptions(size, ttl, meta_ttl) if size > 0 and ttl > 0 else NO_HISTORY
    return PublishOptions(history=history, delta=delta)


@final
@attrs.frozen
class PublishResult:
    """Where a publication landed; `suppressed` names why it was not made (`idempotency`, `version`)."""

    position: StreamPosition
    suppressed: str = ""


@final
@attrs.frozen
class HistoryQuery:
    """Which publications: `limit` 0 only the position, below 0 all; `since` exclusive; `reverse` newest first."""

    limit: int = 0
    since: StreamPosition | None = None
    reverse: bool = False


@final
@attrs.frozen
class HistoryPage:
    """Publications in the order asked for, and the channel's current top."""

    publications: Sequence[Publication]
    top: StreamPosition


@final
@attrs.frozen
class PresenceStats:
    clients: int
    users: int


Room = Callable[[], Awaitable[None]]
"""Waits until there is room again."""


class Deliver(Protocol):
    """What an engine calls for what arrives in a channel. Synchronous: it never waits for subscribers."""

    def publication(self, channel: str, pub: Publication, epoch: str, base: Publication | None) -> Room | None:
        """A publication, in the order of its channel. `base` is its predecessor, where a delta was asked for.

        Where the channel is full now, the answer is what to wait for before the next one: an engine that is not asked
        by publishers of this process (those wait by themselves) must, or memory grows without a bound.
        """

    def together(self) -> AbstractContextManager[None]:
        """Around what arrived at once: what few listen to is told at the end, in one send for each of them. There is
        no await within."""

    def join(self, channel: str, info: ClientInfo) -> None: ...

    def leave(self, channel: str, info: ClientInfo) -> None: ...

    def interrupted(self, channels: Collection[str]) -> None:
        """Deliveries to these channels went on after a break: what was published meanwhile may not have arrived."""


class Broker(Protocol):
    """Publications and their history.

    Guarantees: within one epoch offsets of a channel go up by exactly one; `deliver.publication` is called in
    that order, and for an engine of one process *before* `publish` returns with no checkpoint in between. Whoever
    may wait for anything but a `Promise` says `await own_task()` first. A cancelled `publish` was made or not, never
    half.
    """

    def attach(self, deliver: Deliver) -> None:
        """Tell the engine, once and before anything else, whom to call for what arrives."""

    async def publish(self, channel: str, pub: Publication, options: PublishOptions) -> PublishResult:
        """Give `pub` its offset, keep it, deliver it. Sets `pub.offset`."""
        ...

    async def publish_join(self, channel: str, info: ClientInfo) -> None: ...

    async def publish_leave(self, channel: str, info: ClientInfo) -> None: ...

    async def subscribe(self, channel: str) -> None:
        """From its return on, what is published to `channel` anywhere is delivered here."""

    async def unsubscribe(self, channel: str) -> None: ...

    async def history(self, channel: str, query: HistoryQuery, meta_ttl: float) -> HistoryPage:
        """Read. Creates the channel's epoch if there is none, and prolongs its life by `meta_ttl`.

        Raises:
            UnrecoverablePosition: `query.since` names another epoch.
        """
        ...

    async def remove_history(self, channel: str) -> None:
        """Forget the publications; offset and epoch go on."""


@runtime_checkable
class ImmediateBroker(Protocol):
    """What a `Broker` may be as well, if its publications never wait: then they need no coroutine."""

    def publish_nowait(self, channel: str, pub: Publication, options: PublishOptions) -> PublishResult:
        """`publish`, with the same guarantees."""
        ...


class Presence(Protocol):
    """Who is in a channel. Entries of nodes that died leave by themselves after a time the engine states."""

    async def add(self, channel: str, client_id: str, info: ClientInfo) -> None:
        """Add or refresh an entry."""

    async def remove(self, channel: str, client_id: str) -> None: ...

    async def clients(self, channel: str) -> dict[str, ClientInfo]: ...

    async def stats(self, channel: str) -> PresenceStats: ...


class Controller(Protocol):
    """Messages between the nodes of a cluster. They may be lost, repeated and reordered; the hub copes with it."""

    def attach(self, node: str, received: Callable[[bytes], None]) -> None:
        """Tell, once and before anything else, who this node is, and whom to call for what is meant for it.

        `received` is synchronous and never raises. It may be called with what this node itself has sent.
        """

    async def publish_control(self, data: bytes, node: str = "") -> None:
        """Send `data` to one node, or to all (empty). Whoever may wait for anything but a
        `Promise` says `await own_task()` first.

        Raises:
            EngineUnavailable: it was not sent.
        """


class Subscriber(Protocol):
    """A client connection, as the hub sees it."""

    user: str
    client_id: str
    session_id: str

    @property
    def wire(self) -> Wire: ...

    @property
    def outbox(self) -> Outbox: ...

    def disconnect(self, why: codes.Disconnect) -> None:
        """Close the connection; synchronous, at most once, safe within a fan-out."""

    def lost(self, channel: str) -> None:
        """A positioned subscription missed something: tell the client to recover. Synchronous."""

    def hear(self, data: bytes) -> None:
        """What its client sent by a request of its own (`EmulationInput.data`). Synchronous; never raises."""

    def control(self, command: ControlCommand) -> None:
        """Carry out what the server wants of this connection; what has to wait goes on in its own task."""
