"""SockJS, as Centrifugo 5 served it: everything below one path. Facts: client protocol §5.5.

Transports that cannot say which web page they act for (htmlfile, jsonp: frames and scripts send no `Origin`) are not
offered, and sessions are refused to pages that are not allowed.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Final, final

from broker.http1 import TEXT_TYPE, Head, Request, response
from broker.protocol import FrameReader, handshake
from broker.protocol.sockjs import BrokenMessages, read_frame
from broker.sessions import Context
from broker.transports.admission import Admission
from broker.transports.connection import Connection
from broker.transports.endpoint import WebSocketEndpoint
from broker.transports.options import SockJsOptions
from broker.transports.origin import Origins
from broker.transports.site import Answer, Begin, Route, Takeover, Upgrade
from broker.transports.sockjs.pages import NOT_CACHED, Pages
from broker.transports.sockjs.receivers import EVENT_SOURCE, XHR, Framing, Poll, StreamMachine
from broker.transports.sockjs.session import SessionLink, SessionMachine
from broker.transports.sockjs.websocket import SockJsWebSocketMachine

__all__ = ["SockJs"]

_SESSION: Final = re.compile(r"/[^/.]+/([^/.]+)/([a-z_]+)")
_IFRAME: Final = re.compile(r"/iframe[0-9A-Za-z._-]*\.html")
_MOST_WAITING: Final = 10_000
"""Sessions that nobody receives from: each costs memory, but no descriptor that its client would run out of."""
_PLAIN: Final = "text/plain; charset=UTF-8"
_GET: Final = frozenset({"GET", "HEAD"})
_POST: Final = frozenset({"POST"})


@final
class SockJs:
    """A `Folder`, and an `Upgrade`. `sessions` are those over HTTP, by id.

    Args:
        prefix: the path that everything is below, without a slash at the end.
        websocket: takes WebSockets for the message of the protocol itself.
        message_size_limit: bytes of one WebSocket message.
        queue_limit: bytes that may wait for a client.
        user_header: a header that names the user, for those who trust it; empty for none.
    """

    def __init__(
        self,
        prefix: str,
        context: Context,
        options: SockJsOptions,
        origins: Origins,
        admission: Admission,
        websocket: WebSocketEndpoint,
        *,
        message_size_limit: int,
        queue_limit: int,
        user_header: str,
    ) -> None:
        self.begin: Begin
        self.sessions: dict[str, SessionLink] = {}
        self._prefix = prefix
        self._context = context
        self._heartbeat = max(options.heartbeat_delay, 0.0)
        self._origins = origins
        self._admission = admission
        self._message_size_limit = message_size_limit
        self._queue_limit = queue_limit
        self._user_header = user_header.lower().encode()
        self._pages = pages = Pages(options.url, origins, context.random)
        self._websocket = websocket
        receives, body = self._refuse_receiver, options.max_request_body_size
        self._by_page: dict[str, dict[str, Answer | Upgrade]] = {
            "": {"GET": Route(_GET, pages.greeting)},
            "/": {"GET": Route(_GET, pages.greeting)},
            "/info": {"GET": Route(_GET, pages.info), "OPTIONS": self._preflight("GET")},
            "/websocket": {"GET": websocket},
        }
        self._iframe: dict[str, Answer | Upgrade] = {"GET": Route(_GET, pages.iframe)}
        self._by_name: dict[str, dict[str, Answer | Upgrade]] = {
            "xhr": {"POST": Route(_POST, self._poll, body, receives)},
            "xhr_streaming": {"POST": Takeover(_POST, partial(self._stream, XHR), body, receives)},
            "xhr_send": {"POST": Route(_POST, self._send, body, self._refuse_stranger)},
            "eventsource": {"GET": Takeover(_GET - {"HEAD"}, partial(self._stream, EVENT_SOURCE), 0, receives)},
            "websocket": {"GET": self},
        }
        for name in ("xhr", "xhr_streaming", "xhr_send"):
            self._by_name[name]["OPTIONS"] = self._preflight("POST")

    # ---- who answers ----------------------------------------------------------------------------------------------

    def find(self, head: Head) -> Answer | Upgrade | None:
        path = head.path.removeprefix(self._prefix)
        answers = self._by_page.get(path)
        if answers is None:
            session = _SESSION.fullmatch(path)
            if session is not None:
                answers = self._by_name.get(session[2])
            elif _IFRAME.fullmatch(path):
                answers = self._iframe
            if answers is None:
                return None
        found = answers.get("GET" if head.method == "HEAD" else head.method)
        return found or _method_not_allowed(head.method, ", ".join(answers))

    def _preflight(self, method: str) -> Route:
        async def answer(request: Request) -> bytes:
            return self._pages.preflight(method, request.head)

        return Route(frozenset({"OPTIONS"}), answer)

    def _refuse_stranger(self, head: Head) -> bytes | None:
        if self._origins.allow(head.headers.get(b"origin")):
            return None
        return response(403, b"Forbidden", content_type=TEXT_TYPE, close=True)

    def _refuse_receiver(self, head: Head) -> bytes | None:
        refusal = self._refuse_stranger(head)
        if refusal is not None or self._id(head) in self.sessions:
            return refusal
        crowded = (
            len(self.sessions) >= _MOST_WAITING
            and sum([link.waiting for link in self.sessions.values()]) >= _MOST_WAITING
        )
        if crowded or not self._admission.admit():
            self._context.node.counters.connection_limit += 1
            return response(503, b"Service Unavailable", content_type=TEXT_TYPE, close=True)
        return None

    # ---- sessions over HTTP ---------------------------------------------------------------------------------------

    def _id(self, head: Head) -> str:
        return head.path.split("/")[-2]  # as `find` has seen it; the server part is for balancers

    def _session(self, head: Head, address: str) -> SessionLink:
        """The session that a request receives from; a new one if nobody knows its id."""
        id = self._id(head)
        link = self.sessions.get(id)
        if link is None:
            link = self.sessions[id] = SessionLink(
                self._context.node.timers,
                address,
                limit=self._queue_limit,
                heartbeat=self._heartbeat,
                forget=partial(self.sessions.pop, id),
            )
            user, headers = self._user(head), self._context.kept_headers(head.headers)
            self.begin(link, lambda connection: SessionMachine(connection, link, self._context, user, headers))
        return link

    def _user(self, head: Head) -> str | None:
        user = head.headers.get(self._user_header) if self._user_header else None
        return user.decode("utf-8", "replace") if user else None

    async def _poll(self, request: Request) -> bytes:
        head = request.head
        frame = await Poll().frame(self._session(head, request.address))
        headers = [*self._pages.cors(head), *NOT_CACHED]
        return response(200, XHR.wrap(frame), content_type=XHR.content_type, headers=headers)

    def _stream(self, framing: Framing, connection: Connection, request: Request) -> None:
        head = request.head
        StreamMachine(connection, self._session(head, request.address), framing, head, self._pages.cors(head))

    async def _send(self, request: Request) -> bytes:
        headers = [*self._pages.cors(request.head), *NOT_CACHED]
        if not request.body:
            return response(400, b"Payload expected.", content_type=_PLAIN, headers=headers)
        try:
            frame = read_frame(request.body)
        except BrokenMessages:
            return response(400, b"Broken JSON encoding.", content_type=_PLAIN, headers=headers)
        link = self.sessions.get(self._id(request.head))
        if link is None or (frame and not await link.deliver(frame)):
            return response(404, b"session not found", content_type=_PLAIN, headers=headers)
        return response(204, content_type=_PLAIN, headers=headers)

    # ---- an Upgrade -----------------------------------------------------------------------------------------------

    def refusal(self, head: Head) -> bytes | None:
        return self._websocket.refusal(head)

    def accept(self, connection: Connection, head: Head) -> None:
        connection.outbox.offer(handshake(head.method, head.headers).response)
        connection.machine = SockJsWebSocketMachine(
            connection,
            self._context,
            FrameReader(self._message_size_limit, None),
            heartbeat=self._heartbeat,
            header_user=self._user(head),
            headers=self._context.kept_headers(head.headers),
        )


def _method_not_allowed(method: str, allowed: str) -> Route:
    def refuse(head: Head) -> bytes:
        return response(405, content_type="", headers=[("Allow", allowed)], close=True)

    async def never(request: Request) -> bytes:
        raise AssertionError("refused")

    return Route(frozenset({method}), never, 0, refuse)
