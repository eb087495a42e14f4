"""What a Redis can be told: addresses, credentials, TLS, Sentinel, Cluster, prefix (server API §1.6, §1.7)."""

from __future__ import annotations

from typing import final

import attrs

from broker.tls import TlsOptions
from broker.values import Duration, Secret


@final
@attrs.frozen(kw_only=True)
class ReplicaClientOptions:
    """`replica_client.*` of a Redis. Centrifugo reads it for consumers of Redis streams only."""

    enabled: bool = False


@attrs.frozen(kw_only=True)
class RedisOptions:
    """One Redis, or several to shard over. Addresses are secret, because they may hold a password."""

    address: tuple[Secret, ...] = (Secret("redis://127.0.0.1:6379"),)
    connect_timeout: Duration = Duration(1)
    io_timeout: Duration = Duration(4)
    """How long a reply may take: then the link is given up, and whoever waits is told so."""
    db: int = 0
    user: str = ""
    password: Secret = Secret()
    client_name: str = ""
    force_resp2: bool = False
    """RESP2 is always spoken: it carries everything that is needed here."""
    cluster_address: tuple[Secret, ...] = ()
    tls: TlsOptions = TlsOptions()
    sentinel_address: tuple[Secret, ...] = ()
    sentinel_user: str = ""
    sentinel_password: Secret = Secret()
    sentinel_master_name: str = ""
    sentinel_client_name: str = ""
    sentinel_tls: TlsOptions = TlsOptions()
    replica_client: ReplicaClientOptions = ReplicaClientOptions()


@attrs.frozen(kw_only=True)
class PrefixedRedisOptions(RedisOptions):
    """A Redis whose keys start with a prefix."""

    prefix: str = "centrifugo"


@final
@attrs.frozen(kw_only=True)
class RedisBrokerOptions(PrefixedRedisOptions):
    """`broker.redis`."""

    history_use_lists: bool = False
    fence_disabled: bool = False
    """Our own: do not begin a new epoch in channels that are used after a failover or a restart of Redis. For where a
    proxy stands in front of Redis that answers `INFO` for several servers."""


@attrs.frozen(kw_only=True)
class RedisPresenceOptions(PrefixedRedisOptions):
    """`presence_manager.redis`."""

    presence_ttl: Duration = Duration(60)
    presence_hash_field_ttl: bool = False
    presence_user_mapping: bool = False


@final
@attrs.frozen(kw_only=True)
class RedisEngineOptions(RedisPresenceOptions):
    """`engine.redis`: both in one."""

    history_use_lists: bool = False
    fence_disabled: bool = False
