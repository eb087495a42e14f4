"""The load's side of a connection: plain sockets in one epoll set."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Protocol, final

from broker.bench.target import Address, Target

__all__ = ["PATIENCE", "Handler", "Poll", "Sock", "Stuck", "dialler", "read", "send"]

PATIENCE = 30.0
"""Seconds without any progress after which a round is given up."""

Sock = socket.socket
"""With TLS one of its subclass, which reads and sends in the same way."""

_MOST = 1 << 16
"""Bytes of one read: more would have the allocator ask the kernel each time."""
_IP_BIND_ADDRESS_NO_PORT = 24
_ADDRESSES = 250


class Stuck(RuntimeError):
    """The server stopped doing what was waited for."""


class Handler(Protocol):
    """What an epoll set calls."""

    sock: Sock

    def readable(self) -> None: ...


@final
class Poll:
    """One level-triggered epoll set: whoever has bytes is called, everybody once per turn."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self.on_turn: Callable[[], None] | None = None
        """Called after each turn."""

    def add(self, handler: Handler) -> None:
        self._handlers[handler.sock.fileno()] = handler
        self._epoll.register(handler.sock.fileno(), select.EPOLLIN)

    def replace(self, handler: Handler) -> None:
        """From now on `handler` is called for its socket, which is in the set already."""
        self._handlers[handler.sock.fileno()] = handler

    def ignore(self, handler: Handler) -> None:
        """Whatever comes for it is left in the kernel; it is closed with all others."""
        self.replace(handler)
        self._epoll.modify(handler.sock.fileno(), 0)

    def drop(self, handler: Handler) -> None:
        """Close its socket with a reset and forget it."""
        del self._handlers[handler.sock.fileno()]
        self._epoll.unregister(handler.sock.fileno())
        _reset(handler.sock)

    def turn(self, timeout: float) -> int:
        """Call all that are readable now, or after at most `timeout` seconds; how many they were."""
        handlers = self._handlers
        events = self._epoll.poll(timeout, max(len(handlers), 1))
        for descriptor, _ in events:
            handler = handlers.get(descriptor)
            if handler is not None:
                handler.readable()
        if self.on_turn is not None:
            self.on_turn()
        return len(events)

    def turn_for(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self.turn(left)

    def turn_until(self, done: Callable[[], bool], what: str) -> None:
        """Turn until `done()`.

        Raises:
            Stuck: nothing at all came in for `PATIENCE` seconds.
        """
        last = time.monotonic()
        while not done():
            if self.turn(0.05):
                last = time.monotonic()
            elif time.monotonic() - last > PATIENCE:
                raise Stuck(f"nothing came from the server for {PATIENCE:.0f} s while waiting for {what}")

    def close(self) -> None:
        """Close every socket of the set with a reset, so that no port stays behind in TIME_WAIT."""
        self._epoll.close()
        for handler in self._handlers.values():
            _reset(handler.sock)
        self._handlers.clear()


def read(sock: Sock) -> bytes:
    """What is there, up to 64 KiB, or nothing.

    Raises:
        ConnectionError: the server hung up.
    """
    try:
        data = sock.recv(_MOST)
    except (BlockingIOError, ssl.SSLWantReadError):
        return b""
    if not data:
        raise ConnectionError("the server hung up: it ended, or took the load for too slow a reader")
    return data


def send(sock: Sock, data: bytes) -> None:
    """Send all of `data`; what does not fit at once waits for the server to read."""
    try:
        sent = sock.send(data)
    except (BlockingIOError, ssl.SSLWantWriteError):
        sent = 0
    if sent < len(data):
        sock.settimeout(PATIENCE)
        sock.sendall(data[sent:])
        sock.setblocking(False)


def dialler(target: Target, address: Address) -> Callable[[], Sock]:
    """What opens connections to `address`, each with its TLS handshake done."""
    context = target.tls() if address.tls else None
    opened = 0

    def dial() -> Sock:
        nonlocal opened
        opened += 1
        sock = socket.socket()
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.host.startswith("127."):
                # One address has 28,000 ports, and a closed connection may keep its port for a minute.
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((f"127.0.1.{1 + opened % _ADDRESSES}", 0))
            sock.settimeout(10)
            sock.connect((address.host, address.port))
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=address.name or address.host)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock

    return dial


def _reset(sock: Sock) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
