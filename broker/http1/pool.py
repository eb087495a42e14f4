"""Connections to one backend, kept alive: for hooks, which ask the same address thousands of times a second.

What holds for `fetch` holds here: nothing an answer says is followed, and everything is bounded. Over that, no more
than a number of connections exist at a time; who finds none free waits, and first come is first served.
"""

from __future__ import annotations

import socket
import ssl
from typing import Final, Protocol, final

import trio

from broker.http1.answer import AnswerReader, FetchError, Response
from broker.http1.target import Headers, Target

__all__ = ["Pool"]

_CHUNK: Final = 65_536
_FRESH: Final = 0.5
"""Seconds for which a connection is used again without a look at it first."""


@final
class Pool:
    """POST requests to one URL.

    A connection that the backend closed while it was idle is noticed before or just after the request was sent on it;
    then, and only then, the request goes out a second time, on a new connection. `in_use` counts the connections that
    are busy. Cancelling a request closes its connection.
    """

    __slots__ = (
        "_closed",
        "_head",
        "_idle",
        "_limit",
        "_most",
        "_server_name",
        "_target",
        "_tls",
        "_turns",
        "in_use",
    )

    def __init__(
        self,
        url: str,
        *,
        headers: Headers = (),
        limit: int,
        connections: int,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
    ) -> None:
        """Nothing is connected before the first request.

        Args:
            url: `http://` or `https://`, ASCII, without user name.
            headers: of every request, beside `Host` and `Content-Length`.
            limit: bytes that an answer's body may have.
            connections: how many there may be at a time.
            tls: for `https`; by default certificates are checked against the system's.
            server_name: what the certificate must name, if that is not the host.

        Raises:
            ValueError: `url` or `headers` are not what a request may hold.
        """
        self._target = Target.of(url)
        self._head = self._target.head("POST", headers)
        self._limit = limit
        self._most = connections
        self._tls = tls
        self._server_name = server_name
        self._idle: list[
            tuple[_Link, float]
        ] = []  # with the time of their last use; the one used last is taken first, so that those too many grow old
        self._turns = trio.lowlevel.ParkingLot()
        self._closed = False
        self.in_use = 0

    async def post(self, body: bytes, fields: bytes = b"") -> Response:
        """Ask, and read the whole answer. The caller sets the deadline.

        Args:
            body: of the request.
            fields: more headers, as lines that end with CRLF; the caller answers for their form.

        Raises:
            FetchError: refused, cut off, too large, or not HTTP.
        """
        request = b"%b%bContent-Length: %d\r\n\r\n%b" % (self._head, fields, len(body), body)
        if self.in_use < self._most:
            self.in_use += 1
        else:
            await self._turns.park()  # whoever ends hands over
        try:
            return await self._exchange(request)
        finally:
            if self._turns:
                self._turns.unpark()
            else:
                self.in_use -= 1

    def close(self) -> None:
        """Close what is idle now, and what is in use when its answer has come."""
        self._closed = True
        while self._idle:
            self._idle.pop()[0].close()

    async def _exchange(self, request: bytes) -> Response:
        idle = self._take_idle()
        try:
            if idle is not None:
                try:
                    return await self._ask(idle, request)
                except _Stale:
                    pass
            return await self._ask(await self._connect(), request)
        except (OSError, UnicodeError, trio.BrokenResourceError) as error:
            raise FetchError.of(self._target.host, error) from error
        except _Stale as error:
            raise FetchError(f"{self._target.host}: the connection was closed without an answer") from error

    def _take_idle(self) -> _Link | None:
        while self._idle:
            link, used_at = self._idle.pop()
            if trio.current_time() - used_at < _FRESH or not link.stale():
                return link
            link.close()
        return None

    async def _connect(self) -> _Link:
        stream = await self._target.open(self._tls, self._server_name)
        return _PlainLink(stream) if isinstance(stream, trio.SocketStream) else _StreamLink(stream)

    async def _ask(self, link: _Link, request: bytes) -> Response:
        reader = AnswerReader(self._limit)
        reusable = False
        try:
            try:
                await link.send(request)
            except (OSError, trio.BrokenResourceError) as error:
                raise _Stale from error
            while not reader.complete:
                try:
                    data = await link.receive()
                except (OSError, trio.BrokenResourceError) as error:
                    if reader.begun:
                        raise
                    raise _Stale from error
                if data:
                    reader.feed(data)
                elif reader.begun:
                    reader.end()
                else:
                    raise _Stale
            reusable = reader.reusable and not self._closed
            return reader.response()
        finally:
            if reusable:
                self._idle.append((link, trio.current_time()))
            else:
                link.close()


class _Stale(Exception):
    """The backend closed a connection before it sent a byte of the answer."""


class _Link(Protocol):
    """One connection."""

    def stale(self) -> bool:
        """Whether the other side has closed, or said something that nobody asked for."""
        ...

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes: ...

    def close(self) -> None: ...


@final
class _PlainLink:
    """TCP without Trio's stream around it, which tries to read before it waits; an answer is never there so soon."""

    __slots__ = ("_sock",)

    def __init__(self, stream: trio.SocketStream) -> None:
        self._sock = socket.socket(fileno=stream.socket.detach())
        self._sock.setblocking(False)

    def stale(self) -> bool:
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    async def send(self, data: bytes) -> None:
        sent = self._sent(data)
        while sent < len(data):
            await trio.lowlevel.wait_writable(self._sock)
            sent += self._sent(memoryview(data)[sent:])

    def _sent(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0

    async def receive(self) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                return self._sock.recv(_CHUNK)
            except BlockingIOError:
                continue

    def close(self) -> None:
        self._sock.close()


@final
class _StreamLink:
    """TLS."""

    __slots__ = ("_stream",)

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    def stale(self) -> bool:
        return False  # only reading would tell

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        return bytes(await self._stream.receive_some(_CHUNK))

    def close(self) -> None:
        assert isinstance(self._stream, trio.SSLStream)
        transport = self._stream.transport_stream
        assert isinstance(transport, trio.SocketStream)
        transport.socket.close()
