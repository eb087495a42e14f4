"""The doors: listening sockets, and the connections that came in through them.

The door stage nests connections around accepting, so that accepting stops first. Leaving tells every client 3001,
spread over a window where one is set, gives them what there is of time, and cuts off who does not listen.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final, final

import attrs
import structlog
import trio

from broker.hub import Node
from broker.protocol import codes
from broker.reader import HAS_EPOLL, Reader, Stage
from broker.transports.alpn import AlpnMachine
from broker.transports.connection import Connection, Machine
from broker.transports.http import HttpMachine
from broker.transports.links import Link, SocketLink, StreamLink, TlsLink
from broker.transports.proxies import peer_of
from broker.transports.site import Site

__all__ = ["Doors", "Drain", "Listening", "open_doors"]

_log = structlog.get_logger("broker.transports")

_ACCEPTS: Final = 16
"""Connections taken per event."""
_OUT_OF_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RETRY: Final = 0.1


_GOODBYES: Final = 64
"""Clients told to go between two checkpoints."""


@final
@attrs.frozen
class Drain:
    """How connections end when the server does, in seconds: told to go over `window`, cut off after `within`."""

    within: float = 29.0
    window: float = 0.0


@final
@attrs.frozen
class Listening:
    """A bound socket, what answers there, and its TLS."""

    sock: socket.socket
    site: Site
    tls: ssl.SSLContext | None = None
    http2: bool = False
    """Whether `tls`, if there is one, may agree on HTTP/2."""
    lent: bool = False
    """Whether others accept from the same Unix socket: its path is not ours to remove."""

    @property
    def url(self) -> str:
        """Where it answers, for people."""
        if self.sock.family == socket.AF_UNIX:
            return f"unix:{self.sock.getsockname()}"
        host, port = self.sock.getsockname()[:2]
        host = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1", "::1") else host
        return f"{'https' if self.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"

    def remove_path(self) -> None:
        """Take the path of a Unix socket away, before the socket is closed."""
        if self.sock.family == socket.AF_UNIX and not self.lent:
            with suppress(FileNotFoundError):
                os.unlink(self.sock.getsockname())


@final
class Doors:
    """All connections of the process, and their `Home`. `connections` is what the leak tests and the drain look at."""

    def __init__(
        self, node: Node, nursery: trio.Nursery, reader: Reader | None, *, outbox_limit: int, write_timeout: float
    ) -> None:
        self._node = node
        self.counters = node.counters
        self.nursery = nursery
        self._reader = reader
        self._outbox_limit = outbox_limit
        self._write_timeout = write_timeout
        self.connections: set[Connection] = set()
        self._last_gone: trio.Event | None = None

    def take_in(self, link: Link, site: Site, *, http2: bool = False) -> None:
        """Give an accepted peer its connection; with `http2`, it is one with TLS that may have agreed on that."""

        timers, counters = self._node.timers, self.counters

        def http(new: Connection) -> Machine:
            return HttpMachine(new, site, timers, counters)

        if http2:
            self.begin(link, lambda new: AlpnMachine(new, http(new), partial(self._http2, http)))
        else:
            self.begin(link, http)

    def _http2(self, http: Callable[[Connection], Machine], connection: Connection) -> Machine:
        from broker.transports.http2 import Http2Machine  # h2 costs those who use it

        return Http2Machine(connection, self.begin, http, self._node.timers)

    def begin(self, link: Link, machine: Callable[[Connection], Machine]) -> Connection:
        """Begin a connection that speaks by `machine`."""
        connection = Connection(link, self, outbox_limit=self._outbox_limit, write_timeout=self._write_timeout)
        connection.machine = machine(connection)
        self.connections.add(connection)
        connection.start()
        return connection

    def take_in_stream(self, stream: trio.abc.Stream, site: Site, *, peer: str = "", http2: bool = False) -> None:
        """The same for a stream of any kind, read by a task of its own."""
        self.take_in(StreamLink(stream, peer), site, http2=http2)

    def gone(self, connection: Connection) -> None:
        """Nothing of it is left."""
        self.connections.discard(connection)
        if self._last_gone is not None and not self.connections:
            self._last_gone.set()

    def listen(self, listening: Listening) -> _Acceptor | _TaskAcceptor:
        """Begin to accept."""
        if self._reader is None:
            by_task = _TaskAcceptor(listening, self)
            self.nursery.start_soon(by_task.run, name="acceptor")
            return by_task
        acceptor = _Acceptor(listening, self, self._reader, self.nursery)
        acceptor.resume()
        return acceptor

    def cut(self) -> None:
        """End every connection without another word."""
        for connection in list(self.connections):
            connection.cut()

    async def drain(self, how: Drain = Drain()) -> None:
        """Tell everybody that the server ends; returns when the last connection is gone.

        Who has not been told so far is served as ever. A request that is being answered is answered first; its
        connection closes then. Who does not answer a goodbye is cut off in the end.
        """
        self._last_gone = trio.Event()
        with trio.move_on_after(how.within):
            await self._say_goodbye(how.window)
            if self.connections:
                await self._last_gone.wait()
        if self.connections:
            _log.info("cut off who did not go", connections=len(self.connections))
            self.cut()
            await self._last_gone.wait()

    async def _say_goodbye(self, window: float) -> None:
        began = trio.current_time()
        everybody = list(self.connections)
        for number, connection in enumerate(everybody):
            due = began + window * number / len(everybody)
            if due > trio.current_time():
                await trio.sleep_until(due)
            elif number % _GOODBYES == 0:
                await trio.lowlevel.checkpoint()
            if connection in self.connections:
                connection.machine.failed(codes.SHUTDOWN)
                if not connection.busy and not connection.carries:
                    connection.end()


@final
class _Acceptor:
    """A `Readable`: its descriptor is a listening socket."""

    def __init__(self, listening: Listening, doors: Doors, reader: Reader, nursery: trio.Nursery) -> None:
        self._listening = listening
        self._sock = listening.sock
        self._doors = doors
        self._reader = reader
        self._nursery = nursery
        self._complained = -60.0
        self._kind = listening.sock.family, listening.sock.type, listening.sock.proto

    def resume(self) -> None:
        self._reader.add(self._sock.fileno(), self, newcomer=True)

    def stop(self) -> None:
        """Accept nobody any more; the port is free."""
        if self._sock.fileno() >= 0:
            self._reader.drop(self._sock.fileno())
            self._listening.remove_path()
            self._sock.close()

    def readable(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                fd, address = self._sock._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF_DESCRIPTORS:
                    self._wait_for_descriptors(error)
                    return
                continue  # this peer went before it was accepted
            tls = self._listening.tls
            if tls is None:
                # what `accept` makes of it is a class in Python over this one, which costs as much as the system call
                sock = socket.SocketType(*self._kind, fd)
                sock.setblocking(False)
                link: Link = SocketLink(sock, self._reader, peer_of(address))
            else:
                whole = socket.socket(*self._kind, fd)
                whole.setblocking(False)
                try:
                    whole.getpeername()
                except OSError:
                    whole.close()  # it came and went: Python would not wrap this in TLS, or only half
                    continue
                link = TlsLink(whole, tls, self._reader, peer_of(address))
            self._doors.take_in(link, self._listening.site, http2=tls is not None and self._listening.http2)

    def _wait_for_descriptors(self, error: OSError) -> None:
        """Without descriptors the socket stays readable: look away for a moment instead of spinning."""
        now = trio.current_time()
        if now - self._complained >= 1:
            self._complained = now
            _log.error("cannot accept connections", error=os.strerror(error.errno or 0))
        self._reader.drop(self._sock.fileno())
        self._nursery.start_soon(self._retry)

    async def _retry(self) -> None:
        await trio.sleep(_RETRY)
        if self._sock.fileno() >= 0:
            self.resume()

    def hung_up(self) -> None:
        """A listening socket has no peer."""

    def crashed(self) -> None:
        _log.exception("accepting a connection failed")


@final
class _TaskAcceptor:
    """Where there is no epoll: a task that accepts, and for each peer a stream with a reading task of its own."""

    def __init__(self, listening: Listening, doors: Doors) -> None:
        self._listening = listening
        self._sock = trio.socket.from_stdlib_socket(listening.sock)
        self._doors = doors
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        tls = self._listening.tls
        with self._scope:
            while True:
                try:
                    sock, address = await self._sock.accept()
                except OSError as error:
                    if error.errno in _OUT_OF_DESCRIPTORS:
                        await trio.sleep(_RETRY)
                    continue  # or this peer went before it was accepted
                stream: trio.abc.Stream = trio.SocketStream(sock)
                if tls is not None:
                    stream = trio.SSLStream(stream, tls, server_side=True)
                http2 = tls is not None and self._listening.http2
                self._doors.take_in_stream(stream, self._listening.site, peer=peer_of(address), http2=http2)

    def stop(self) -> None:
        """Accept nobody any more; the port is free."""
        self._scope.cancel()
        self._listening.remove_path()
        self._sock.close()


@asynccontextmanager
async def open_doors(
    node: Node,
    stage: Stage,
    listening: Sequence[Listening],
    *,
    outbox_limit: int,
    write_timeout: float,
    drain: Drain,
) -> AsyncIterator[Doors]:
    """The door stage. When the block is left, accepting stops, clients are told, and connections drain."""
    async with trio.open_nursery() as nursery:
        reader = stage.reader if HAS_EPOLL and isinstance(stage.reader, Reader) else None
        if reader is not None:
            reader.turn = node.turn
        doors = Doors(node, nursery, reader, outbox_limit=outbox_limit, write_timeout=write_timeout)
        acceptors = [doors.listen(each) for each in listening]
        try:
            try:
                yield doors
            finally:
                for acceptor in acceptors:
                    acceptor.stop()
            for each in listening:
                each.site.closing = True
            await doors.drain(drain)
        except BaseException:
            doors.cut()  # the time to leave is over, or never was
            raise
        nursery.cancel_scope.cancel()
