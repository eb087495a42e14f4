"""A TCP balancer: every client has an entrance of its own, which leads to the next port that answers."""

from __future__ import annotations

from functools import partial
from typing import final

import trio

__all__ = ["Balancer", "Direct", "Entrance"]


@final
class Balancer:
    """Ports in rotation. Who is taken out gets no new connections and keeps those it has."""

    def __init__(self, nursery: trio.Nursery, ports: list[int]) -> None:
        self.ports = ports
        self._nursery = nursery
        self._opened = 0

    async def open(self) -> Entrance:
        """An entrance for one client; entrances begin at different ports, and go on in turn."""
        entrance = Entrance(self, self._opened)
        self._opened += 1
        await entrance.start(self._nursery)
        return entrance


@final
class Entrance:
    """Where one client comes in. `where` is the port that it was led to last, 0 while there is none."""

    def __init__(self, balancer: Balancer, turn: int) -> None:
        self._balancer = balancer
        self._turn = turn
        self.port = self.where = 0

    @property
    def websocket(self) -> str:
        return f"ws://127.0.0.1:{self.port}/connection/websocket"

    async def start(self, nursery: trio.Nursery) -> None:
        listeners = await nursery.start(partial(trio.serve_tcp, self._carry, 0, host="127.0.0.1"))
        self.port = listeners[0].socket.getsockname()[1]

    async def _carry(self, client: trio.SocketStream) -> None:
        server = await self._next()
        if server is None:
            await trio.aclose_forcefully(client)
            return
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(_pump, client, server)
            nursery.start_soon(_pump, server, client)

    async def _next(self) -> trio.SocketStream | None:
        ports = self._balancer.ports
        for _ in range(len(ports)):
            port = ports[self._turn % len(ports)]
            self._turn += 1
            try:
                server = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                continue
            self.where = port
            return server
        self.where = 0
        return None


@final
class Direct:
    """No balancer: everybody comes to one port, whoever listens there."""

    def __init__(self, port: int) -> None:
        self.ports = [port]
        self.where = port
        self.websocket = f"ws://127.0.0.1:{port}/connection/websocket"

    async def open(self) -> Direct:
        return self


async def _pump(source: trio.SocketStream, target: trio.SocketStream) -> None:
    try:
        async for chunk in source:
            await target.send_all(chunk)
        await target.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        await trio.aclose_forcefully(source)
        await trio.aclose_forcefully(target)
