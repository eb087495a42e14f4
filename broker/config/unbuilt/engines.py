"""Settings of engines other than memory, and of the bus between nodes (server API §1.6, §1.7)."""

from __future__ import annotations

from typing import final

import attrs

from broker.engines.redis.options import PrefixedRedisOptions, RedisBrokerOptions
from broker.tls import TlsOptions
from broker.values import Duration, Secret


@final
@attrs.frozen(kw_only=True)
class RedisMapOptions(PrefixedRedisOptions):
    """`map_broker.redis`."""

    cleanup_interval: Duration = Duration(1)
    cleanup_batch_size: int = 100
    idempotent_result_ttl: Duration = Duration(300)
    skip_pub_sub: bool = False


@final
@attrs.frozen(kw_only=True)
class NatsRawOptions:
    """`raw_mode.*` of NATS."""

    enabled: bool = False
    channel_replacements: dict[str, Secret] = attrs.Factory(dict)
    prefix: str = ""


@final
@attrs.frozen(kw_only=True)
class NatsOptions:
    """`broker.nats`."""

    prefix: str = "centrifugo"
    url: Secret = Secret("nats://localhost:4222")
    dial_timeout: Duration = Duration(1)
    write_timeout: Duration = Duration(1)
    tls: TlsOptions = TlsOptions()
    allow_wildcards: bool = False
    raw_mode: NatsRawOptions = NatsRawOptions()


@final
@attrs.frozen(kw_only=True)
class RedisNatsOptions:
    """`broker.redisnats`, which Centrifugo parses and never reads."""

    redis: RedisBrokerOptions = RedisBrokerOptions()
    nats: NatsOptions = NatsOptions()


@final
@attrs.frozen(kw_only=True)
class OutboxOptions:
    """`outbox.*` of PostgreSQL."""

    poll_interval: Duration = Duration(0.1)
    batch_size: int = 1000


@attrs.frozen(kw_only=True)
class PostgresOptions:
    """`broker.postgres`."""

    dsn: Secret = Secret()
    notify_dsn: Secret = Secret()
    tls: TlsOptions = TlsOptions()
    pool_size: int = 16
    num_shards: int = 8
    cleanup_interval: Duration = Duration(60)
    idempotent_result_ttl: Duration = Duration(300)
    binary_data: bool = False
    use_notify: bool = False
    skip_schema_init: bool = False
    stream_retention: Duration = Duration(24 * 3600)
    table_prefix: str = "cf"
    outbox: OutboxOptions = OutboxOptions()
    partition_lookahead_days: int = 2
    partition_retention_days: int = 7


@final
@attrs.frozen(kw_only=True)
class PostgresMapOptions(PostgresOptions):
    """`map_broker.postgres`."""

    ttl_check_interval: Duration = Duration(1)


@final
@attrs.frozen(kw_only=True)
class PostgresControllerOptions:
    """`controller.postgres`."""

    dsn: Secret = Secret()
    notify_dsn: Secret = Secret()
    tls: TlsOptions = TlsOptions()
    pool_size: int = 8
    num_shards: int = 1
    table_prefix: str = "cf"
    poll_interval: Duration = Duration(0.05)
    use_notify: bool = False
    skip_schema_init: bool = False
    partition_retention_days: int = 1
    partition_lookahead_days: int = 2
    partition_cleanup_interval: Duration = Duration(60)
    batch_size: int = 1000


@final
@attrs.frozen(kw_only=True)
class MapBrokerOptions:
    """`map_broker`."""

    type: str = "memory"
    redis: RedisMapOptions = RedisMapOptions()
    postgres: PostgresMapOptions = PostgresMapOptions()


@final
@attrs.frozen(kw_only=True)
class ControllerOptions:
    """`controller`."""

    enabled: bool = False
    type: str = ""
    postgres: PostgresControllerOptions = PostgresControllerOptions()


@final
@attrs.frozen(kw_only=True)
class SharedPollKeys:
    """`shared_poll`, the section at the top."""

    hmac_secret_key: Secret = Secret()
    hmac_previous_secret_key: Secret = Secret()
    hmac_previous_secret_key_valid_until: int = 0
    concurrency_limit: int = 0
