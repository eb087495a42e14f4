"""What an operator sees: logs, metrics, health (server API §7.3, §7.4)."""

from __future__ import annotations

from typing import final

import attrs


@final
@attrs.frozen(kw_only=True)
class LogOptions:
    """The `log` section."""

    level: str = "info"
    """`none`, `trace`, `debug`, `info`, `warn`, `error`, `fatal`; anything else counts as `info`."""
    file: str = ""
    """JSON lines are appended to this path; empty means the standard streams."""


@final
@attrs.frozen(kw_only=True)
class PrometheusOptions:
    """The `prometheus` section."""

    enabled: bool = False
    handler_prefix: str = "/metrics"
    instrument_http_handlers: bool = False
    recovered_publications_histogram: bool = False
    native_histograms: bool = False


@final
@attrs.frozen(kw_only=True)
class HealthOptions:
    """The `health` section."""

    enabled: bool = False
    handler_prefix: str = "/health"
