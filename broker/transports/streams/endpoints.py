"""The endpoints of HTTP streaming and server-sent events, in both directions and in one; and `/emulation`.

A request of a web page that is not allowed is refused before anything is done for it: its body may hold commands, and
its cookies may count with a backend. (Centrifugo runs it and only keeps the answer from the page.)

Facts: client protocol §5.1 to §5.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, final

import attrs

from broker.http1 import TEXT_TYPE, Head, Request, response, stream_head
from broker.hub import EngineUnavailable
from broker.protocol import (
    JSON,
    ONE_WAY_JSON,
    PROTOBUF,
    Codec,
    ConnectRequest,
    MalformedFrame,
    codes,
    read_connect,
    read_emulation,
)
from broker.protocol.wire import EventWire, LineWire, Wire
from broker.sessions import ConnectFailure, Context, EmulatedSession, OneWaySession
from broker.transports.admission import Admission
from broker.transports.connection import Connection
from broker.transports.options import (
    ConnectCodeToHttpOptions,
    EmulationOptions,
    HttpStreamOptions,
    SseOptions,
    UniHttpStreamOptions,
    UniSseOptions,
)
from broker.transports.origin import Headers, Origins
from broker.transports.query import connect_parameter
from broker.transports.site import Route, Takeover
from broker.transports.streams.machine import StreamMachine

__all__ = ["StreamEndpoints"]

_BODY_LIMIT: Final = 65_536
_BINARY_TYPE: Final = b"application/octet-stream"
_STREAM_HEADERS: Final = (
    ("X-Accel-Buffering", "no"),  # nginx would keep it back
    ("Cache-Control", "private, no-cache, no-store, must-revalidate, max-age=0"),
    ("Pragma", "no-cache"),
    ("Expire", "0"),
)
_PREFLIGHT: Final = (("Access-Control-Max-Age", "300"), ("Access-Control-Allow-Methods", "POST, OPTIONS"))
_GET_OR_POST: Final = frozenset({"GET", "POST"})
_POST: Final = frozenset({"POST", "OPTIONS"})


@final
class _Form:
    """How the response of one transport looks, with the wires of its codecs."""

    def __init__(self, transport: str, codecs: Sequence[Codec], wire: type[EventWire] | type[LineWire]) -> None:
        self.transport = transport
        self._events = wire is EventWire
        self._wires: dict[tuple[bool, bool], Wire] = {
            (codec.binary, chunked): wire(codec, chunked=chunked) for codec in codecs for chunked in (True, False)
        }

    def wire(self, head: Head, *, binary: bool = False) -> Wire:
        return self._wires[binary, _chunked(head)]

    def opening(self, head: Head, cors: Headers, *, binary: bool = False) -> bytes:
        """The head of the response, and what a browser waits for before it calls an event stream open.

        A line feed alone, where Centrifugo sends a carriage return as well: if a proxy joins that with the first event,
        the `eventsource` package for Node takes the event's end for a part of it, and waits.
        """
        chunked = _chunked(head)
        ends = [("Connection", "close")] if chunked else []
        kind = (
            "application/octet-stream" if binary else "text/event-stream; charset=utf-8" if self._events else TEXT_TYPE
        )
        begin = stream_head(200, content_type=kind, headers=[*cors, *ends, *_STREAM_HEADERS], chunked=chunked)
        if not self._events:
            return begin
        return begin + (b"1\r\n\n\r\n" if chunked else b"\n")


def _chunked(head: Head) -> bool:
    return head.http_version != "1.0"


def _is_binary(head: Head) -> bool:
    return head.headers.get(b"content-type") == _BINARY_TYPE


@final
@attrs.frozen
class StreamEndpoints:
    """Makes the endpoints of one server.

    Attributes:
        user_header: a header that names the user, for those who trust it; empty for none.
    """

    context: Context
    origins: Origins
    admission: Admission
    user_header: str

    def sse(self, options: SseOptions) -> Takeover:
        form = _Form("sse", [JSON], EventWire)
        return self._takeover(_GET_OR_POST, partial(self._converse, form), options.max_request_body_size)

    def http_stream(self, options: HttpStreamOptions) -> Takeover:
        form = _Form("http_stream", [JSON, PROTOBUF], LineWire)
        return self._takeover(_POST, partial(self._converse, form), options.max_request_body_size)

    def uni_sse(self, options: UniSseOptions) -> Takeover:
        form = _Form("uni_sse", [ONE_WAY_JSON], EventWire)
        accept = partial(self._tell, form, options.connect_code_to_http_response)
        return self._takeover(_GET_OR_POST, accept, options.max_request_body_size)

    def uni_http_stream(self, options: UniHttpStreamOptions) -> Takeover:
        form = _Form("uni_http_stream", [ONE_WAY_JSON], LineWire)
        accept = partial(self._tell, form, options.connect_code_to_http_response)
        return self._takeover(_POST, accept, options.max_request_body_size)

    def emulation(self, options: EmulationOptions) -> Route:
        limit = options.max_request_body_size or _BODY_LIMIT
        return Route(_POST, self._hear, limit, partial(self._refuse, limit))

    # ---- who may come in ------------------------------------------------------------------------------------------

    def _takeover(
        self, methods: frozenset[str], accept: Callable[[Connection, Request], bytes | None], limit: int
    ) -> Takeover:
        limit = limit if limit > 0 else _BODY_LIMIT
        return Takeover(methods, accept, limit, partial(self._refuse_stream, limit))

    def _refuse(self, limit: int, head: Head) -> bytes | None:
        """What a head alone shows: a page that is not allowed, a body that is too long."""
        if not self.origins.allow(head.headers.get(b"origin")):
            return response(403, b"Forbidden", content_type=TEXT_TYPE, close=True)
        if head.content_length > limit:
            return response(413, content_type="", headers=self.origins.cors(head), close=True)
        return None

    def _refuse_stream(self, limit: int, head: Head) -> bytes | None:
        refusal = self._refuse(limit, head)
        if refusal is None and head.method != "OPTIONS" and not self.admission.admit():
            self.context.node.counters.connection_limit += 1
            return response(503, content_type="", headers=self.origins.cors(head), close=True)
        return refusal

    def _preflight(self, head: Head) -> bytes:
        return response(204, content_type="", headers=[*self.origins.cors(head), *_PREFLIGHT])

    def _user(self, head: Head) -> str | None:
        user = head.headers.get(self.user_header.lower().encode()) if self.user_header else None
        return user.decode("utf-8", "replace") if user else None

    def _bad_request(self, head: Head) -> bytes:
        return response(400, content_type="", headers=self.origins.cors(head))

    # ---- streams --------------------------------------------------------------------------------------------------

    def _converse(self, form: _Form, connection: Connection, request: Request) -> bytes | None:
        """A stream whose client speaks by emulation. Its request holds commands, the first of them a connect."""
        head = request.head
        if head.method == "OPTIONS":
            return self._preflight(head)
        commands = request.body
        if head.method == "GET":
            given = connect_parameter(head.query)
            if not given:
                return self._bad_request(head)
            commands = given
        binary = form.transport == "http_stream" and _is_binary(head)
        machine = StreamMachine(
            connection,
            self.context,
            form.wire(head, binary=binary),
            EmulatedSession,
            transport=form.transport,
            opening=form.opening(head, self.origins.cors(head), binary=binary),
            chunked=_chunked(head),
            header_user=self._user(head),
            headers=self.context.kept_headers(head.headers),
        )
        machine.open()
        machine.take(commands)
        return None

    def _tell(
        self, form: _Form, by_code: ConnectCodeToHttpOptions, connection: Connection, request: Request
    ) -> bytes | None:
        """A stream whose client only listens. Its request holds what a connect command would."""
        head = request.head
        if head.method == "OPTIONS":
            return self._preflight(head)
        connect = connect_parameter(head.query) or b"{}" if head.method == "GET" else request.body
        try:
            wanted = read_connect(connect)
        except MalformedFrame:
            return self._bad_request(head)
        counters = self.context.node.counters
        counters.received_from[form.transport].add(connect)
        cors = self.origins.cors(head)
        machine = StreamMachine(
            connection,
            self.context,
            form.wire(head),
            OneWaySession,
            transport=form.transport,
            opening=form.opening(head, cors),
            chunked=_chunked(head),
            header_user=self._user(head),
            headers=self.context.kept_headers(head.headers),
        )
        if by_code.enabled:
            machine.run_first(_connect_or_answer(machine, wanted, by_code, cors))
        else:
            machine.open()
            machine.run_first(machine.session.begin(wanted))
        return None

    # ---- emulation ------------------------------------------------------------------------------------------------

    async def _hear(self, request: Request) -> bytes:
        """A request by which the client of a stream speaks. That a session is gone is told on no other way than by the
        end of its stream."""
        head = request.head
        if head.method == "OPTIONS":
            return self._preflight(head)
        cors = self.origins.cors(head)
        try:
            sent = read_emulation(request.body, binary=_is_binary(head))
        except MalformedFrame:
            return response(400, content_type="", headers=cors)
        try:
            known = await self.context.node.emulate(sent.node or "", sent.session or "", bytes(sent.data))
        except EngineUnavailable:
            return response(500, content_type="", headers=cors)
        return response(204 if known else 404, content_type="", headers=cors)


async def _connect_or_answer(
    machine: StreamMachine[OneWaySession],
    wanted: ConnectRequest,
    by_code: ConnectCodeToHttpOptions,
    cors: Headers,
) -> None:
    """Let a connect that fails be answered by a status of HTTP."""
    failure = await machine.session.try_connect(wanted)
    if failure is not None:
        machine.refuse(_answer_for(failure, by_code, cors))


def _answer_for(failure: ConnectFailure, by_code: ConnectCodeToHttpOptions, cors: Headers) -> bytes:
    text = failure.reason if isinstance(failure, codes.Disconnect) else failure.message
    for each in by_code.transforms:
        if each.code == failure.code:
            body = each.to.body or text
            return response(each.to.status_code, body.encode(), content_type=TEXT_TYPE, headers=cors, close=True)
    return response(500, b"Internal Server Error", content_type=TEXT_TYPE, headers=cors, close=True)
