"""A TCP relay between a client and the server that can cut its wires, and that counts what passes."""

from __future__ import annotations

import socket
import struct
from functools import partial
from typing import final

import trio

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time left: close sends RST."""


@final
class Relay:
    """Listens on a port of its own and carries bytes to and from `target`, a port that may be changed."""

    def __init__(self, nursery: trio.Nursery, port: int) -> None:
        self._nursery = nursery
        self.target = port
        self._wires: set[trio.SocketStream] = set()
        self._open = trio.Event()
        self._open.set()
        self.port = 0
        self.carried = 0
        """Connections so far."""
        self.sent_to_client = bytearray()

    @property
    def websocket(self) -> str:
        """What a client is given instead of the server's address."""
        return f"ws://127.0.0.1:{self.port}/connection/websocket"

    async def start(self) -> None:
        listeners = await self._nursery.start(partial(trio.serve_tcp, self._carry, 0, host="127.0.0.1"))
        self.port = listeners[0].socket.getsockname()[1]

    def cut(self) -> None:
        """Reset every connection, and hold new ones back until `mend`."""
        self._open = trio.Event()
        for wire in self._wires:
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            wire.socket.close()

    def mend(self) -> None:
        """Let connections through again."""
        self._open.set()

    async def _carry(self, client: trio.SocketStream) -> None:
        await self._open.wait()
        self.carried += 1
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self.target)
        except OSError:
            await client.aclose()
            return
        wires = {client, server}
        self._wires |= wires
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, client, server, None)
            nursery.start_soon(self._pump, server, client, self.sent_to_client)
        self._wires -= wires

    @staticmethod
    async def _pump(source: trio.SocketStream, target: trio.SocketStream, record: bytearray | None) -> None:
        try:
            async for chunk in source:
                if record is not None:
                    record += chunk
                await target.send_all(chunk)
            await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(source)
            await trio.aclose_forcefully(target)
