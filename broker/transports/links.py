"""How bytes get in and out of one connection: a socket, a socket with TLS, or any Trio stream.

Socket links are read by the shared reader (reader.py), stream links by a task of their own. The connection does
not know which. A link is a `hub.Sink` as well.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, final

import trio

from broker.hub import TrySend
from broker.reader import Readable, Reader

__all__ = ["Link", "SocketLink", "Spawn", "StreamLink", "TlsLink"]

_RECEIVE = 16384

Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


class Link(Protocol):
    """One peer."""

    try_send: TrySend | None
    secure: bool
    peer: str
    """Its IP address; empty where there is none."""

    def start(self, readable: Readable, spawn: Spawn) -> None:
        """Begin to read: `readable` is called whenever something came. `spawn` is for links that need a task."""

    def receive(self) -> bytes | None:
        """What came: bytes, `b""` at the end, None if nothing did."""

    def pending(self) -> bool:
        """Whether there is more to `receive` at once."""

    def admit(self) -> None:
        """The peer is no newcomer any more: it is read with those who are being served."""

    def pause(self) -> None:
        """Read nothing until `resume`; that the peer is gone is still noticed."""

    def resume(self) -> None: ...

    def stop(self) -> None:
        """Read no more on its own; from here on only `receive_some` reads. Idempotent."""

    async def receive_some(self) -> bytes:
        """Wait for bytes; `b""` at the end."""
        ...

    async def wait_writable(self) -> None: ...

    async def send_all(self, data: bytes) -> None: ...

    async def shut_down(self) -> None:
        """Tell the peer that nothing more comes."""

    async def aclose(self) -> None:
        """Close now, forcefully. Idempotent; sockets do it without a checkpoint."""

    @property
    def socket(self) -> socket.SocketType | None:
        """For addresses; None for streams that have none."""
        ...

    @property
    def alpn(self) -> str | None:
        """The protocol that TLS has agreed on, once something has been received; None if on none."""
        ...


@final
class SocketLink:
    """A plain TCP or Unix socket, non-blocking."""

    __slots__ = ("_reader", "fd", "peer", "recv", "socket", "try_send")
    secure = False
    alpn = None

    def __init__(self, sock: socket.SocketType, reader: Reader, peer: str) -> None:
        self.socket: socket.SocketType = sock
        self.peer = peer
        self.fd = sock.fileno()
        self.recv: Callable[[int], bytes] = sock.recv
        self.try_send: TrySend | None = sock.send
        self._reader = reader

    def start(self, readable: Readable, spawn: Spawn) -> None:
        self._reader.add(self.fd, readable, newcomer=True)

    def receive(self) -> bytes | None:
        try:
            return self.recv(_RECEIVE)
        except BlockingIOError:
            return None
        except OSError:  # reset, timed out, unreachable: the peer is gone
            return b""

    def pending(self) -> bool:
        return False

    def admit(self) -> None:
        self._reader.admit(self.fd)

    def pause(self) -> None:
        self._reader.pause(self.fd)

    def resume(self) -> None:
        self._reader.resume(self.fd)

    def stop(self) -> None:
        self._reader.drop(self.fd)

    async def receive_some(self) -> bytes:
        return await _receive_some(self.socket, self.receive)

    async def wait_writable(self) -> None:
        await trio.lowlevel.wait_writable(self.socket)

    async def send_all(self, data: bytes) -> None:
        await _send_all(self.socket, self.socket.send, data)

    async def shut_down(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        self._reader.drop(self.fd)  # before the descriptor can be given to somebody else
        self.socket.close()  # nobody waits for it in Trio: what could has ended with its connection


@final
class TlsLink:
    """TLS over a non-blocking socket: reads and writes are calls, as on the plain one.

    The handshake is the first state, driven by `receive`. A write that OpenSSL wants repeated is repeated with the
    same bytes first, because the outbox keeps them in order. Reads and writes go to the object that `SSLSocket` hands
    them to through two more calls, each of which would cost as much as a subscriber in a plain fan-out.
    """

    __slots__ = ("_handshaken", "_read", "_reader", "_write", "fd", "peer", "socket", "try_send")
    secure = True

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, reader: Reader, peer: str) -> None:
        self.peer = peer
        self.socket: ssl.SSLSocket = context.wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        self.fd = self.socket.fileno()
        tls = getattr(self.socket, "_sslobj", None) or self.socket
        self._read: Callable[[int], bytes] = tls.read
        self._write: TrySend = tls.write
        self.try_send: TrySend | None = self._try_send
        self._reader = reader
        self._handshaken = False

    @property
    def alpn(self) -> str | None:
        return self.socket.selected_alpn_protocol()

    def start(self, readable: Readable, spawn: Spawn) -> None:
        self._reader.add(self.fd, readable, newcomer=True)

    def receive(self) -> bytes | None:
        try:
            if not self._handshaken:
                self.socket.do_handshake()
                self._handshaken = True
            return self._read(_RECEIVE)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            return None
        except OSError:  # a bad handshake, a broken record, a reset: there is nobody to talk to
            return b""

    def pending(self) -> bool:
        return self.socket.pending() > 0

    def _try_send(self, data: bytes | memoryview) -> int:
        try:
            return self._write(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0

    def admit(self) -> None:
        self._reader.admit(self.fd)

    def pause(self) -> None:
        self._reader.pause(self.fd)

    def resume(self) -> None:
        self._reader.resume(self.fd)

    def stop(self) -> None:
        self._reader.drop(self.fd)

    async def receive_some(self) -> bytes:
        return await _receive_some(self.socket, self.receive)

    async def wait_writable(self) -> None:
        await trio.lowlevel.wait_writable(self.socket)

    async def send_all(self, data: bytes) -> None:
        await _send_all(self.socket, self._try_send, data)

    async def shut_down(self) -> None:
        self._handshaken = True  # or never will be: what else comes is not read as TLS
        with suppress(OSError, ValueError):  # a handshake that never was; told already
            self.socket.unwrap()  # the peer's TLS is told as well; its answer is not waited for
        self._read, self._write = self.socket.recv, self.socket.send  # which read on without TLS
        self.socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        self._reader.drop(self.fd)
        self.socket.close()  # nobody waits for it in Trio: what could has ended with its connection


async def _receive_some(sock: socket.SocketType, receive: Callable[[], bytes | None]) -> bytes:
    while True:
        data = receive()
        if data is not None:
            return data
        await trio.lowlevel.wait_readable(sock)


async def _send_all(sock: socket.SocketType, try_send: TrySend, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            sent = try_send(rest)
        except BlockingIOError:
            sent = 0
        if not sent:
            await trio.lowlevel.wait_writable(sock)
        rest = rest[sent:]


@final
class StreamLink:
    """Any Trio stream: memory streams in tests, and systems without epoll."""

    __slots__ = ("_came", "_paused", "_resumed", "_stop", "peer", "stream", "try_send")
    secure = False

    def __init__(self, stream: trio.abc.Stream, peer: str = "") -> None:
        self.stream = stream
        self.peer = peer
        self.try_send: TrySend | None = None
        self._came: bytes | None = None
        self._paused = False
        self._resumed: trio.Event | None = None
        self._stop: trio.CancelScope | None = None

    @property
    def socket(self) -> socket.socket | None:
        sock = getattr(self.stream, "socket", None)
        return sock if isinstance(sock, socket.socket) else None

    @property
    def alpn(self) -> str | None:
        return self.stream.selected_alpn_protocol() if isinstance(self.stream, trio.SSLStream) else None

    def start(self, readable: Readable, spawn: Spawn) -> None:
        spawn(partial(self._read, readable))

    async def _read(self, readable: Readable) -> None:
        with trio.CancelScope() as self._stop:
            try:
                while True:
                    came = await self.receive_some()  # while paused one time more, to notice that the peer is gone
                    while self._paused:
                        if not came:
                            readable.hung_up()
                            return
                        self._resumed = trio.Event()
                        await self._resumed.wait()
                    self._came = came
                    readable.readable()
                    if not came:
                        return
            except Exception:  # the wall of a connection, as in the shared reader
                readable.crashed()

    def receive(self) -> bytes | None:
        came, self._came = self._came, None
        return came

    def pending(self) -> bool:
        return False

    def admit(self) -> None:
        """Each has a task of its own here."""

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._resumed is not None:
            self._resumed.set()

    def stop(self) -> None:
        if self._stop is not None:
            self._stop.cancel()

    async def receive_some(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(_RECEIVE))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def wait_writable(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def send_all(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def shut_down(self) -> None:
        if isinstance(self.stream, trio.abc.HalfCloseableStream):
            await self.stream.send_eof()
        elif isinstance(self.stream, trio.SSLStream):
            await self.stream.aclose()  # tells the peer's TLS, and does not wait for its answer

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self.stream)
