"""W11: commands of many clients, one in flight per connection."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

from benchmarks.figures import Figures, Settings, rates, timed
from benchmarks.frames import client_frame
from benchmarks.load import Load, connect
from benchmarks.servers import Server
from benchmarks.sockets import Caller

WARM_UP_SECONDS = 0.5
RPC_METHOD = "ping"


def publish(server: Server, settings: Settings) -> Figures:
    """Each client publishes to a channel of its own that nobody hears."""
    data = {"pad": "x" * max(settings.size - len('{"pad":""}'), 0)}
    return _calls(server, settings, lambda number: {"publish": {"channel": f"mine_{number}", "data": data}})


def rpc(server: Server, settings: Settings) -> Figures:
    """Each client calls the method `ping`, which a Centrifugo has under `rpc.ping.enabled`."""
    return _calls(server, settings, lambda _: {"rpc": {"method": RPC_METHOD, "data": {}}})


def _calls(server: Server, settings: Settings, command: Callable[[int], dict[str, Any]]) -> Figures:
    with Load(server) as load:
        callers: list[Caller] = []
        asked = answers = 0
        end = 0.0

        def ask(caller: Caller) -> None:
            nonlocal asked
            asked += 1
            caller.call()

        def answered(caller: Caller, payload: bytes) -> None:
            nonlocal answers
            if b'"error"' in payload:
                raise ConnectionError(f"the server answered {json.loads(payload)}")
            answers += 1
            if time.perf_counter() < end:
                ask(caller)

        def use(number: int, sock: socket.socket) -> None:
            caller = Caller(sock, client_frame({"id": 2} | command(number)), answered)
            callers.append(caller)
            load.poll.replace(caller)

        def run(seconds: float) -> int:
            nonlocal end
            before = answers
            end = time.perf_counter() + seconds
            for caller in callers:
                ask(caller)
            load.poll.turn_until(lambda: answers == asked, "replies")
            return answers - before

        load.open_links(settings.connections, lambda _: [connect()], use)
        run(WARM_UP_SECONDS)
        with timed(server) as clock:
            count = run(settings.seconds)
        return rates("commands", count, clock)
