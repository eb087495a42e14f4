"""Settings of pages and reports for operators that do not exist yet (server API §1.7)."""

from __future__ import annotations

from typing import final

import attrs

from broker.values import Duration, Secret


@final
@attrs.frozen(kw_only=True)
class AdminOptions:
    """`admin`."""

    enabled: bool = False
    insecure: bool = False
    external: bool = False
    handler_prefix: str = ""
    password: Secret = Secret()
    secret: Secret = Secret()
    web_path: str = ""
    web_proxy_address: str = ""


@final
@attrs.frozen(kw_only=True)
class SwaggerOptions:
    """`swagger`."""

    enabled: bool = False
    handler_prefix: str = "/swagger"


@final
@attrs.frozen(kw_only=True)
class DebugOptions:
    """`debug`."""

    enabled: bool = False
    handler_prefix: str = "/debug/pprof"


@final
@attrs.frozen(kw_only=True)
class OpenTelemetryOptions:
    """`opentelemetry`."""

    enabled: bool = False
    api: bool = False
    consuming: bool = False
    google_cloud_adc_auth: bool = False


@final
@attrs.frozen(kw_only=True)
class GraphiteOptions:
    """`graphite`."""

    enabled: bool = False
    host: str = "localhost"
    port: int = 2003
    prefix: str = "centrifugo"
    interval: Duration = Duration(10)
    tags: bool = False


@final
@attrs.frozen(kw_only=True)
class UsageStatsOptions:
    """`usage_stats`."""

    disabled: bool = False
