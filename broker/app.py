"""The composition root: a configuration becomes objects, and objects become nested stages.

The only file that names concrete classes of other rooms. Stages from the outside in: reader, engine, hub, doors;
leaving is inside-out (supervisor.py).
"""

from __future__ import annotations

import json
import platform
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol, final

import attrs
import trio

from broker import PROTOCOL_VERSION
from broker.admin import dev_page
from broker.api import Api, HttpApi, ServerHandle
from broker.config import Config, configure
from broker.engines import open_engine
from broker.hooks import Hooks, HooksError, LoadedHooks, Notices, load_hooks, open_notices
from broker.http1 import Request, response
from broker.hub import Broker, Controller, Node, Presence, open_node
from broker.listeners import addresses, listen_on
from broker.observe import CONTENT_TYPE, Aggregate, Metrics, Read
from broker.process import StartError
from broker.reader import Stage, open_stage
from broker.rules import Clock, make_rules
from broker.sessions import Context, Rules
from broker.transports import (
    Admission,
    Doors,
    Drain,
    Origins,
    Route,
    Site,
    SockJs,
    StreamEndpoints,
    TrustedProxies,
    UniWebSocketEndpoint,
    WebSocketEndpoint,
    host,
    init_route,
    open_doors,
)

__all__ = ["Server", "Siblings", "StartError", "open_server"]

_API_BODY_LIMIT: Final = 64 << 20
"""Bytes of one API request: Centrifugo has no limit, a server that has to live needs one."""
_GET: Final = frozenset({"GET", "HEAD"})
_POST: Final = frozenset({"POST"})


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


class Siblings(Protocol):
    """The other processes, for a server that is one of several on the same addresses."""

    @property
    def number(self) -> int:
        """Which one this is."""
        ...

    @property
    def unix_socket(self) -> socket.socket | None:
        """What all of them accept from, besides their ports."""
        ...

    async def metrics(self, own: Metrics) -> bytes:
        """The metrics of all. Whoever may wait says `await own_task()` first."""
        ...

    async def unready(self, own: Engine) -> Sequence[str]:
        """What any of them waits for. Whoever may wait says `await own_task()` first."""
        ...


@final
@attrs.define
class Server:
    """A server that runs. `api` is the server API for code in this process. `reload` puts new rules in place of the old
    ones, all or nothing."""

    api: ServerHandle
    node: Node
    doors: Doors
    context: Context
    engine: Engine
    metrics: Metrics
    sites: Sequence[Site]
    urls: Sequence[str]
    stage: Stage
    hooks: LoadedHooks | None = None
    """What the configuration's `hooks` gave."""

    def reload(self, rules: Rules) -> None:
        """Sessions and the API read their rules at each use: one assignment changes all of them."""
        old, self.context.rules = self.context.rules, rules
        if old.backends.state or rules.backends.state:
            self.context.notices.states.reloaded()
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
    siblings: Siblings | None = None,
) -> AsyncIterator[Server]:
    """A whole server for as long as the block lives.

    Args:
        config: a checked configuration, or what `config.json` would hold.
        wall_clock: Unix seconds, for tokens.
        rng: makes epochs and spreads timers; tests give a seeded one.
        engine: opens an engine in place of the configured one; tests give one that waits.
        hooks: asked instead of those that the configuration names.
        listen: whether to bind the configured addresses; without, peers come in by `server.doors.take_in_stream`.
        siblings: other processes that listen on the same addresses.

    Raises:
        ConfigError: with every bad key.
        StartError: a port is taken, a certificate cannot be read.
        EngineUnavailable: the service that the engine needs is not there.
    """
    if not isinstance(config, Config):
        config = configure(config)
    rng = rng or random.Random()  # seeded by the system; nothing that it makes is a secret
    external, internal = addresses(config)
    name = config.node.name or f"{platform.node()}_{external[1]}"
    if siblings is not None:
        name = f"{name}_{siblings.number}"
    async with (
        open_stage() as stage,
        (
            engine(rng)
            if engine is not None
            else open_engine(config.engine, config.broker, config.presence_manager, rng, stage)
        ) as opened,
        open_node(name, opened.broker, opened.presence, opened.controller, version=PROTOCOL_VERSION) as node,
    ):
        try:
            loaded = load_hooks(config.hooks) if config.hooks and hooks is None else None
            app = loaded.app if loaded is not None else hooks
            rules = make_rules(config, node.counters, stage, wall_clock, app)
        except (ValueError, HooksError) as error:
            raise StartError(str(error)) from error.__cause__
        context = Context(node, rules, PROTOCOL_VERSION, wall_clock, rng.random)
        api = Api(context)
        metrics = Metrics(node.counters, lambda: _read(context), PROTOCOL_VERSION, _insecure_flags(config))
        sites = _sites(config, context, api, opened, metrics, siblings, split=external != internal)
        beside = siblings is not None
        lent = siblings.unix_socket if siblings is not None else None
        listening = listen_on(config, sites, shared=beside, lent=lent) if listen else []
        last_words = config.shutdown.timeout / 4 if rules.backends.told else 0.0
        within = config.shutdown.timeout - last_words - _time_to_end(config)
        try:
            async with (
                _open_notices(context, last_words) as context.notices,
                open_doors(
                    node,
                    stage,
                    listening,
                    outbox_limit=config.client.queue_max_size,
                    write_timeout=config.websocket.write_timeout,
                    drain=Drain(within, config.shutdown.drain_window),
                ) as doors,
            ):
                node.measure(Aggregate(metrics).step, config.node.info_metrics_aggregate_interval)
                for folder in sites[0].folders.values():
                    folder.begin = doors.begin
                handle = ServerHandle(api)
                if app is not None:
                    app.attach(handle)
                urls = [each.url for each in listening]
                yield Server(handle, node, doors, context, opened, metrics, sites, urls, stage, loaded)
        finally:
            context.rules.backends.close()


def _open_notices(context: Context, last: float) -> AbstractAsyncContextManager[Notices]:
    return open_notices(
        context.node,
        backends=lambda: context.rules.backends,
        channels=lambda: context.rules.channels,
        options=lambda: context.rules.state,
        wall_clock=context.wall_clock,
        random=context.random,
        last=last,
    )


def _time_to_end(config: Config) -> float:
    """What is left of the time to leave when the last client is gone and the last hook told: for hub and engine."""
    return min(1.0, config.shutdown.timeout / 4)


# ---- what answers where -------------------------------------------------------------------------------------------


def _sites(
    config: Config,
    context: Context,
    api: Api,
    engine: Engine,
    metrics: Metrics,
    siblings: Siblings | None,
    *,
    split: bool,
) -> tuple[Site, Site]:
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
    if config.init.enabled:
        external.routes[_path(config.init.handler_prefix)] = init_route(origins)
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
        internal.routes[_path(config.health.handler_prefix)] = Route(_GET, _health(internal, engine, siblings))
    if config.prometheus.enabled:
        internal.routes[_path(config.prometheus.handler_prefix)] = Route(_GET, _render(metrics, siblings))
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


def _health(site: Site, engine: Engine, siblings: Siblings | None) -> Callable[[Request], Awaitable[bytes]]:
    """`/health`: this process is well. `/health?ready=1`: the engine is well, too, and so are all siblings."""
    healthy, leaving = response(200, b"{}"), response(503, b"{}")

    async def handle(request: Request) -> bytes:
        if site.closing:
            return leaving
        if "ready=1" in request.head.query.split("&"):
            waits = engine.unready if siblings is None else await siblings.unready(engine)
            if waits:
                return response(503, json.dumps({"waiting_for": list(waits)}).encode())
        return healthy

    return handle


def _render(metrics: Metrics, siblings: Siblings | None) -> Callable[[Request], Awaitable[bytes]]:
    async def handle(request: Request) -> bytes:
        text = metrics.render() if siblings is None else await siblings.metrics(metrics)
        return response(200, text, content_type=CONTENT_TYPE)

    return handle


def _read(context: Context) -> Read:
    node = context.node
    info = node.describe()
    return Read(
        nodes=len(node.cluster.nodes()),
        clients=info.num_clients,
        users=info.num_users,
        subscriptions=info.num_subs,
        channels=info.num_channels,
        deliveries=node.deliveries,
        events_waiting=context.notices.waiting() if context.rules.backends.told else {},
    )


def _insecure_flags(config: Config) -> int:
    return sum((config.client.insecure, config.http_api.insecure, config.client.insecure_skip_token_signature_verify))
