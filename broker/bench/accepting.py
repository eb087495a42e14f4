"""One epoll loop over a listening socket and all who come in by it: what the floor and the backend are made of."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from typing import final

__all__ = ["Accepting"]


@final
class Accepting:
    """Sockets, and what they say. Plain, so that it costs less than the servers that it is measured beside."""

    def __init__(self, door: socket.socket) -> None:
        self._door = door
        self._epoll = select.epoll()
        self._epoll.register(door, select.EPOLLIN)
        self._socks: dict[int, socket.socket] = {}

    def add(self, sock: socket.socket) -> None:
        """Listen to one more."""
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socks[sock.fileno()] = sock
        self._epoll.register(sock, select.EPOLLIN)

    def turn(self, timeout: float | None = None) -> Iterator[tuple[int, socket.socket, bytes]]:
        """Descriptor, socket and what it said, of all who said something within `timeout` seconds. With `b""` it has
        gone, and is closed."""
        for descriptor, _ in self._epoll.poll(timeout):
            if descriptor == self._door.fileno():
                self.add(self._door.accept()[0])
                continue
            sock = self._socks[descriptor]
            try:
                data = sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                self._epoll.unregister(descriptor)
                self._socks.pop(descriptor).close()
            yield descriptor, sock, data
