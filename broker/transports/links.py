"""How bytes get in and out of one connection: a TCP socket, the same with TLS, or any Trio stream.

A socket link is read by the shared reader (reader.py); a stream link by a task of its own (`StreamLink.read_into`).
The connection does not know which.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Protocol, final

import trio

from broker.hub import TrySend

__all__ = ["Link", "SocketLink", "StreamLink", "TlsLink"]

_RECEIVE = 16384


class Link(Protocol):
    """One peer. It is a `hub.Sink` as well."""

    try_send: TrySend | None

    async def wait_writable(self) -> None: ...

    async def send_all(self, data: bytes) -> None: ...

    def pause(self) -> None:
        """Read nothing until `resume`; that the peer is gone is still noticed."""

    def resume(self) -> None: ...

    async def aclose(self) -> None:
        """Close now, forcefully. Idempotent; sockets do it without a checkpoint."""


class Pauser(Protocol):
    """The reader, as a link sees it."""

    def pause(self, fd: int) -> None: ...

    def resume(self, fd: int) -> None: ...

    def drop(self, fd: int) -> None: ...


@final
class SocketLink:
    """A plain TCP or Unix socket, non-blocking, read by the shared reader."""

    __slots__ = ("_reader", "fd", "recv", "sock", "try_send")

    def __init__(self, sock: socket.socket, reader: Pauser) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.recv: Callable[[int], bytes] = sock.recv
        self.try_send: TrySend | None = sock.send
        self._reader = reader

    def receive(self) -> bytes | None:
        """What is there: bytes, `b""` at the end, None if nothing is."""
        try:
            return self.recv(_RECEIVE)
        except BlockingIOError:
            return None

    def pending(self) -> bool:
        """Whether more was received than the descriptor shows."""
        return False

    async def wait_writable(self) -> None:
        await trio.lowlevel.wait_writable(self.sock)

    async def send_all(self, data: bytes) -> None:
        raise NotImplementedError("socket links send by try_send")

    def pause(self) -> None:
        self._reader.pause(self.fd)

    def resume(self) -> None:
        self._reader.resume(self.fd)

    async def aclose(self) -> None:
        self._reader.drop(self.fd)  # before the descriptor can be given to somebody else
        if self.sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self.sock)
            self.sock.close()


@final
class TlsLink:
    """TLS over a non-blocking socket: reads and writes are calls, as on the plain one.

    The handshake is the first state: `receive` drives it. A write that OpenSSL wants to repeat is repeated with the
    same bytes first, because the outbox keeps them in order.
    """

    __slots__ = ("_handshaken", "_reader", "_sock", "fd", "try_send")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, reader: Pauser) -> None:
        self._sock = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self.fd = self._sock.fileno()
        self.try_send: TrySend | None = self._try_send
        self._reader = reader
        self._handshaken = False

    @property
    def sock(self) -> socket.socket:
        return self._sock

    def receive(self) -> bytes | None:
        """What is there, decrypted: bytes, `b""` at the end, None if nothing is (or the handshake goes on)."""
        try:
            if not self._handshaken:
                self._sock.do_handshake()
                self._handshaken = True
            return self._sock.recv(_RECEIVE)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def pending(self) -> bool:
        return self._sock.pending() > 0

    def _try_send(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0

    async def wait_writable(self) -> None:
        await trio.lowlevel.wait_writable(self._sock)

    async def send_all(self, data: bytes) -> None:
        raise NotImplementedError("socket links send by try_send")

    def pause(self) -> None:
        self._reader.pause(self.fd)

    def resume(self) -> None:
        self._reader.resume(self.fd)

    async def aclose(self) -> None:
        self._reader.drop(self.fd)
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


@final
class StreamLink:
    """Any Trio stream: memory streams in tests, and systems without epoll. Has a reading task of its own."""

    __slots__ = ("_paused", "_resumed", "stream", "try_send")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.try_send: TrySend | None = None
        self._paused = False
        self._resumed = trio.Event()

    async def wait_writable(self) -> None:
        raise NotImplementedError("stream links send by send_all")

    async def send_all(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read_into(self, feed: Callable[[bytes], None]) -> None:
        """Drive a connection: hand over what comes, `b""` at the end, and return."""
        while True:
            if self._paused:
                self._resumed = trio.Event()
                await self._resumed.wait()
                continue
            try:
                data = bytes(await self.stream.receive_some(_RECEIVE))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            feed(data)
            if not data:
                return

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._resumed.set()

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self.stream)
