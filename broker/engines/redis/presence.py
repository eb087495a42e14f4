"""Presence in Redis: who is in a channel, each entry with a time after which it leaves by itself.

Expiry goes by the clock of Redis, so nodes need not agree on the time. Facts: server API §5.4.
"""

from __future__ import annotations

from typing import final

from broker.engines.redis.options import RedisPresenceOptions
from broker.engines.redis.scripts import ADD_PRESENCE, READ_PRESENCE, READ_PRESENCE_STATS, REMOVE_PRESENCE
from broker.engines.redis.shard import Redis, Shards
from broker.hub import EngineUnavailable, PresenceStats
from broker.protocol import ClientInfo
from broker.protocol.stored import pack_info, unpack_info

__all__ = ["RedisPresence"]


@final
class RedisPresence:
    """Channels spread over `shards`."""

    def __init__(self, shards: Shards, options: RedisPresenceOptions) -> None:
        self._shards = shards
        self._ttl = max(int(options.presence_ttl), 1)
        self._fields = b"1" if options.presence_hash_field_ttl else b""
        self._users = options.presence_user_mapping

    async def add(self, channel: str, client_id: str, info: ClientInfo) -> None:
        redis = self._shards.of(channel)
        await redis.commands.run(
            ADD_PRESENCE, self._keys(redis, channel), client_id, pack_info(info), info.user, self._ttl, self._fields
        )

    async def remove(self, channel: str, client_id: str) -> None:
        redis = self._shards.of(channel)
        await redis.commands.run(REMOVE_PRESENCE, self._keys(redis, channel), client_id)

    async def clients(self, channel: str) -> dict[str, ClientInfo]:
        redis = self._shards.of(channel)
        reply = await redis.commands.run(READ_PRESENCE, redis.names.presence(channel), self._fields)
        try:
            pairs = iter(reply)
            return {client.decode(): unpack_info(info) for client, info in zip(pairs, pairs, strict=True)}
        except ValueError as error:
            raise EngineUnavailable(f"presence in Redis cannot be read: {error}") from None

    async def stats(self, channel: str) -> PresenceStats:
        if not self._users:
            clients = await self.clients(channel)
            return PresenceStats(len(clients), len({info.user for info in clients.values()}))
        redis = self._shards.of(channel)
        keys = (*redis.names.presence(channel), *redis.names.users(channel))
        clients, users = await redis.commands.run(READ_PRESENCE_STATS, keys, self._fields)
        return PresenceStats(clients, users)

    def _keys(self, redis: Redis, channel: str) -> tuple[bytes, ...]:
        keys = redis.names.presence(channel)
        return (*keys, *redis.names.users(channel)) if self._users else keys
