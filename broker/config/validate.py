"""Rules between the keys of a configuration (server API §1.5)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final

import attrs

from broker.auth import TokenOptions, TokenVerifier
from broker.channels import ChannelOptions, compile_re2
from broker.config.proxies import proxy_problems, with_proxy_tls
from broker.config.readers import load_pem, quoted
from broker.config.root import Config
from broker.config.schema import values_at
from broker.config.unbuilt import unbuilt_problems
from broker.config.unbuilt.consumers import CONSUMER_TYPES
from broker.durations import NANOSECONDS, format_duration
from broker.engines.redis import Login, shards_of
from broker.engines.redis.options import RedisOptions
from broker.glob import compile_glob
from broker.tls import TlsOptions
from broker.transports import parse_network
from broker.values import Duration

__all__ = ["check", "with_pem_texts"]

Problem = tuple[str, str]
"""A path and a sentence."""

_ENUMS: Final = {
    "engine.type": ("memory", "redis"),
    "broker.type": ("memory", "nats", "redis", "redisnats", "postgres"),
    "presence_manager.type": ("memory", "redis"),
    "map_broker.type": ("memory", "redis", "postgres"),
    "http_api.error_mode": ("", "transport"),
    "channel.publication_data_format": ("", "json", "json_object", "binary"),
    "consumers.*.type": CONSUMER_TYPES,
}
_CHANNEL_ENUMS: Final = {
    "force_recovery_mode": ("", "stream", "cache"),
    "publication_data_format": ("", "json", "json_object", "binary"),
    "subscription_type": ("", "stream", "map", "map_clients", "map_users", "shared_poll"),
}
_NAME: Final = re.compile(r"[-a-zA-Z0-9_.]{2,}")
_CONSUMER_NAME: Final = re.compile(r"[a-zA-Z0-9_]{2,}")
_CLAIM: Final = re.compile(r"[a-zA-Z_]+")
_PREFIXES: Final = (
    "websocket.handler_prefix",
    "http_api.handler_prefix",
    "prometheus.handler_prefix",
    "health.handler_prefix",
)
_STATUSES: Final = frozenset(status.value for status in HTTPStatus if status >= 200)
_PORT: Final = re.compile(r"[0-9]{1,5}")
_WORKERS: Final = re.compile(r"[1-9][0-9]{0,3}")
_MOST_WORKERS: Final = 512


def check(config: Config) -> Iterator[Problem]:
    """Everything that is wrong, and everything that asks for what this version has not."""
    yield from unbuilt_problems(config)
    for path, values in _ENUMS.items():
        yield from _enum(config, path, values)
    yield from _http(config)
    yield from _shutdown(config)
    yield from _workers(config)
    if config.node.info_metrics_aggregate_interval <= 0:
        yield "node.info_metrics_aggregate_interval", "must be longer than 0s"
    yield from _redis(config)
    yield from _tokens("client.token", config.client.token)
    if config.client.subscription_token.enabled:
        yield from _tokens("client.subscription_token", config.client.subscription_token)
    yield from _client(config)
    yield from _channels(config)
    yield from proxy_problems(config)
    yield from _names("channel.namespaces", config.channel.namespaces, _NAME)
    yield from _names("rpc.namespaces", config.rpc.namespaces, _NAME)
    yield from _names("proxies", config.proxies, _NAME, reserved="default")
    yield from _names("consumers", config.consumers, _CONSUMER_NAME)


def with_pem_texts(config: Config) -> tuple[Config, list[Problem]]:
    """The configuration with the PEM fields in use read from base64 or files, and what could not be read."""
    problems: list[Problem] = []
    server = config.http_server
    tls = _read_pems("http_server.tls", server.tls, problems)
    internal = _read_pems("http_server.internal_tls", server.internal_tls, problems)
    config = attrs.evolve(config, http_server=attrs.evolve(server, tls=tls, internal_tls=internal))
    config = with_proxy_tls(config, lambda path, tls: _read_pems(path, tls, problems, needed=()))
    for path, redis in _used_redis(config):
        section, _, _ = path.partition(".")
        logins = _logins(redis)  # an address may ask for TLS where the section does not
        with_texts = attrs.evolve(
            redis,
            tls=_read_pems(f"{path}.tls", redis.tls, problems, (), used=any(login.tls for login, _ in logins)),
            sentinel_tls=_read_pems(
                f"{path}.sentinel_tls", redis.sentinel_tls, problems, (), used=any(login.tls for _, login in logins)
            ),
        )
        config = attrs.evolve(config, **{section: attrs.evolve(getattr(config, section), redis=with_texts)})
    return config, problems


def _read_pems(
    path: str,
    tls: TlsOptions,
    problems: list[Problem],
    needed: Collection[str] = ("cert_pem", "key_pem"),
    *,
    used: bool = False,
) -> TlsOptions:
    if not (tls.enabled or used):
        return tls
    texts: dict[str, Any] = {}
    for name in ("cert_pem", "key_pem", "server_ca_pem", "client_ca_pem"):
        value = getattr(tls, name)
        try:
            if value:
                texts[name] = load_pem(value)
            elif name in needed:
                problems.append((f"{path}.{name}", "TLS is enabled and needs it"))
        except ValueError as error:
            problems.append((f"{path}.{name}", str(error)))
    return attrs.evolve(tls, **texts)


def _enum(options: Any, path: str, values: Sequence[str], prefix: str = "") -> Iterator[Problem]:
    choice = ", ".join(value or '""' for value in values)
    for shown, value in values_at(options, path):
        if value not in values:
            yield prefix + shown, f"unknown: {quoted(value)} (one of {choice})"


def _http(config: Config) -> Iterator[Problem]:
    server = config.http_server
    if not 0 <= server.port <= 65535:
        yield "http_server.port", f"not a port: {server.port}"
    if server.internal_port and (not _PORT.fullmatch(server.internal_port) or int(server.internal_port) > 65535):
        yield "http_server.internal_port", f"not a port: {quoted(server.internal_port)}"
    for index, network in enumerate(server.trusted_proxies):
        try:
            parse_network(network)
        except ValueError as error:
            yield f"http_server.trusted_proxies[{index}]", str(error)
    for path in _PREFIXES:
        for shown, prefix in values_at(config, path):
            if prefix and not prefix.startswith("/"):
                yield shown, "must start with /"
    for name, by_code in (
        ("uni_sse", config.uni_sse.connect_code_to_http_response),
        ("uni_http_stream", config.uni_http_stream.connect_code_to_http_response),
    ):
        for index, transform in enumerate(by_code.transforms):
            path = f"{name}.connect_code_to_http_response.transforms[{index}]"
            if not transform.code:
                yield f"{path}.code", "must be set"
            if transform.to.status_code not in _STATUSES:
                yield f"{path}.to.status_code", f"not a status of HTTP: {transform.to.status_code}"
    if config.websocket.compression and not 1 <= config.websocket.compression_level <= 9:
        yield "websocket.compression_level", f"not from 1 to 9: {config.websocket.compression_level}"


def _shutdown(config: Config) -> Iterator[Problem]:
    if config.shutdown.drain_window > config.shutdown.timeout / 2:
        yield "shutdown.drain_window", "leaves clients no time to go: at most half of shutdown.timeout"


def _workers(config: Config) -> Iterator[Problem]:
    count = config.workers
    if count != "auto" and not (_WORKERS.fullmatch(count) and int(count) <= _MOST_WORKERS):
        yield "workers", f"not a number from 1 to {_MOST_WORKERS}, nor auto: {quoted(count)}"
        return
    if count == "1":
        return
    if count != "auto" and not config.engine_is_shared:
        yield (
            "workers",
            (
                f"{count} workers would not share the memory engine, which lives in one process; "
                "set engine.type to redis (docs/redis.md), or workers to 1"
            ),
        )
    if config.engine_is_shared:
        if config.sockjs.enabled:
            yield (
                "workers",
                (
                    "sockjs.enabled needs a client's requests to come to the same process, and workers share a port; "
                    "run nodes with one worker each behind a balancer (docs/scaling.md), or switch it off"
                ),
            )
        if config.dev.enabled:
            yield "workers", "development settings (--dev) are for one process"


def _used_redis(config: Config) -> Iterator[tuple[str, RedisOptions]]:
    """The sections of Redis that are in use, by their paths."""
    replaced = config.broker.enabled and config.presence_manager.enabled
    if config.engine.type == "redis" and not replaced:
        yield "engine.redis", config.engine.redis
    if config.broker.enabled and config.broker.type == "redis":
        yield "broker.redis", config.broker.redis
    if config.presence_manager.enabled and config.presence_manager.type == "redis":
        yield "presence_manager.redis", config.presence_manager.redis


def _redis(config: Config) -> Iterator[Problem]:
    for path, options in _used_redis(config):
        try:
            shards_of(options)
        except ValueError as error:
            option, _, problem = str(error).partition(": ")
            yield f"{path}.{option}", problem


def _logins(options: RedisOptions) -> list[tuple[Login, Login]]:
    """What is said to each Redis, and to its Sentinels. Nothing where an address cannot be read: that is told."""
    try:
        return [(shard.login, shard.sentinel_login) for shard in shards_of(options)]
    except ValueError:
        return []


def _tokens(path: str, token: TokenOptions) -> Iterator[Problem]:
    if token.user_id_claim and not _CLAIM.fullmatch(token.user_id_claim):
        yield f"{path}.user_id_claim", "may hold only letters and _"
    try:
        TokenVerifier(token, wall_clock=lambda: 0.0)
    except ValueError as error:
        option, _, problem = str(error).partition(": ")
        yield f"{path}.{option}", problem


def _client(config: Config) -> Iterator[Problem]:
    client = config.client
    if client.ping_interval <= client.pong_timeout:
        longer = f"{format_duration(client.ping_interval)}, {format_duration(client.pong_timeout)}"
        yield "client.ping_interval", f"must be longer than client.pong_timeout ({longer})"
    for index, transform in enumerate(client.connect_code_to_unidirectional_disconnect.transforms):
        path = f"client.connect_code_to_unidirectional_disconnect.transforms[{index}]"
        if not transform.code:
            yield f"{path}.code", "must be set"
        if not transform.to.code:
            yield f"{path}.to.code", "must be set"
        if not transform.to.reason.isascii():
            yield f"{path}.to.reason", "must be ASCII"
    for origin in client.allowed_origins:
        try:
            compile_glob(origin)
        except ValueError as error:
            yield "client.allowed_origins", str(error)
    personal = client.subscribe_to_user_personal_channel
    if not personal.enabled:
        return
    namespace = personal.personal_channel_namespace
    options: ChannelOptions | None = config.channel.without_namespace
    if namespace:
        options = next((each for each in config.channel.namespaces if each.name == namespace), None)
    path = "client.subscribe_to_user_personal_channel"
    if options is None:
        yield f"{path}.personal_channel_namespace", f"no such namespace: {quoted(namespace)}"
    elif personal.single_connection and not options.presence:
        yield f"{path}.single_connection", "needs presence in the namespace of the personal channel"


def _channels(config: Config) -> Iterator[Problem]:
    channel = config.channel
    yield from _whole_seconds("channel.history_meta_ttl", channel.history_meta_ttl)
    for place in ("channel.without_namespace", "channel.namespaces.*"):
        for path, options in values_at(config, place):
            yield from _channel(path, options, channel.history_meta_ttl)


def _channel(path: str, options: ChannelOptions, default_meta_ttl: Duration) -> Iterator[Problem]:
    for key, values in _CHANNEL_ENUMS.items():
        yield from _enum(options, key, values, f"{path}.")
    yield from _whole_seconds(f"{path}.history_ttl", options.history_ttl)
    yield from _whole_seconds(f"{path}.history_meta_ttl", options.history_meta_ttl)
    if bool(options.history_size) != bool(options.history_ttl):
        missing = "history_ttl" if options.history_size else "history_size"
        yield f"{path}.{missing}", "history needs both history_size and history_ttl"
    meta_ttl = options.history_meta_ttl or default_meta_ttl
    if meta_ttl < options.history_ttl:
        ttls = f"{format_duration(options.history_ttl)}, {format_duration(meta_ttl)}"
        yield f"{path}.history_ttl", f"must not be longer than history_meta_ttl ({ttls})"
    if options.force_recovery and not (options.history_size and options.history_ttl):
        yield f"{path}.force_recovery", "needs history_size and history_ttl"
    if options.auto_cache_recover and not (options.force_recovery and options.force_recovery_mode == "cache"):
        yield f"{path}.auto_cache_recover", "needs force_recovery and force_recovery_mode cache"
    try:
        compile_re2(options.channel_regex)
    except ValueError as error:
        yield f"{path}.channel_regex", f"not a regular expression: {error}"
    for delta_type in options.allowed_delta_types:
        if delta_type != "fossil":
            yield f"{path}.allowed_delta_types", f"unknown: {quoted(delta_type)} (only fossil)"


def _whole_seconds(path: str, duration: Duration) -> Iterator[Problem]:
    if duration > 0 and round(duration * NANOSECONDS) % NANOSECONDS:
        yield path, f"must be whole seconds: {format_duration(duration)}"


def _names(path: str, items: Iterable[Any], allowed: re.Pattern[str], reserved: str = "") -> Iterator[Problem]:
    names = [item.name for item in items]
    for index, name in enumerate(names):
        if not allowed.fullmatch(name):
            yield f"{path}[{index}].name", f"must match ^{allowed.pattern}$"
        elif name == reserved:
            yield f"{path}[{name}].name", "is reserved"
    for name, count in Counter(names).items():
        if count > 1 and allowed.fullmatch(name):
            yield f"{path}[{name}].name", "comes more than once"
