"""Settings of queues that carry API commands (server API §6.2)."""

from __future__ import annotations

from typing import final

import attrs

from broker.engines.redis.options import RedisOptions
from broker.tls import TlsOptions
from broker.values import Duration, Secret

CONSUMER_TYPES = (
    "postgresql",
    "kafka",
    "nats_jetstream",
    "redis_stream",
    "google_pub_sub",
    "aws_sqs",
    "azure_service_bus",
)


@final
@attrs.frozen(kw_only=True)
class HeaderDataMode:
    """`publication_data_mode` where messages have headers."""

    enabled: bool = False
    channels_header: str = "centrifugo-channels"
    idempotency_key_header: str = "centrifugo-idempotency-key"
    delta_header: str = "centrifugo-delta"
    version_header: str = "centrifugo-version"
    version_epoch_header: str = "centrifugo-version-epoch"
    tags_header_prefix: str = "centrifugo-tag-"


@final
@attrs.frozen(kw_only=True)
class ValueDataMode:
    """`publication_data_mode` where messages have named values."""

    enabled: bool = False
    channels_value: str = "centrifugo-channels"
    idempotency_key_value: str = "centrifugo-idempotency-key"
    delta_value: str = "centrifugo-delta"
    version_value: str = "centrifugo-version"
    version_epoch_value: str = "centrifugo-version-epoch"
    tags_value_prefix: str = "centrifugo-tag-"


@final
@attrs.frozen(kw_only=True)
class AttributeDataMode:
    """`publication_data_mode` where messages have attributes."""

    enabled: bool = False
    channels_attribute: str = "centrifugo-channels"
    idempotency_key_attribute: str = "centrifugo-idempotency-key"
    delta_attribute: str = "centrifugo-delta"
    version_attribute: str = "centrifugo-version"
    version_epoch_attribute: str = "centrifugo-version-epoch"
    tags_attribute_prefix: str = "centrifugo-tag-"


@final
@attrs.frozen(kw_only=True)
class PropertyDataMode:
    """`publication_data_mode` where messages have properties."""

    enabled: bool = False
    channels_property: str = "centrifugo-channels"
    idempotency_key_property: str = "centrifugo-idempotency-key"
    delta_property: str = "centrifugo-delta"
    version_property: str = "centrifugo-version"
    version_epoch_property: str = "centrifugo-version-epoch"
    tags_property_prefix: str = "centrifugo-tag-"


@final
@attrs.frozen(kw_only=True)
class PostgresConsumerOptions:
    """`postgresql`: an outbox table."""

    dsn: Secret = Secret()
    outbox_table_name: str = ""
    num_partitions: int = 1
    partition_select_limit: int = 100
    partition_poll_interval: Duration = Duration(0.3)
    partition_notification_channel: str = ""
    partition_notification_dsn: Secret = Secret()
    tls: TlsOptions = TlsOptions()
    use_try_lock: bool = False


@final
@attrs.frozen(kw_only=True)
class KafkaConsumerOptions:
    """`kafka`."""

    brokers: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    consumer_group: str = ""
    max_poll_records: int = 100
    fetch_max_bytes: int = 0
    fetch_max_wait: Duration = Duration(0.5)
    fetch_read_uncommitted: bool = False
    partition_queue_max_size: int = 1000
    dial_timeout: Duration = Duration(3)
    tls: TlsOptions = TlsOptions()
    sasl_mechanism: str = ""
    sasl_user: str = ""
    sasl_password: Secret = Secret()
    assume_role_arn: str = ""
    instance_id: str = ""
    method_header: str = "centrifugo-method"
    publication_data_mode: HeaderDataMode = HeaderDataMode()


@final
@attrs.frozen(kw_only=True)
class NatsConsumerOptions:
    """`nats_jetstream`."""

    url: Secret = Secret("nats://127.0.0.1:4222")
    credentials_file: str = ""
    username: str = ""
    password: Secret = Secret()
    token: Secret = Secret()
    stream_name: str = ""
    durable_consumer_name: str = ""
    use_existing_consumer: bool = False
    subjects: tuple[str, ...] = ()
    deliver_policy: str = "new"
    max_ack_pending: int = 100
    method_header: str = "centrifugo-method"
    tls: TlsOptions = TlsOptions()
    publication_data_mode: HeaderDataMode = HeaderDataMode()


@final
@attrs.frozen(kw_only=True)
class RedisConsumerOptions(RedisOptions):
    """`redis_stream`."""

    streams: tuple[str, ...] = ()
    consumer_group: str = ""
    visibility_timeout: Duration = Duration(30)
    num_workers: int = 1
    payload_value: str = "payload"
    method_value: str = "method"
    publication_data_mode: ValueDataMode = ValueDataMode()


@final
@attrs.frozen(kw_only=True)
class GoogleConsumerOptions:
    """`google_pub_sub`."""

    project_id: str = ""
    subscriptions: tuple[str, ...] = ()
    max_outstanding_messages: int = 100
    max_outstanding_bytes: int = 1_000_000
    auth_mechanism: str = ""
    credentials_file: str = ""
    method_attribute: str = "centrifugo-method"
    publication_data_mode: AttributeDataMode = AttributeDataMode()


@final
@attrs.frozen(kw_only=True)
class SqsConsumerOptions:
    """`aws_sqs`. The odd name of its wait is Centrifugo's."""

    queues: tuple[str, ...] = ()
    sns_envelope: bool = False
    region: str = ""
    max_number_of_messages: int = 10
    wait_time_time: Duration = Duration(20)
    visibility_timeout: Duration = Duration(30)
    max_concurrency: int = 1
    credentials_profile: str = ""
    assume_role_arn: str = ""
    localstack_endpoint: str = ""
    method_attribute: str = "centrifugo-method"
    publication_data_mode: AttributeDataMode = AttributeDataMode()


@final
@attrs.frozen(kw_only=True)
class AzureConsumerOptions:
    """`azure_service_bus`."""

    connection_string: Secret = Secret()
    use_azure_identity: bool = False
    fully_qualified_namespace: str = ""
    tenant_id: str = ""
    client_id: str = ""
    client_secret: Secret = Secret()
    queues: tuple[str, ...] = ()
    use_sessions: bool = False
    max_concurrent_calls: int = 1
    max_receive_messages: int = 1
    method_property: str = "centrifugo-method"
    publication_data_mode: PropertyDataMode = PropertyDataMode()


@final
@attrs.frozen(kw_only=True)
class ConsumerOptions:
    """One of `consumers`."""

    name: str = ""
    enabled: bool = False
    type: str = ""
    postgresql: PostgresConsumerOptions = PostgresConsumerOptions()
    kafka: KafkaConsumerOptions = KafkaConsumerOptions()
    nats_jetstream: NatsConsumerOptions = NatsConsumerOptions()
    redis_stream: RedisConsumerOptions = RedisConsumerOptions()
    google_pub_sub: GoogleConsumerOptions = GoogleConsumerOptions()
    aws_sqs: SqsConsumerOptions = SqsConsumerOptions()
    azure_service_bus: AzureConsumerOptions = AzureConsumerOptions()
