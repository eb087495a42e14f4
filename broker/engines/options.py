"""Which engine keeps history and presence, and what may replace either half of it."""

from __future__ import annotations

from typing import final

import attrs

from broker.engines.redis.options import RedisBrokerOptions, RedisEngineOptions, RedisPresenceOptions


@final
@attrs.frozen(kw_only=True)
class EngineOptions:
    """The `engine` section."""

    type: str = "memory"
    redis: RedisEngineOptions = RedisEngineOptions()


@attrs.frozen(kw_only=True)
class BrokerOptions:
    """The `broker` section: what replaces the engine's publications and history, without what is not built."""

    enabled: bool = False
    type: str = "memory"
    redis: RedisBrokerOptions = RedisBrokerOptions()


@final
@attrs.frozen(kw_only=True)
class PresenceManagerOptions:
    """The `presence_manager` section: what replaces the engine's presence."""

    enabled: bool = False
    type: str = "memory"
    redis: RedisPresenceOptions = RedisPresenceOptions()
