"""What Centrifugo has and this version has not: its keys are known, and asking for it is refused, never ignored.

Settings of a part that nobody switched on (a Redis address without `engine.type: redis`, a proxy that no namespace
uses, an admin password without `admin.enabled`) have no effect in Centrifugo either. They are typed and left alone.

These are accepted though nothing reads them, since there is nothing for them to do:

- `client.channel_position_max_time_lag`: bounds the delay between a remote engine and this node. Memory has none.
- `read_buffer_size`, `write_buffer_size` and `use_write_buffer_pool` of `websocket` and `uni_websocket`: tune buffers
  of Go's library; there are none here, the reader shares one buffer and writes go straight to the socket.
- `usage_stats.disabled`: no usage statistics are sent.
- `enable_unreleased_features`: gates nothing but the `redisnats` broker, which is refused by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, final

import attrs

from broker.config.schema import values_at

__all__ = ["unbuilt_problems"]


@final
@attrs.frozen
class _Ask:
    """A key that can ask for something missing: with any of `values`, or with anything that is not off or empty."""

    path: str
    missing: str
    values: tuple[str, ...] = ()
    only_if: str = ""
    """A switch beside it, without which the key has no effect."""


_MAP_TYPES: Final = ("map", "map_clients", "map_users")
_CHANNEL_ASKS: Final = (
    _Ask("subscription_type", "map subscriptions are", _MAP_TYPES),
    _Ask("subscription_type", "shared poll subscriptions are", ("shared_poll",)),
    _Ask("map_clients_presence_channel_prefix", "presence in map channels is"),
    _Ask("map_users_presence_channel_prefix", "presence in map channels is"),
    _Ask("subscribe_stream_proxy_enabled", "the subscribe stream proxy is"),
    _Ask("map.publish_proxy_enabled", "the map publish proxy is"),
    _Ask("map.remove_proxy_enabled", "the map remove proxy is"),
)
_ASKS: Final = (
    _Ask("broker.type", "the NATS broker is", ("nats",), only_if="broker.enabled"),
    _Ask("broker.type", "the Redis with NATS broker is", ("redisnats",), only_if="broker.enabled"),
    _Ask("broker.type", "the PostgreSQL broker is", ("postgres",), only_if="broker.enabled"),
    _Ask("engine.redis.history_use_lists", "history in Redis lists is"),
    _Ask("broker.redis.history_use_lists", "history in Redis lists is"),
    _Ask("map_broker.type", "the map broker on a database is", ("redis", "postgres")),
    _Ask("controller.enabled", "a bus between nodes is"),
    *(
        attrs.evolve(ask, path=f"{place}.{ask.path}")
        for place in ("channel.without_namespace", "channel.namespaces.*")
        for ask in _CHANNEL_ASKS
    ),
    _Ask("http_server.tls_autocert.enabled", "automatic certificates (ACME) are"),
    _Ask("http_server.http3.enabled", "HTTP/3 is"),
    _Ask("http_server.h2c_external", "cleartext HTTP/2 is"),
    _Ask("grpc_api.enabled", "the gRPC API is"),
    _Ask("consumers.*.enabled", "consuming from queues is"),
    _Ask("webtransport.enabled", "the WebTransport transport is"),
    _Ask("uni_grpc.enabled", "the unidirectional gRPC transport is"),
    _Ask("admin.enabled", "the admin web interface is"),
    _Ask("swagger.enabled", "the Swagger page is"),
    _Ask("debug.enabled", "the profiling endpoint is"),
    _Ask("prometheus.instrument_http_handlers", "metrics of HTTP handlers are"),
    _Ask("prometheus.recovered_publications_histogram", "the histogram of recovered publications is"),
    _Ask("prometheus.native_histograms", "native histograms are"),
    _Ask("opentelemetry.enabled", "OpenTelemetry is"),
    _Ask("graphite.enabled", "the Graphite export is"),
)


def unbuilt_problems(config: Any) -> Iterator[tuple[str, str]]:
    """Pairs of path and sentence, one for each key that asks for what this version has not."""
    for ask in _ASKS:
        if ask.only_if and not any(on for _, on in values_at(config, ask.only_if)):
            continue
        for path, value in values_at(config, ask.path):
            if value in ask.values if ask.values else value:
                yield path, f"{ask.missing} not in this version"
