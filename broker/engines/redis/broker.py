"""Publications and their history in Redis.

A publication is one script: its offset, its place in the stream, and its way to every node, in one step of the server.
What this node publishes comes back through pub/sub like everything else. Facts: server API §5.4.
"""

from __future__ import annotations

import random
import string
from typing import Any, Final, final

import structlog

from broker.engines.redis.messages import JOIN, LEAVE, Decoder
from broker.engines.redis.scripts import PUBLISH, PUBLISH_ONCE, READ_HISTORY
from broker.engines.redis.shard import Shards
from broker.hub import (
    Deliver,
    EngineUnavailable,
    HistoryPage,
    HistoryQuery,
    PublishOptions,
    PublishResult,
    Room,
    UnrecoverablePosition,
)
from broker.protocol import ClientInfo, Publication, StreamPosition
from broker.protocol.stored import pack_info, pack_publication, unpack_publication

__all__ = ["RedisBroker"]

_log = structlog.get_logger("broker.engines.redis")

_RESULT_TTL: Final = 300
_NOWHERE: Final = PublishResult(StreamPosition())
_ONCE_MORE: Final = PublishResult(StreamPosition(), suppressed="idempotency")


@final
class RedisBroker:
    """Channels spread over `shards`."""

    def __init__(self, shards: Shards, rng: random.Random) -> None:
        self._shards = shards
        self._rng = rng
        self._fresh = self._epoch()
        self._decoder: Decoder | None = None
        self.malformed = 0

    def attach(self, deliver: Deliver) -> None:
        self._decoder = Decoder(deliver)
        for redis in self._shards.all:
            redis.pubsub.attach(self.take, deliver.interrupted, deliver.together)

    # ---- what arrives ---------------------------------------------------------------------------------------------

    def take(self, channel: str, data: bytes) -> Room | None:
        """A message of pub/sub. Anybody may publish there: what cannot be read is counted and ends nobody."""
        assert self._decoder is not None, "attach comes first"
        try:
            return self._decoder.take(channel, data)
        except ValueError as error:
            self.malformed += 1
            if self.malformed & (self.malformed - 1) == 0:  # the 1st, 2nd, 4th, 8th, …
                _log.warning("a message in Redis cannot be read", error=str(error), so_far=self.malformed)
            return None

    async def subscribe(self, channel: str) -> None:
        redis = self._shards.of(channel)
        await redis.pubsub.subscribe(redis.names.message(channel), channel)

    async def unsubscribe(self, channel: str) -> None:
        redis = self._shards.of(channel)
        await redis.pubsub.unsubscribe(redis.names.message(channel))

    # ---- what is published ----------------------------------------------------------------------------------------

    async def publish(self, channel: str, pub: Publication, options: PublishOptions) -> PublishResult:
        redis = self._shards.of(channel)
        message = redis.names.message(channel)
        history = options.history
        if not history.on:
            data = pack_publication(pub)
            if not options.idempotency_key:
                await redis.commands.call(message, b"PUBLISH", message, data)
                return _NOWHERE
            key = redis.names.result(channel, options.idempotency_key)
            known = await redis.commands.run(PUBLISH_ONCE, (key,), data, message, _RESULT_TTL)
            return _ONCE_MORE if known else _NOWHERE
        if options.version:
            pub.version = options.version
        keys: tuple[bytes, ...] = redis.names.history(channel)
        if options.idempotency_key:
            keys = (*keys, redis.names.result(channel, options.idempotency_key))
        fresh = self._fresh
        reply = await redis.commands.run(
            PUBLISH,
            keys,
            pack_publication(pub),
            history.size,
            _seconds(history.ttl),
            message,
            int(history.meta_ttl),
            fresh,
            b"1" if options.delta else b"",
            options.version,
            options.version_epoch,
            _RESULT_TTL,
        )
        offset, epoch, suppressed = int(reply[0]), self._known(reply[1], fresh), reply[2].decode()
        if not suppressed:
            pub.offset = offset
        return PublishResult(StreamPosition(offset, epoch), suppressed)

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        await self._tell(channel, JOIN + pack_info(info))

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        await self._tell(channel, LEAVE + pack_info(info))

    async def _tell(self, channel: str, data: bytes) -> None:
        redis = self._shards.of(channel)
        message = redis.names.message(channel)
        await redis.commands.call(message, b"PUBLISH", message, data)

    # ---- what is kept ---------------------------------------------------------------------------------------------

    async def history(self, channel: str, query: HistoryQuery, meta_ttl: float) -> HistoryPage:
        redis = self._shards.of(channel)
        since = query.since
        limit = b"" if query.limit < 0 else query.limit
        command, start, stop = b"", b"", b""
        if query.limit == 0:
            pass
        elif not query.reverse:
            command, start, stop = b"XRANGE", b"-" if since is None else b"%d" % (since.offset + 1), b"+"
        elif since is None or since.offset > 1:
            command, start, stop = b"XREVRANGE", b"+" if since is None else b"%d" % (since.offset - 1), b"-"
        fresh = self._fresh
        reply = await redis.commands.run(
            READ_HISTORY, redis.names.history(channel), command, start, stop, limit, int(meta_ttl), fresh
        )
        top = StreamPosition(int(reply[0]), self._known(reply[1], fresh))
        if since is not None and since.epoch and since.epoch != top.epoch:
            raise UnrecoverablePosition
        if not command or (query.reverse and since is not None and since.offset > top.offset):
            return HistoryPage((), top)
        try:
            return HistoryPage([_entry(each) for each in reply[2]], top)
        except (ValueError, LookupError, TypeError) as error:
            raise EngineUnavailable(f"the history in Redis cannot be read: {error}") from None

    async def remove_history(self, channel: str) -> None:
        redis = self._shards.of(channel)
        stream, _ = redis.names.history(channel)
        await redis.commands.call(stream, b"DEL", stream)

    # ---- epochs ---------------------------------------------------------------------------------------------------

    def _epoch(self) -> str:
        return "".join(self._rng.choices(string.ascii_letters, k=8))

    def _known(self, epoch: bytes, offered: str) -> str:
        """The epoch of a reply. Each script is offered a fresh one; one that was taken is not offered again."""
        text = epoch.decode()
        if text == offered and offered == self._fresh:
            self._fresh = self._epoch()
        return text


def _seconds(ttl: float) -> int:
    return max(int(ttl), 1)


def _entry(entry: Any) -> Publication:
    """An entry of a stream: `[b"4-0", [b"d", publication]]`."""
    id, fields = entry
    pub = unpack_publication(fields[fields.index(b"d") + 1])
    pub.offset = int(id.partition(b"-")[0])
    return pub
