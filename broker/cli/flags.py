"""The flags of the root command: some options of the configuration, by their paths (server API §1.9)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Final, final

import attrs

__all__ = ["FLAGS", "Flag", "given_flags", "with_values"]


@final
@attrs.frozen
class Flag:
    """One flag. A switch may stand alone, or take its value after `=`: `--client.insecure=false`."""

    group: str
    path: str
    help: str
    metavar: str = ""
    """Empty for a switch."""
    short: str = ""

    def add_to(self, parser: argparse._ArgumentGroup) -> None:
        """Let the parser know it. Values stay texts: the configuration types them like everything else."""
        names = [f"-{self.short}", f"--{self.path}"] if self.short else [f"--{self.path}"]
        parser.add_argument(*names, dest=self.path, metavar=self.metavar or "true|false", help=self.help)


_LISTEN: Final = "where to listen"
_ENGINE: Final = "engine"
_CLIENTS: Final = "doors for clients"
_API: Final = "server API"
_OPERATION: Final = "operation"

FLAGS: Final = (
    Flag(_LISTEN, "http_server.address", "interface address (all)", "ADDRESS", "a"),
    Flag(_LISTEN, "http_server.port", "port (8000)", "PORT", "p"),
    Flag(_LISTEN, "http_server.internal_address", "another address for the API, metrics and health", "ADDRESS"),
    Flag(_LISTEN, "http_server.internal_port", "another port for the API, metrics and health", "PORT"),
    Flag(_ENGINE, "engine.type", "memory, redis (memory)", "TYPE"),
    Flag(_ENGINE, "broker.enabled", "another broker than the engine's"),
    Flag(_ENGINE, "broker.type", "memory, redis, nats, postgres (memory)", "TYPE"),
    Flag(_ENGINE, "presence_manager.enabled", "another presence manager than the engine's"),
    Flag(_ENGINE, "presence_manager.type", "memory, redis (memory)", "TYPE"),
    Flag(_ENGINE, "map_broker.type", "memory, redis, postgres (memory)", "TYPE"),
    Flag(_CLIENTS, "client.insecure", "INSECURE: no tokens, everything permitted"),
    Flag(_CLIENTS, "sse.enabled", "SSE with emulation"),
    Flag(_CLIENTS, "http_stream.enabled", "HTTP streaming with emulation"),
    Flag(_CLIENTS, "uni_websocket.enabled", "one-way WebSocket"),
    Flag(_CLIENTS, "uni_sse.enabled", "one-way SSE"),
    Flag(_CLIENTS, "uni_http_stream.enabled", "one-way HTTP streaming"),
    Flag(_CLIENTS, "uni_grpc.enabled", "one-way gRPC"),
    Flag(_CLIENTS, "uni_grpc.port", "its port (11000)", "PORT"),
    Flag(_CLIENTS, "init.enabled", "the connection init endpoint"),
    Flag(_API, "http_api.insecure", "INSECURE: no API key"),
    Flag(_API, "http_api.external", "on the external port"),
    Flag(_API, "grpc_api.enabled", "the gRPC API"),
    Flag(_API, "grpc_api.port", "its port (10000)", "PORT"),
    Flag(_OPERATION, "log.level", "none, trace, debug, info, warn, error, fatal (info)", "LEVEL"),
    Flag(_OPERATION, "log.file", "a file for logs", "FILE"),
    Flag(_OPERATION, "workers", "processes on the same port, or auto: one for each core (1)", "N"),
    Flag(_OPERATION, "pid_file", "a file for the process id", "FILE"),
    Flag(_OPERATION, "health.enabled", "the health endpoint"),
    Flag(_OPERATION, "prometheus.enabled", "the Prometheus endpoint"),
    Flag(_OPERATION, "admin.enabled", "the admin web interface"),
    Flag(_OPERATION, "admin.external", "on the external port"),
    Flag(_OPERATION, "admin.insecure", "INSECURE: no admin password"),
    Flag(_OPERATION, "swagger.enabled", "the Swagger page of the API"),
    Flag(_OPERATION, "debug.enabled", "profiling endpoints"),
)
"""All 33 of Centrifugo, and `--workers`. Those of what is not in this version are known, and refused with the rest."""
_SWITCHES: Final = frozenset(f"--{flag.path}" for flag in FLAGS if not flag.metavar)
_PATHS: Final = frozenset(flag.path for flag in FLAGS)


def with_values(argv: Sequence[str]) -> list[str]:
    """The command line with `=true` after every switch that stands alone."""
    return [f"{argument}=true" if argument in _SWITCHES else argument for argument in argv]


def given_flags(arguments: Mapping[str, object]) -> dict[str, str]:
    """The flags that were given, as texts by path."""
    return {path: str(value) for path, value in arguments.items() if path in _PATHS and value is not None}
