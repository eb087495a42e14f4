"""HTTP/1.1 for the hot endpoints: one request after another on a connection, until it is upgraded or closed.

Heads are parsed strictly, every one of them; what is not HTTP enough is answered once and the connection closes.
Timeouts: 10 s for the first request, then 30 s for each next one, as Centrifugo has them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, final

import trio

from broker.http1 import CONTINUE, TEXT_TYPE, Head, HttpError, Request, RequestReader, response
from broker.hub import TimerWheel
from broker.observe import Counters
from broker.protocol import codes
from broker.transports.asgi import serve_app
from broker.transports.connection import Connection
from broker.transports.site import Route, Site

__all__ = ["HttpMachine"]

_FIRST: Final = 10.0
_NEXT: Final = 30.0
_DRAIN: Final = 1.0
"""Seconds to read on after the last response, so that the peer gets it before a reset."""


@final
class HttpMachine:
    """The first machine of every connection. A `Timed` of the hub's wheel as well."""

    __slots__ = (
        "_connection",
        "_counters",
        "_over",
        "_reader",
        "_route",
        "_seen",
        "_served",
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
        self._route: Route | None = None
        self._over = False  # the last answer has been given: what else comes is not read as a request
        self._served = self._seen = 0
        self.slot: int | None = None
        timers.arm(self, trio.current_time() + _FIRST)

    # ---- a Machine ------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        if not self._over:
            self._reader.feed(data)
            self.advance()

    def advance(self) -> None:
        connection, reader = self._connection, self._reader
        try:
            while not connection.busy and not self._over and connection.machine is self:
                if self._route is None:
                    head = reader.next_head()
                    if head is None:
                        return
                    route = self._begin(head)
                    if route is None:
                        return
                    self._route = route
                    reader.want_body(route.body_limit)
                    if head.expects_continue:
                        connection.outbox.offer(CONTINUE)
                request = reader.next_request()
                if request is None:
                    return
                route, self._route = self._route, None
                connection.run_in_order(self._serve(route, request))
        except HttpError as error:
            self._counters.http_refused[error.status] += 1
            self._answer_and_close(response(error.status, error.text.encode(), content_type=TEXT_TYPE, close=True))

    def _begin(self, head: Head) -> Route | None:
        """Find who answers; None if the connection has been given away or ends."""
        site = self._site
        upgrade = site.upgrades.get(head.path)
        if upgrade is not None:
            refusal = upgrade.refusal(head)
            if refusal is not None:
                self._answer_and_close(refusal)
                return None
            if self._reader.take_rest():
                # A client waits for the 101 (RFC 6455 §4.1); these bytes may be another's, put there by a proxy.
                raise HttpError(400, "data before the handshake was answered")
            self._timers.disarm(self)
            upgrade.accept(self._connection, head)
            return None
        route = site.routes.get(head.path)
        if route is not None:
            if head.method not in route.methods:
                raise HttpError(405, "method not allowed")
            if route.refuse is not None and (refusal := route.refuse(head)) is not None:
                self._answer_and_close(refusal)
                return None
            return route
        if site.app is not None:
            self._timers.disarm(self)
            self._connection.run_beside(serve_app(site.app, self._connection, head.raw + self._reader.take_rest()))
            return None
        raise HttpError(404, "not found")

    async def _serve(self, route: Route, request: Request) -> None:
        answer = await route.handle(request)
        if request.head.method == "HEAD":
            answer = answer[: answer.index(b"\r\n\r\n") + 4]
        self._served += 1
        if not request.head.keep_alive or self._site.closing:
            self._answer_and_close(answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            return
        self._connection.outbox.offer(answer)

    def _answer_and_close(self, answer: bytes) -> None:
        self._over = True
        self._connection.outbox.offer(answer)
        self._connection.end()

    def failed(self, why: codes.Disconnect) -> None:
        """There is no code in HTTP: the connection just ends."""

    def ended(self) -> None:
        self._timers.disarm(self)

    def farewell(self) -> bytes:
        return b""

    async def wait_farewell(self, receive: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        self._connection.link.shut_down()
        with trio.move_on_after(_DRAIN):
            while await receive():
                pass

    async def cleanup(self) -> None:
        """Nothing is kept of a request."""

    # ---- a Timed --------------------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """A request must have come since the last time; one that is being answered takes what it takes."""
        if self._served == self._seen and not self._connection.busy:
            self._connection.end()
            return
        self._seen = self._served
        self._timers.arm(self, now + _NEXT)
