"""HTTP/1.1 for the hot endpoints: one request after another on a connection, until it is upgraded or closed.

Heads are parsed strictly, every one of them; what is not HTTP enough is answered once and the connection closes.
Timeouts, as Centrifugo has them: a head within 10 s (the first one from the start of the connection on), a body within
30 s of its head, the next request within 30 s of the last.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, final

import structlog
import trio

from broker.http1 import CONTINUE, TEXT_TYPE, Head, HttpError, Request, RequestReader, response
from broker.hub import TimerWheel
from broker.observe import Counters
from broker.protocol import codes
from broker.transports.connection import Connection
from broker.transports.site import Answer, Route, Site, Takeover

__all__ = ["HttpMachine"]

_log = structlog.get_logger("broker.transports")
_debugging: Final = logging.getLogger("broker.transports").isEnabledFor

_HEAD: Final = 10.0
_BODY: Final = 30.0
_IDLE: Final = 30.0
_AT_ONCE: Final = 65_536
"""Bytes of an answer that may wait for the peer while the next request is read."""
_APP_BODY: Final = 1 << 20
"""Bytes of a body for the site's application."""


async def _nothing(request: Request) -> bytes:
    raise AssertionError("answered by an application")


_APP: Final = Route(frozenset(), _nothing, _APP_BODY)
"""Stands for the site's application while its request is read."""


@final
class HttpMachine:
    """The first machine of every connection. A `Timed` of the hub's wheel as well."""

    __slots__ = (
        "_answering",
        "_connection",
        "_counters",
        "_deadline",
        "_head_began",
        "_leaving",
        "_over",
        "_reader",
        "_route",
        "_site",
        "_timers",
        "slot",
    )

    def __init__(self, connection: Connection, site: Site, timers: TimerWheel, counters: Counters) -> None:
        self._connection = connection
        self._site = site
        self._timers = timers
        self._counters = counters
        self._reader = RequestReader()
        self._route: Answer | None = None
        self._over = False  # the last answer is given, or somebody else gives it: nothing more is read as a request
        self._answering = False
        self._leaving = False  # the server ends: the answer that is being made is the last
        self._head_began = True
        self._deadline = trio.current_time() + _HEAD
        self.slot: int | None = None
        timers.arm(self, self._deadline)

    # ---- a Machine ------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        if not self._over:
            self._reader.feed(data)
            self.advance()

    def advance(self) -> None:
        connection, reader = self._connection, self._reader
        waits_for_body = False
        try:
            while not connection.busy and not self._over and connection.machine is self:
                if self._route is None:
                    head = reader.next_head()
                    if head is None:
                        if reader.begun and not self._head_began:
                            self._head_began = True
                            self._wait_until(trio.current_time() + _HEAD)
                        return
                    if self._site.proxies is not None:
                        head, connection.address = self._site.proxies.see(connection.link.peer, head)
                        reader.head = head
                    route = self._begin(head)
                    if route is None:
                        return
                    self._route = route
                    reader.want_body(route.body_limit)
                    if head.expects_continue:
                        connection.outbox.offer(CONTINUE)
                    self._head_began = False
                    waits_for_body = True
                request = reader.next_request(connection.address)
                if request is None:
                    if waits_for_body:
                        self._wait_until(trio.current_time() + _BODY)
                    return
                route, self._route = self._route, None
                if route is _APP:
                    self._give_to_app(request)
                elif isinstance(route, Takeover):
                    answer = route.accept(connection, request)
                    if answer is None:
                        self._note(request.head, b"200")
                        self._over = True
                        self._timers.disarm(self)
                    else:
                        self._give(self._sealed(request.head, answer))
                else:
                    self._serve(route, request)
        except HttpError as error:
            self._counters.http_refused[error.status] += 1
            self._answer_and_close(response(error.status, error.text.encode(), content_type=TEXT_TYPE, close=True))

    def _begin(self, head: Head) -> Answer | None:
        """Find who answers; None if the connection has been given away or ends."""
        found = self._site.find(head)
        if found is None:
            if self._site.app is None:
                raise HttpError(404, "not found")
            return _APP
        if isinstance(found, (Route, Takeover)):
            if head.method not in found.methods:
                raise HttpError(405, "method not allowed")
            refusal = found.refuse(head) if found.refuse is not None else None
        else:
            refusal = found.refusal(head)
        if refusal is not None:
            self._answer_and_close(refusal)
            return None
        if isinstance(found, (Route, Takeover)):
            return found
        if self._reader.take_rest():
            # A client waits for the 101 (RFC 6455 §4.1); these bytes may be another's, put there by a proxy.
            raise HttpError(400, "data before the handshake was answered")
        self._timers.disarm(self)
        self._note(head, b"101")
        found.accept(self._connection, head)
        return None

    def _give_to_app(self, request: Request) -> None:
        assert self._site.app is not None
        self._over = True
        self._timers.disarm(self)
        self._connection.link.pause()  # from here on only the peer's end is noticed
        self._connection.run_beside(self._site.app(self._connection, request))

    def _serve(self, route: Route, request: Request) -> None:
        self._answering = True
        answer = route.handle(request)
        if not isinstance(answer, bytes) or len(answer) > _AT_ONCE:
            self._connection.run_in_order(self._serve_later(request.head, answer))
            return
        self._answering = False
        self._give(self._sealed(request.head, answer))

    async def _serve_later(self, head: Head, answer: bytes | Awaitable[bytes]) -> None:
        if not isinstance(answer, bytes):
            answer = await answer
        self._answering = False
        answer = self._sealed(head, answer)
        if len(answer) <= _AT_ONCE:
            self._give(answer)
        else:
            await self._connection.outbox.send_whole(answer)
            self._given()

    def _sealed(self, head: Head, answer: bytes) -> bytes:
        """The answer as it leaves: without a body for HEAD, and with what becomes of the connection."""
        self._note(head, answer[9:12])
        if head.method == "HEAD":
            answer = answer[: answer.index(b"\r\n\r\n") + 4]
        if not head.keep_alive or self._leaving:
            self._over = True
            return answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        if head.http_version == "1.0":
            return answer.replace(b"\r\n", b"\r\nConnection: keep-alive\r\n", 1)
        return answer

    def _give(self, answer: bytes) -> None:
        self._connection.outbox.offer(answer)
        self._given()

    def _given(self) -> None:
        if self._over:
            self._connection.end()
        else:
            self._connection.admit()
        self._deadline = trio.current_time() + _IDLE

    def _note(self, head: Head, status: bytes) -> None:
        """Log a request, as Centrifugo does, where the log wants it: the path as it was sent, without the query, which
        may hold a token."""
        if _debugging(logging.DEBUG):
            path = head.target.partition("?")[0]
            address = self._connection.address
            _log.debug("http request", method=head.method, path=path, status=int(status), addr=address)

    def _answer_and_close(self, answer: bytes) -> None:
        if self._reader.head is not None:
            self._note(self._reader.head, answer[9:12])
        self._over = True
        self._connection.outbox.offer(answer)
        self._connection.end()

    def failed(self, why: codes.Disconnect) -> None:
        """There is no code in HTTP: the connection just ends, after an answer to the request that failed, or to the
        one that is being answered."""
        self._leaving = True
        if self._answering and why is codes.SERVER_ERROR:
            self._over, self._answering = True, False
            answer = response(500, b"Internal Server Error", content_type=TEXT_TYPE, close=True)
            self._connection.outbox.offer(answer)

    def ended(self) -> None:
        self._timers.disarm(self)

    def farewell(self) -> bytes:
        return b""

    async def wait_farewell(self, receive: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        await self._connection.drain()

    async def cleanup(self) -> None:
        """Nothing is kept of a request."""

    # ---- a Timed --------------------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """Late, or woken for a time that has moved since; a request that is being answered takes what it takes."""
        if self._connection.busy:
            self._timers.arm(self, now + _IDLE)
        elif now < self._deadline:
            self._timers.arm(self, self._deadline)
        else:
            self._connection.end()

    def crashed(self) -> None:
        self._connection.crashed()

    def _wait_until(self, deadline: float) -> None:
        """What is waited for must have come by then."""
        self._deadline = deadline
        self._timers.arm(self, deadline)
