"""Sections that no single room owns, and sections of rooms with the keys added that this version only knows."""

from __future__ import annotations

from typing import final

import attrs

from broker.channels.options import ChannelsOptions
from broker.config.unbuilt.engines import NatsOptions, PostgresOptions, RedisNatsOptions
from broker.config.unbuilt.transports import AutocertOptions, Http3Options
from broker.engines.options import BrokerOptions
from broker.hooks.options import ChannelProxies, ClientProxies, ProxyOptions, StateOptions
from broker.sessions.options import ClientOptions, RpcOptions
from broker.transports.options import HttpServerOptions
from broker.values import Duration


@final
@attrs.frozen(kw_only=True)
class ShutdownOptions:
    """The `shutdown` section."""

    timeout: Duration = Duration(30)
    """How long the drain may take, whatever peers do."""
    drain_window: Duration = Duration(0)
    """Clients are told to go spread over this time, so that they do not all come back at once. Within `timeout`."""


@final
@attrs.frozen(kw_only=True)
class HttpServerSection(HttpServerOptions):
    """`http_server`, whole."""

    tls_autocert: AutocertOptions = AutocertOptions()
    http3: Http3Options = Http3Options()
    h2c_external: bool = False


@final
@attrs.frozen(kw_only=True)
class BrokerSection(BrokerOptions):
    """`broker`, whole."""

    nats: NatsOptions = NatsOptions()
    postgres: PostgresOptions = PostgresOptions()
    redisnats: RedisNatsOptions = RedisNatsOptions()


@final
@attrs.frozen(kw_only=True)
class ClientSection(ClientOptions):
    """`client`, whole."""

    proxy: ClientProxies = ClientProxies()


@final
@attrs.frozen(kw_only=True)
class ChannelSection(ChannelsOptions):
    """`channel`, whole."""

    proxy: ChannelProxies = ChannelProxies()
    state: StateOptions = StateOptions()


@final
@attrs.frozen(kw_only=True)
class RpcSection(RpcOptions):
    """`rpc`, whole."""

    proxy: ProxyOptions = ProxyOptions()
