"""What a TLS connection speaks is agreed in its handshake, which is over when its first bytes come."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, final

from broker.protocol import codes
from broker.transports.connection import Connection, Machine

__all__ = ["AlpnMachine"]


@final
class AlpnMachine:
    """The first machine of a connection that may speak HTTP/2: HTTP/1.1, with its deadline, until it is known.

    Args:
        http2: makes the machine for HTTP/2.
    """

    __slots__ = ("_connection", "_http", "_http2")

    def __init__(self, connection: Connection, http: Machine, http2: Callable[[Connection], Machine]) -> None:
        self._connection = connection
        self._http = http
        self._http2 = http2

    def feed(self, data: bytes) -> None:
        connection, machine = self._connection, self._http
        if connection.link.alpn == "h2":
            machine.ended()
            machine = self._http2(connection)
        connection.machine = machine
        machine.feed(data)

    def advance(self) -> None:
        """Nothing waits."""

    def failed(self, why: codes.Disconnect) -> None:
        self._http.failed(why)

    def ended(self) -> None:
        self._http.ended()

    def farewell(self) -> bytes:
        return b""

    async def wait_farewell(self, receive: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        await self._http.wait_farewell(receive)

    async def cleanup(self) -> None:
        await self._http.cleanup()
