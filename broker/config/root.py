"""The whole configuration: one attribute per key at the top of the file."""

from __future__ import annotations

from typing import final

import attrs

from broker.admin.options import DevOptions
from broker.api.options import HttpApiOptions
from broker.config.sections import (
    BrokerSection,
    ChannelSection,
    ClientSection,
    HttpServerSection,
    RpcSection,
    ShutdownOptions,
)
from broker.config.unbuilt.consumers import ConsumerOptions
from broker.config.unbuilt.engines import (
    ControllerOptions,
    MapBrokerOptions,
    SharedPollKeys,
)
from broker.config.unbuilt.operations import (
    AdminOptions,
    DebugOptions,
    GraphiteOptions,
    OpenTelemetryOptions,
    SwaggerOptions,
    UsageStatsOptions,
)
from broker.config.unbuilt.transports import (
    GrpcApiOptions,
    UniGrpcOptions,
    WebTransportOptions,
)
from broker.engines.options import EngineOptions, PresenceManagerOptions
from broker.hooks.options import NamedProxyOptions
from broker.hub.options import NodeOptions
from broker.observe.options import HealthOptions, LogOptions, PrometheusOptions
from broker.transports.options import (
    EmulationOptions,
    HttpStreamOptions,
    InitOptions,
    SockJsOptions,
    SseOptions,
    UniHttpStreamOptions,
    UniSseOptions,
    UniWebSocketOptions,
    WebSocketOptions,
)


@final
@attrs.frozen(kw_only=True)
class Config:
    """Every option of Centrifugo 6.9, and our own: `dev`, `sockjs`, `workers`, `http_server.unix_socket`,
    `shutdown.drain_window`.

    What this version has not built is typed, too: it is known, checked, and refused where it is switched on.
    """

    http_server: HttpServerSection = HttpServerSection()
    log: LogOptions = LogOptions()
    engine: EngineOptions = EngineOptions()
    broker: BrokerSection = BrokerSection()
    presence_manager: PresenceManagerOptions = PresenceManagerOptions()
    map_broker: MapBrokerOptions = MapBrokerOptions()
    controller: ControllerOptions = ControllerOptions()
    shared_poll: SharedPollKeys = SharedPollKeys()
    client: ClientSection = ClientSection()
    channel: ChannelSection = ChannelSection()
    rpc: RpcSection = RpcSection()
    proxies: tuple[NamedProxyOptions, ...] = ()
    http_api: HttpApiOptions = HttpApiOptions()
    grpc_api: GrpcApiOptions = GrpcApiOptions()
    consumers: tuple[ConsumerOptions, ...] = ()
    websocket: WebSocketOptions = WebSocketOptions()
    sse: SseOptions = SseOptions()
    http_stream: HttpStreamOptions = HttpStreamOptions()
    webtransport: WebTransportOptions = WebTransportOptions()
    uni_sse: UniSseOptions = UniSseOptions()
    uni_http_stream: UniHttpStreamOptions = UniHttpStreamOptions()
    uni_websocket: UniWebSocketOptions = UniWebSocketOptions()
    uni_grpc: UniGrpcOptions = UniGrpcOptions()
    emulation: EmulationOptions = EmulationOptions()
    admin: AdminOptions = AdminOptions()
    prometheus: PrometheusOptions = PrometheusOptions()
    health: HealthOptions = HealthOptions()
    swagger: SwaggerOptions = SwaggerOptions()
    debug: DebugOptions = DebugOptions()
    init: InitOptions = InitOptions()
    opentelemetry: OpenTelemetryOptions = OpenTelemetryOptions()
    graphite: GraphiteOptions = GraphiteOptions()
    usage_stats: UsageStatsOptions = UsageStatsOptions()
    node: NodeOptions = NodeOptions()
    shutdown: ShutdownOptions = ShutdownOptions()
    hooks: str = ""
    """Our own option: `package.module:attribute` of a `broker.hooks.Hooks`, asked in this process."""
    pid_file: str = ""
    enable_unreleased_features: bool = False
    dev: DevOptions = DevOptions()
    sockjs: SockJsOptions = SockJsOptions()
    workers: str = "1"
    """Our own option: processes that serve the same addresses side by side, or `auto`: one for each core."""

    @property
    def engine_is_shared(self) -> bool:
        """Whether processes share channels, history and presence."""
        broker = self.broker.type if self.broker.enabled else self.engine.type
        presence = self.presence_manager.type if self.presence_manager.enabled else self.engine.type
        return "memory" not in (broker, presence)
