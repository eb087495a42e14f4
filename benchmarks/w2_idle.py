"""W2: what a connection costs while nothing happens."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from benchmarks.figures import Figures, Settings, timed
from benchmarks.load import Commands, Load, connect, subscribe
from benchmarks.servers import Server
from benchmarks.sockets import Audience, Subscriber

WARM_UP = 200
"""Connections that are there before the first look: they pay for what a server sets up once."""
SETTLE_SECONDS = 1.0


def with_one_subscription(server: Server, settings: Settings) -> Figures:
    return _idle(server, settings, lambda number: [connect(), subscribe(settings.channel(number))])


def with_none(server: Server, settings: Settings) -> Figures:
    return _idle(server, settings, lambda _: [connect()])


def _idle(server: Server, settings: Settings, commands: Callable[[int], Commands]) -> Figures:
    if not server.pids:
        raise ValueError("W2 needs the server's process: say --server-pid")
    with Load(server) as load:
        audience = Audience()

        def use(_: int, sock: socket.socket) -> None:
            load.poll.replace(Subscriber(sock, audience))

        load.open_links(WARM_UP, lambda number: commands(-1 - number), use)
        before = _settled(load, server)
        load.open_links(settings.connections, commands, use)
        grown = _settled(load, server) - before
        figures = {"KiB/connection": grown / 1024 / settings.connections}
        if settings.seconds:
            with timed(server) as clock:
                _wait(load, settings.seconds)
            each = settings.connections + WARM_UP
            figures["CPU µs/s/connection"] = 1e6 * clock.cpu / clock.wall / each
        return figures


def _settled(load: Load, server: Server) -> int:
    _wait(load, SETTLE_SECONDS)
    return server.resident()


def _wait(load: Load, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        load.poll.turn(left)
