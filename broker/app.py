"""The composition root: a configuration becomes objects, and objects become nested stages.

The only file that names concrete classes of other rooms. Stages from the outside in: engine, hub, doors; leaving is
inside-out (supervisor.py).
"""

from __future__ import annotations

import json
import os
import platform
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final, Protocol, final

import attrs
import trio

from broker import PROTOCOL_VERSION
from broker.admin import dev_page
from broker.api import Api, HttpApi, ServerHandle
from broker.config import Config, configure
from broker.engines import open_engine
from broker.hooks import Hooks, HooksError, LoadedHooks, load_hooks
from broker.http1 import Request, response
from broker.hub import Broker, Controller, Node, Presence, open_node
from broker.observe import Metrics, Read
from broker.rules import Clock, make_rules
from broker.sessions import Context, Rules
from broker.tls import TlsOptions, listener_context
from broker.transports import (
    Admission,
    Doors,
    Drain,
    Listening,
    Origins,
    Route,
    Site,
    SockJs,
    StreamEndpoints,
    TrustedProxies,
    UniWebSocketEndpoint,
    WebSocketEndpoint,
    bind_tcp,
    bind_unix,
    host,
    open_doors,
)

__all__ = ["Server", "StartError", "open_server"]

_API_BODY_LIMIT: Final = 64 << 20
"""Bytes of one API request: Centrifugo has no limit, a server that has to live needs one."""
_GET: Final = frozenset({"GET", "HEAD"})
_POST: Final = frozenset({"POST"})


class StartError(Exception):
    """Why the server cannot start, in one line."""


class Engine(Protocol):
    """What an engine room opens: the ports of the hub, made real."""

    @property
    def broker(self) -> Broker: ...

    @property
    def presence(self) -> Presence: ...

    @property
    def controller(self) -> Controller: ...

    @property
    def unready(self) -> Sequence[str]:
        """What it waits for, in words; empty while it can do its work."""
        ...


OpenEngine = Callable[[random.Random], AbstractAsyncContextManager[Engine]]


@final
@attrs.define
class Server:
    """A server that runs. `api` is the server API for code in this process. `reload` puts new rules in place of the old
    ones, all or nothing."""

    api: ServerHandle
    node: Node
    doors: Doors
    context: Context
    sites: Sequence[Site]
    urls: Sequence[str]
    hooks: LoadedHooks | None = None
    """What the configuration's `hooks` gave."""

    def reload(self, rules: Rules) -> None:
        """Sessions and the API read their rules at each use: one assignment changes all of them."""
        old, self.context.rules = self.context.rules, rules
        old.backends.close()


@asynccontextmanager
async def open_server(
    config: Config | Mapping[str, Any],
    *,
    wall_clock: Clock = time.time,  # noqa: TID251 (handed out from here)
    rng: random.Random | None = None,
    engine: OpenEngine | None = None,
    listen: bool = True,
    hooks: Hooks | None = None,
) -> AsyncIterator[Server]:
    """A whole server for as long as the block lives.

    Args:
        config: a checked configuration, or what `config.json` would hold.
        wall_clock: Unix seconds, for tokens.
        rng: makes epochs and spreads timers; tests give a seeded one.
        engine: opens an engine in place of the configured one; tests give one that waits.
        hooks: asked instead of those that the configuration names.
        listen: whether to bind the configured addresses; without, peers come in by `server.doors.take_in_stream`.

    Raises:
        ConfigError: with every bad key.
        StartError: a port is taken, a certificate cannot be read.
        EngineUnavailable: the service that the engine needs is not there.
    """
    if not isinstance(config, Config):
        config = configure(config)
    rng = rng or random.SystemRandom()
    external, internal = _addresses(config)
    name = config.node.name or f"{platform.node()}_{external[1]}"
    if engine is None:
        engine = partial(open_engine, config.engine, config.broker, config.presence_manager)
    async with (
        engine(rng) as opened,
        open_node(name, opened.broker, opened.presence, opened.controller, version=PROTOCOL_VERSION) as node,
    ):
        try:
            loaded = load_hooks(config.hooks) if config.hooks and hooks is None else None
            app = loaded.app if loaded is not None else hooks
            rules = make_rules(config, node.counters, wall_clock, app)
        except (ValueError, HooksError) as error:
            raise StartError(str(error)) from error.__cause__
        context = Context(node, rules, PROTOCOL_VERSION, wall_clock, rng.random)
        api = Api(context)
        sites = _sites(config, context, api, opened, split=external != internal)
        listening = _listening(config, sites, external, internal) if listen else []
        async with open_doors(
            node,
            listening,
            outbox_limit=config.client.queue_max_size,
            write_timeout=config.websocket.write_timeout,
            drain=Drain(config.shutdown.timeout - _time_to_end(config), config.shutdown.drain_window),
        ) as doors:
            for folder in sites[0].folders.values():
                folder.begin = doors.begin
            try:
                handle = ServerHandle(api)
                if app is not None:
                    app.attach(handle)
                yield Server(handle, node, doors, context, sites, [each.url for each in listening], loaded)
            finally:
                context.rules.backends.close()


def _time_to_end(config: Config) -> float:
    """What is left of the time to leave when the last client has to be gone: for the hub and the engine."""
    return min(1.0, config.shutdown.timeout / 4)


# ---- what answers where -------------------------------------------------------------------------------------------


def _addresses(config: Config) -> tuple[tuple[str, int], tuple[str, int]]:
    http = config.http_server
    external = (http.address, http.port)
    internal = (http.internal_address or http.address, int(http.internal_port or http.port))
    return external, internal


def _sites(config: Config, context: Context, api: Api, engine: Engine, *, split: bool) -> tuple[Site, Site]:
    """The external and the internal site: the same one unless they have different addresses."""
    node = context.node
    external = Site()
    internal = Site() if split else external
    origins = Origins(config.client.allowed_origins)
    admission = Admission(
        config.client.connection_limit,
        config.client.connection_rate_limit,
        lambda: len(node.registry.clients),
        trio.current_time,
    )
    user_header = config.client.user_id_http_header
    if config.http_server.trusted_proxies:
        external.proxies = internal.proxies = TrustedProxies(config.http_server.trusted_proxies, user_header)
    websocket = WebSocketEndpoint(context, config.websocket, origins, admission, node.counters, user_header)
    if not config.websocket.disabled:
        external.upgrades[_path(config.websocket.handler_prefix)] = websocket
    _add_streams(external, config, StreamEndpoints(context, origins, admission, user_header))
    if config.uni_websocket.enabled:
        external.upgrades[_path(config.uni_websocket.handler_prefix)] = UniWebSocketEndpoint(
            context, config.uni_websocket, origins, admission, node.counters, user_header
        )
    if config.sockjs.enabled:
        prefix = _path(config.sockjs.handler_prefix)
        external.folders[prefix] = SockJs(
            prefix,
            context,
            config.sockjs,
            origins,
            admission,
            websocket,
            message_size_limit=config.websocket.message_size_limit,
            queue_limit=config.client.queue_max_size,
            user_header=user_header,
        )
    if not config.http_api.disabled:
        _add_api(external if config.http_api.external else internal, config, api)
    if config.health.enabled:
        internal.routes[_path(config.health.handler_prefix)] = Route(_GET, _health(internal, engine))
    if config.prometheus.enabled:
        metrics = Metrics(node.counters, lambda: _read(node), PROTOCOL_VERSION, _insecure_flags(config))
        internal.routes[_path(config.prometheus.handler_prefix)] = Route(_GET, _render(metrics))
    if config.dev.enabled:
        external.app = host(dev_page(_path(config.websocket.handler_prefix)))
    return external, internal


def _path(prefix: str) -> str:
    return "/" + prefix.strip("/")


def _add_streams(site: Site, config: Config, streams: StreamEndpoints) -> None:
    routes = site.routes
    if config.sse.enabled:
        routes[_path(config.sse.handler_prefix)] = streams.sse(config.sse)
    if config.http_stream.enabled:
        routes[_path(config.http_stream.handler_prefix)] = streams.http_stream(config.http_stream)
    if config.sse.enabled or config.http_stream.enabled:
        routes[_path(config.emulation.handler_prefix)] = streams.emulation(config.emulation)
    if config.uni_sse.enabled:
        routes[_path(config.uni_sse.handler_prefix)] = streams.uni_sse(config.uni_sse)
    if config.uni_http_stream.enabled:
        routes[_path(config.uni_http_stream.handler_prefix)] = streams.uni_http_stream(config.uni_http_stream)


def _add_api(site: Site, config: Config, api: Api) -> None:
    http = HttpApi(api, config.http_api)
    prefix = _path(config.http_api.handler_prefix)

    for method in http.methods:
        site.routes[f"{prefix.rstrip('/')}/{method}"] = Route(_POST, http.handler(method), _API_BODY_LIMIT, http.refuse)
    site.routes[prefix] = Route(_POST, http.handle_legacy, _API_BODY_LIMIT, http.refuse)


def _health(site: Site, engine: Engine) -> Callable[[Request], Awaitable[bytes]]:
    """`/health`: the process is well. `/health?ready=1`: the engine is well, too."""
    healthy, leaving = response(200, b"{}"), response(503, b"{}")

    async def handle(request: Request) -> bytes:
        if site.closing:
            return leaving
        if "ready=1" in request.head.query.split("&") and engine.unready:
            return response(503, json.dumps({"waiting_for": list(engine.unready)}).encode())
        return healthy

    return handle


def _render(metrics: Metrics) -> Callable[[Request], Awaitable[bytes]]:
    async def handle(request: Request) -> bytes:
        return response(200, metrics.render(), content_type=metrics.content_type)

    return handle


def _read(node: Node) -> Read:
    info = node.describe()
    return Read(
        nodes=len(node.cluster.nodes()),
        clients=info.num_clients,
        users=info.num_users,
        subscriptions=info.num_subs,
        channels=info.num_channels,
        deliveries=node.deliveries,
    )


def _insecure_flags(config: Config) -> int:
    return sum((config.client.insecure, config.http_api.insecure, config.client.insecure_skip_token_signature_verify))


# ---- sockets ------------------------------------------------------------------------------------------------------


def _listening(
    config: Config, sites: tuple[Site, Site], external: tuple[str, int], internal: tuple[str, int]
) -> list[Listening]:
    http = config.http_server
    http2 = http.http2.enabled
    tls = _tls(http.tls, "http_server.tls", http2)
    listening: list[Listening] = []
    try:
        listening.append(Listening(_bind(*external), sites[0], tls, http2))
        if internal != external:
            inside = _tls(http.internal_tls, "http_server.internal_tls", http2)
            if inside is None and not http.tls_external:
                inside = tls
            listening.append(Listening(_bind(*internal), sites[1], inside, http2))
        if http.unix_socket:
            try:
                listening.append(Listening(bind_unix(http.unix_socket), sites[0]))
            except OSError as error:
                raise StartError(f"http_server.unix_socket: cannot listen on {http.unix_socket}: {error}") from None
    except BaseException:
        for each in listening:
            each.sock.close()
        raise
    return listening


def _bind(address: str, port: int) -> socket.socket:
    try:
        return bind_tcp(address, port)
    except OSError as error:
        where = f"{address or '*'}:{port}"
        raise StartError(f"http_server: cannot listen on {where}: {os.strerror(error.errno or 0)}") from None


def _tls(options: TlsOptions, path: str, http2: bool) -> ssl.SSLContext | None:
    try:
        return listener_context(options, http2=http2) if options.enabled else None
    except (ssl.SSLError, OSError) as error:
        raise StartError(f"{path}: the certificate or its key cannot be used: {error}") from None
