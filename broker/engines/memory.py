"""The memory engine: history and presence of one process. The readable specification of what an engine does.

Nothing here waits, so a publication gets its offset and reaches its channel in one breath. History and positions
last as long as the process: a restart begins new epochs, and clients that recover are told so.

Facts: https://centrifugal.dev/docs/server/engines#memory-engine.
"""

from __future__ import annotations

import heapq
import random
import string
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import final

import attrs
import trio

from broker.hub import (
    Deliver,
    HistoryPage,
    HistoryQuery,
    PresenceStats,
    PublishOptions,
    PublishResult,
    UnrecoverablePosition,
)
from broker.protocol import ClientInfo, Publication, StreamPosition

__all__ = ["MemoryBroker", "MemoryController", "MemoryEngine", "MemoryPresence", "open_memory_engine"]

IDEMPOTENCY_TTL = 300.0
_JANITOR_INTERVAL = 1.0
_EXPIRED_AT_ONCE = 1000
"""Looked at between two checkpoints: some milliseconds."""


@final
class _Stream:
    """A channel's memory: `pubs` with consecutive offsets up to `top`. Times are the engine's clock, 0 for never.

    `watched` and `meta_watched`: an expiry is on the engine's heap. It may have moved to later since.
    """

    __slots__ = (
        "channel",
        "epoch",
        "expires_at",
        "meta_expires_at",
        "meta_watched",
        "pubs",
        "top",
        "version",
        "version_epoch",
        "watched",
    )

    def __init__(self, channel: str, epoch: str) -> None:
        self.channel = channel
        self.epoch = epoch
        self.top = 0
        self.pubs: deque[Publication] = deque()
        self.expires_at = 0.0
        self.meta_expires_at = 0.0
        self.version = 0
        self.version_epoch = ""
        self.watched = self.meta_watched = False

    @property
    def position(self) -> StreamPosition:
        return StreamPosition(self.top, self.epoch)


@final
class MemoryBroker:
    """Publications of one process. `clock` gives seconds of a clock that never jumps; `rng` makes epochs."""

    def __init__(self, *, clock: Callable[[], float], rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._streams: dict[str, _Stream] = {}
        self._results: dict[tuple[str, str], tuple[StreamPosition, float]] = {}
        self._expiries: list[tuple[float, int, _Stream, bool]] = []  # a heap: when to look at which, for its meta
        self._pushed = 0

    def attach(self, deliver: Deliver) -> None:
        self.deliver = deliver  # before anything else

    async def subscribe(self, channel: str) -> None:
        """Nothing to do: everything published is published here."""

    async def unsubscribe(self, channel: str) -> None:
        """Nothing to do."""

    async def publish(self, channel: str, pub: Publication, options: PublishOptions) -> PublishResult:
        return self.publish_nowait(channel, pub, options)

    def publish_nowait(self, channel: str, pub: Publication, options: PublishOptions) -> PublishResult:
        if options.idempotency_key:
            known = self._results.get((channel, options.idempotency_key))
            if known is not None and known[1] > self._clock():
                return PublishResult(known[0], suppressed="idempotency")
        if options.history.on:
            result = self._append(channel, pub, options)
        else:
            self.deliver.publication(channel, pub, "", None)
            result = _NOWHERE
        if options.idempotency_key and not result.suppressed:
            key = channel, options.idempotency_key
            self._results.pop(key, None)  # so that the oldest stay in front
            self._results[key] = (result.position, self._clock() + IDEMPOTENCY_TTL)
        return result

    def _append(self, channel: str, pub: Publication, options: PublishOptions) -> PublishResult:
        now = self._clock()
        history = options.history
        stream = self._stream(channel, now, history.meta_ttl)
        if options.version:
            same = not options.version_epoch or options.version_epoch == stream.version_epoch
            if same and options.version <= stream.version:
                return PublishResult(stream.position, suppressed="version")
            stream.version = options.version
            stream.version_epoch = options.version_epoch
            pub.version = options.version
        base = stream.pubs[-1] if options.delta and stream.pubs else None
        # from here to the delivery there is no await: a second publication could overtake this one's offset
        stream.top += 1
        pub.offset = stream.top
        stream.pubs.append(pub)
        while len(stream.pubs) > history.size:
            stream.pubs.popleft()
        stream.expires_at = now + history.ttl
        if not stream.watched:
            stream.watched = True
            self._watch(stream.expires_at, stream, False)
        self.deliver.publication(channel, pub, stream.epoch, base)
        return PublishResult(stream.position)

    def _stream(self, channel: str, now: float, meta_ttl: float) -> _Stream:
        """The channel's stream as of `now`, made if there is none, its life prolonged."""
        stream = self._streams.get(channel)
        if stream is not None and stream.meta_expires_at and stream.meta_expires_at <= now:
            stream = None  # its position was forgotten: a new epoch begins
        if stream is None:
            stream = self._streams[channel] = _Stream(channel, self._epoch())
        elif stream.expires_at and stream.expires_at <= now:
            stream.pubs.clear()
            stream.expires_at = 0.0
        if meta_ttl:
            stream.meta_expires_at = now + meta_ttl
            if not stream.meta_watched:
                stream.meta_watched = True
                self._watch(stream.meta_expires_at, stream, True)
        return stream

    def _epoch(self) -> str:
        return "".join(self._rng.choices(string.ascii_letters, k=8))

    def _watch(self, at: float, stream: _Stream, meta: bool) -> None:
        self._pushed += 1
        heapq.heappush(self._expiries, (at, self._pushed, stream, meta))

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        self.deliver.join(channel, info)

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        self.deliver.leave(channel, info)

    async def history(self, channel: str, query: HistoryQuery, meta_ttl: float) -> HistoryPage:
        stream = self._stream(channel, self._clock(), meta_ttl)
        since = query.since
        if since is not None and since.epoch and since.epoch != stream.epoch:
            raise UnrecoverablePosition
        if query.limit == 0:
            return HistoryPage((), stream.position)
        return HistoryPage(_read(stream, since, query.limit, query.reverse), stream.position)

    async def remove_history(self, channel: str) -> None:
        stream = self._streams.get(channel)
        if stream is not None:
            stream.pubs.clear()

    def expire(self) -> bool:
        """Forget what is over, about once a second. True if there is more than is done in one go."""
        now = self._clock()
        return all(self._expire_result(now) | self._expire_stream(now) for _ in range(_EXPIRED_AT_ONCE))

    def _expire_result(self, now: float) -> bool:
        key = next(iter(self._results), None)
        if key is None or self._results[key][1] > now:
            return False
        del self._results[key]
        return True

    def _expire_stream(self, now: float) -> bool:
        if not self._expiries or self._expiries[0][0] > now:
            return False
        _, _, stream, meta = heapq.heappop(self._expiries)
        if self._streams.get(stream.channel) is not stream:
            return True  # forgotten already
        moved = stream.meta_expires_at if meta else stream.expires_at
        if moved > now:
            self._watch(moved, stream, meta)
        elif meta:
            del self._streams[stream.channel]
        else:
            stream.watched = False
            stream.pubs.clear()
            stream.expires_at = 0.0
        return True


_NOWHERE = PublishResult(StreamPosition())


def _read(stream: _Stream, since: StreamPosition | None, limit: int, reverse: bool) -> Sequence[Publication]:
    pubs = stream.pubs
    if not pubs:
        return ()
    first = pubs[0].offset
    count = len(pubs) if limit < 0 else min(limit, len(pubs))
    if reverse:
        # `since` counts from the newest down; the element itself must still be there
        last = stream.top if since is None else since.offset - 1
        if since is not None and not first <= since.offset <= stream.top:
            return ()
        stop = max(last - first + 1, 0)
        return list(islice(reversed(pubs), len(pubs) - stop, len(pubs) - stop + min(count, stop)))
    # positions come from clients: one far above the top is just past the end
    start = 0 if since is None else min(max(since.offset + 1 - first, 0), len(pubs))
    return list(islice(pubs, start, start + count))


@final
class MemoryPresence:
    """Presence of one process. Entries have no lifetime of their own: who dies with the process is gone with it."""

    def __init__(self) -> None:
        self._channels: dict[str, dict[str, ClientInfo]] = {}

    async def add(self, channel: str, client_id: str, info: ClientInfo) -> None:
        clients = self._channels.get(channel)
        if clients is None:
            clients = self._channels[channel] = {}
        clients[client_id] = info

    async def remove(self, channel: str, client_id: str) -> None:
        clients = self._channels.get(channel)
        if clients is not None:
            clients.pop(client_id, None)
            if not clients:
                del self._channels[channel]

    async def clients(self, channel: str) -> dict[str, ClientInfo]:
        return dict(self._channels.get(channel, {}))

    async def stats(self, channel: str) -> PresenceStats:
        clients = self._channels.get(channel, {})
        return PresenceStats(len(clients), len({info.user for info in clients.values()}))


@final
class MemoryController:
    """Messages between nodes, of which there is one: nobody else is there to be told anything."""

    def attach(self, node: str, received: Callable[[bytes], None]) -> None:
        """Nothing will come."""

    async def publish_control(self, data: bytes, node: str = "") -> None:
        """Told to everybody else."""


@final
@attrs.frozen
class MemoryEngine:
    """All parts of the engine."""

    broker: MemoryBroker
    presence: MemoryPresence
    controller: MemoryController
    unready: Sequence[str] = ()
    """Nothing is ever waited for."""


@asynccontextmanager
async def open_memory_engine(rng: random.Random | None = None) -> AsyncIterator[MemoryEngine]:
    """The engine stage: its nursery holds the janitor that forgets what has expired."""
    broker = MemoryBroker(clock=trio.current_time, rng=rng or random.SystemRandom())
    async with trio.open_nursery() as nursery:

        async def janitor() -> None:
            while True:
                await trio.sleep(_JANITOR_INTERVAL)
                more = True
                while more:
                    more = broker.expire()
                    await trio.lowlevel.checkpoint()

        nursery.start_soon(janitor, name="memory engine janitor")
        try:
            yield MemoryEngine(broker, MemoryPresence(), MemoryController())
        finally:
            nursery.cancel_scope.cancel()
