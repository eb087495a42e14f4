"""Settings of doors that do not open yet: emulated, one-way, QUIC, gRPC (server API §1.7)."""

from __future__ import annotations

from typing import final

import attrs

from broker.tls import TlsOptions
from broker.values import Secret


@final
@attrs.frozen(kw_only=True)
class AutocertOptions:
    """`http_server.tls_autocert`."""

    enabled: bool = False
    host_whitelist: tuple[str, ...] = ()
    cache_dir: str = ""
    email: str = ""
    server_name: str = ""
    http: bool = False
    http_addr: str = ":80"


@final
@attrs.frozen(kw_only=True)
class Http3Options:
    """`http_server.http3`."""

    enabled: bool = False


@final
@attrs.frozen(kw_only=True)
class WebTransportOptions:
    """`webtransport`."""

    enabled: bool = False
    handler_prefix: str = "/connection/webtransport"
    message_size_limit: int = 65536


@final
@attrs.frozen(kw_only=True)
class UniGrpcOptions:
    """`uni_grpc`."""

    enabled: bool = False
    address: str = ""
    port: int = 11000
    max_receive_message_size: int = 0
    tls: TlsOptions = TlsOptions()


@final
@attrs.frozen(kw_only=True)
class GrpcApiOptions:
    """`grpc_api`."""

    enabled: bool = False
    error_mode: str = ""
    address: str = ""
    port: int = 10000
    key: Secret = Secret()
    reflection: bool = False
    tls: TlsOptions = TlsOptions()
    max_receive_message_size: int = 0
