"""Settings of hooks that ask a backend, which Centrifugo calls proxies (server-side §1.6, §4.1)."""

from __future__ import annotations

from typing import final

import attrs

from broker.tls import TlsOptions
from broker.values import Duration, Secret


@final
@attrs.frozen(kw_only=True)
class DisconnectOptions:
    """A disconnect as configuration writes it."""

    code: int = 0
    reason: str = ""


@final
@attrs.frozen(kw_only=True)
class ErrorOptions:
    """An error reply as configuration writes it."""

    code: int = 0
    message: str = ""
    temporary: bool = False


@final
@attrs.frozen(kw_only=True)
class StatusTransform:
    """An HTTP status of the backend, and what the client gets for it."""

    status_code: int = 0
    to_error: ErrorOptions = ErrorOptions()
    to_disconnect: DisconnectOptions = DisconnectOptions()


@final
@attrs.frozen(kw_only=True)
class HttpProxyOptions:
    """`http.*` of a proxy."""

    tls: TlsOptions = TlsOptions()
    static_headers: dict[str, Secret] = attrs.Factory(dict)
    status_to_code_transforms: tuple[StatusTransform, ...] = ()
    max_connections: int = 512
    """Our own option: questions under way at a time; the next ones wait, within their timeout."""


@final
@attrs.frozen(kw_only=True)
class GrpcProxyOptions:
    """`grpc.*` of a proxy: known, so that it can be refused. gRPC backends are not in this version."""

    tls: TlsOptions = TlsOptions()
    credentials_key: str = ""
    credentials_value: Secret = Secret()
    compression: bool = False
    static_metadata: dict[str, Secret] = attrs.Factory(dict)


@attrs.frozen(kw_only=True)
class ProxyOptions:
    """One backend, and how it is asked."""

    endpoint: Secret = Secret()
    timeout: Duration = Duration(1)
    http_headers: tuple[str, ...] = ()
    grpc_metadata: tuple[str, ...] = ()
    emulated_headers: tuple[str, ...] = ()
    binary_encoding: bool = False
    include_connection_meta: bool = False
    http: HttpProxyOptions = HttpProxyOptions()
    grpc: GrpcProxyOptions = GrpcProxyOptions()


@final
@attrs.frozen(kw_only=True)
class NamedProxyOptions(ProxyOptions):
    """One of `proxies`."""

    name: str = ""


@final
@attrs.frozen(kw_only=True)
class SwitchedProxyOptions(ProxyOptions):
    """A proxy with a switch of its own: those of `client.proxy`."""

    enabled: bool = False


@final
@attrs.frozen(kw_only=True)
class ClientProxies:
    """`client.proxy`."""

    connect: SwitchedProxyOptions = SwitchedProxyOptions()
    refresh: SwitchedProxyOptions = SwitchedProxyOptions()
    disconnect: SwitchedProxyOptions = SwitchedProxyOptions()
    """Our own option: told when a connection is over."""


@final
@attrs.frozen(kw_only=True)
class ChannelProxies:
    """`channel.proxy`: the proxies that namespaces call `default`."""

    subscribe: ProxyOptions = ProxyOptions()
    publish: ProxyOptions = ProxyOptions()
    sub_refresh: ProxyOptions = ProxyOptions()
    subscribe_stream: ProxyOptions = ProxyOptions()
    map_publish: ProxyOptions = ProxyOptions()
    map_remove: ProxyOptions = ProxyOptions()
    shared_poll_refresh: ProxyOptions = ProxyOptions()
    cache_empty: ProxyOptions = ProxyOptions()
    """Our own option (Centrifugo PRO has it): asked when a cache that a client recovers from is empty."""
    unsubscribe: ProxyOptions = ProxyOptions()
    """Our own option: told when a subscription is over."""
    state: ProxyOptions = ProxyOptions()
    """Our own option (Centrifugo PRO has it): told when a channel is occupied or vacated."""


@final
@attrs.frozen(kw_only=True)
class StateOptions:
    """`channel.state`, our own options: how the backend is told of occupied and vacated channels."""

    vacated_event_delay: Duration = Duration(5)
    """How long a channel has to be without subscribers to be vacated. Who comes back in time was never away."""
    batch_max_delay: Duration = Duration(0.1)
    """How long a change may wait for others."""
    batch_max_size: int = 1000
    """Channels told about at once."""
