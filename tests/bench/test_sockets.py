"""Where a load's connections come from."""

from __future__ import annotations

import socket

from broker.bench.sockets import dialler
from broker.bench.target import Target


def test_connections_come_from_many_addresses_because_one_has_too_few_ports() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=20) as server:
        target = Target.at(f"ws://127.0.0.1:{server.getsockname()[1]}")
        dial = dialler(target, target.link)
        socks = [dial() for _ in range(10)]
        try:
            assert len({sock.getsockname()[0] for sock in socks}) == 10
            assert all(sock.getsockname()[0].startswith("127.") for sock in socks)
        finally:
            for sock in socks:
                sock.close()
