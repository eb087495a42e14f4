"""Settings of doors that do not open yet: emulated, one-way, QUIC, gRPC (server API §1.7)."""

from __future__ import annotations

from typing import final

import attrs

from broker.tls import TlsOptions
from broker.values import Duration, Secret


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
class SseOptions:
    """`sse`."""

    enabled: bool = False
    handler_prefix: str = "/connection/sse"
    max_request_body_size: int = 65536


@final
@attrs.frozen(kw_only=True)
class HttpStreamOptions:
    """`http_stream`."""

    enabled: bool = False
    handler_prefix: str = "/connection/http_stream"
    max_request_body_size: int = 65536


@final
@attrs.frozen(kw_only=True)
class WebTransportOptions:
    """`webtransport`."""

    enabled: bool = False
    handler_prefix: str = "/connection/webtransport"
    message_size_limit: int = 65536


@final
@attrs.frozen(kw_only=True)
class HttpResponseOptions:
    """An HTTP answer as configuration writes it."""

    status_code: int = 0
    body: str = ""


@final
@attrs.frozen(kw_only=True)
class ConnectCodeToHttp:
    """An error code of connect, and the HTTP answer for it."""

    code: int = 0
    to: HttpResponseOptions = HttpResponseOptions()


@final
@attrs.frozen(kw_only=True)
class ConnectCodeToHttpOptions:
    """`connect_code_to_http_response`."""

    enabled: bool = False
    transforms: tuple[ConnectCodeToHttp, ...] = ()


@final
@attrs.frozen(kw_only=True)
class UniSseOptions:
    """`uni_sse`."""

    enabled: bool = False
    handler_prefix: str = "/connection/uni_sse"
    max_request_body_size: int = 65536
    connect_code_to_http_response: ConnectCodeToHttpOptions = ConnectCodeToHttpOptions()


@final
@attrs.frozen(kw_only=True)
class UniHttpStreamOptions:
    """`uni_http_stream`."""

    enabled: bool = False
    handler_prefix: str = "/connection/uni_http_stream"
    max_request_body_size: int = 65536
    connect_code_to_http_response: ConnectCodeToHttpOptions = ConnectCodeToHttpOptions()


@final
@attrs.frozen(kw_only=True)
class UniWebSocketOptions:
    """`uni_websocket`."""

    enabled: bool = False
    handler_prefix: str = "/connection/uni_websocket"
    compression: bool = False
    compression_min_size: int = 0
    compression_level: int = 1
    read_buffer_size: int = 0
    write_buffer_size: int = 0
    use_write_buffer_pool: bool = False
    write_timeout: Duration = Duration(1)
    message_size_limit: int = 65536
    decompressed_message_size_limit: int = 0
    disable_closing_handshake: bool = False
    disable_disconnect_push: bool = False
    join_push_messages: bool = False


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
