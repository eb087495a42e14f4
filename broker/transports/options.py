"""What the doors for clients can be told: listeners and transports (server API §1.6, §1.7)."""

from __future__ import annotations

from typing import final

import attrs

from broker.tls import TlsOptions
from broker.values import Duration


@final
@attrs.frozen(kw_only=True)
class Http2Options:
    """`http_server.http2`, our own: Go's server has HTTP/2 whether one wants it or not."""

    enabled: bool = False
    """Offer HTTP/2 to clients that come with TLS."""


@attrs.frozen(kw_only=True)
class HttpServerOptions:
    """Where the daemon listens: `http_server.*`, without ACME, HTTP/3 and cleartext HTTP/2."""

    address: str = ""
    """Empty: all interfaces."""
    port: int = 8000
    internal_address: str = ""
    """Where the API, metrics and health answer; empty takes `address`."""
    internal_port: str = ""
    """A text, as Centrifugo has it; empty takes `port`."""
    tls: TlsOptions = TlsOptions()
    tls_external: bool = False
    """TLS only on the external listener."""
    internal_tls: TlsOptions = TlsOptions()
    http2: Http2Options = Http2Options()
    trusted_proxies: tuple[str, ...] = ()
    """Our own option: networks, or `unix`, whose `X-Forwarded-For` counts, and who alone may name users in a header."""
    unix_socket: str = ""
    """Our own option: the path of a Unix socket that also serves everything; empty means none."""


@final
@attrs.frozen(kw_only=True)
class WebSocketOptions:
    """The `websocket` section."""

    disabled: bool = False
    handler_prefix: str = "/connection/websocket"
    compression: bool = False
    compression_min_size: int = 0
    compression_level: int = 1
    read_buffer_size: int = 0
    write_buffer_size: int = 0
    use_write_buffer_pool: bool = False
    write_timeout: Duration = Duration(1)
    message_size_limit: int = 65536
    decompressed_message_size_limit: int = 0
    """0: ten times `message_size_limit`."""


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
class EmulationOptions:
    """The `emulation` section. Its endpoint opens with the first emulated transport."""

    handler_prefix: str = "/emulation"
    max_request_body_size: int = 65536


@final
@attrs.frozen(kw_only=True)
class InitOptions:
    """`init`."""

    enabled: bool = False
    handler_prefix: str = "/connection/init"


@final
@attrs.frozen(kw_only=True)
class SockJsOptions:
    """The `sockjs` section: our own, with the names and defaults of Centrifugo 5 (`sockjs`, `sockjs_url`,
    `sockjs_handler_prefix`), which was the last to have it."""

    enabled: bool = False
    handler_prefix: str = "/connection/sockjs"
    url: str = "//cdn.jsdelivr.net/npm/sockjs-client@1/dist/sockjs.min.js"
    """Where a page for iframes gets the client library; it has to be the version that the client uses."""
    heartbeat_delay: Duration = Duration(25)
    """How often a receiver gets a frame that says nothing; negative for never."""
    max_request_body_size: int = 65536
