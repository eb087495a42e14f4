"""Connections to one backend, kept alive: for hooks, which ask the same address thousands of times a second.

What holds for `fetch` holds here: nothing an answer says is followed, and everything is bounded. Over that, no more
than a number of connections exist at a time; a question that finds none free waits in line, within its deadline.

A question is a promise: sent at once where a connection is free, answered by the reader, and no task of its own. Tasks
there are for what is rare: to connect, to send what the kernel does not take at once, and to look for questions whose
time is over.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from functools import partial
from typing import Final, final

import structlog
import trio

from broker.eager import Promise
from broker.http1.answer import AnswerReader, FetchError, Response
from broker.http1.target import Headers, Target, system_tls
from broker.reader import Stage
from broker.tls import secure

__all__ = ["Pool"]

_log = structlog.get_logger("broker.http1")

_CHUNK: Final = 65_536
_DIALS: Final = 8
"""Connections that are begun at a time: to begin one is work, and a crowd of them would hold up everybody."""
_LATER: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@final
class Pool:
    """POST requests to one URL.

    A connection that the backend closed while it was idle is noticed when it closes, or just after a request was sent
    on it; then, and only then, the request goes out a second time, on a new connection. A request that is given up
    closes its connection.
    """

    def __init__(
        self,
        url: str,
        *,
        stage: Stage,
        timeout: float,
        newcomers: bool = False,
        headers: Headers = (),
        limit: int,
        connections: int,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
    ) -> None:
        """Nothing is connected before the first request.

        Args:
            url: `http://` or `https://`, ASCII, without user name.
            timeout: seconds in which every question is answered, or fails.
            newcomers: whether answers are read with what newcomers say, after everybody else.
            headers: of every request, beside `Host` and `Content-Length`.
            limit: bytes that an answer's body may have.
            connections: how many there may be at a time.
            tls: for `https`; by default certificates are checked against the system's.
            server_name: what the certificate must name, if that is not the host.

        Raises:
            ValueError: `url` or `headers` are not what a request may hold, `server_name` is no name.
        """
        self._target = Target.of(url)
        self.host = self._target.host
        self.stage = stage
        self._timeout = timeout
        self.newcomers = newcomers
        self._head = self._target.head("POST", headers)
        self.limit = limit
        self._most = connections
        self._tls = tls
        self._server_name = server_name
        if self._target.secure:
            _check_name(server_name or self.host)
        self._links: set[_Link] = set()
        self._idle: list[_Link] = []  # the one used last is taken first, so that those too many grow old
        self._waiting: deque[Question] = deque()  # for any connection
        self._again: deque[Question] = deque()  # for a new one
        self._unanswered: deque[Question] = deque()  # by their deadline, answered ones among them
        self._dialling = 0
        self._watching = False
        self._closed = False

    def post(self, body: bytes, fields: bytes = b"") -> Question:
        """Ask. The whole answer comes to the question, or a `FetchError`: refused, cut off, too large, too late, or not
        HTTP.

        Args:
            body: of the request.
            fields: more headers, as lines that end with CRLF; the caller answers for their form.
        """
        request = b"%b%bContent-Length: %d\r\n\r\n%b" % (self._head, fields, len(body), body)
        question = Question(request, trio.current_time() + self._timeout)
        if self._idle:
            self._idle.pop().ask(question)
        else:
            self._waiting.append(question)
            self._dial_for_those_who_wait()
        self._watch(question)
        return question

    def close(self) -> None:
        """Close what is idle now, and what is in use when its answer has come."""
        self._closed = True
        for link in [*self._idle]:
            link.close()

    # ---- called by its links ----------------------------------------------------------------------------------------

    def freed(self, link: _Link) -> None:
        """Another request may go out on this connection."""
        question = _next(self._waiting)
        if question is not None:
            link.ask(question)
        elif self._closed:
            link.close()
        else:
            self._idle.append(link)

    def gone(self, link: _Link) -> None:
        """A connection is no more."""
        self._links.discard(link)
        if link in self._idle:
            self._idle.remove(link)
        self._dial_for_those_who_wait()

    def ask_again(self, question: Question) -> None:
        """The connection had been closed while it was idle, as it turned out too late."""
        question.asked_again = True
        self._again.append(question)
        self._dial_for_those_who_wait()

    # ---- connecting -------------------------------------------------------------------------------------------------

    def _dial_for_those_who_wait(self) -> None:
        wanted = min(len(self._again) + len(self._waiting), self._most - len(self._links), _DIALS)
        while self._dialling < wanted:
            self._dialling += 1
            self.stage.spawn(self._dial)

    async def _dial(self) -> None:
        """One connection, for the first who waits for one."""
        link: _Link | None = None
        failure: FetchError | None = None
        try:
            with trio.move_on_after(self._timeout):
                link = _Link(await self._connect(), self)
        except (OSError, UnicodeError) as error:
            failure = FetchError.of(self._target.host, error)
        finally:
            self._dialling -= 1
        if link is not None:
            self._links.add(link)
            question = _next(self._again)
            if question is None:
                self.freed(link)
            else:
                link.ask(question)
        elif failure is not None and (question := _next(self._again) or _next(self._waiting)) is not None:
            question.fail(failure)
        self._dial_for_those_who_wait()

    async def _connect(self) -> socket.socket:
        stream = await trio.open_tcp_stream(self._target.host, self._target.port)
        sock = socket.socket(fileno=stream.socket.detach())
        sock.setblocking(False)
        if not self._target.secure:
            return sock
        return await secure(sock, self._tls or system_tls(), self._server_name or self._target.host)

    # ---- deadlines --------------------------------------------------------------------------------------------------

    def _watch(self, question: Question) -> None:
        """All have the same time, so they are late in the order in which they came."""
        unanswered = self._unanswered
        while unanswered and unanswered[0].settled:
            unanswered.popleft()
        unanswered.append(question)
        if not self._watching:
            self._watching = True
            self.stage.spawn(self._end_those_too_late)

    async def _end_those_too_late(self) -> None:
        while self._unanswered:
            oldest = self._unanswered[0]
            if not oldest.settled and oldest.deadline > trio.current_time():
                await trio.sleep_until(oldest.deadline)
                continue
            self._unanswered.popleft()
            if not oldest.settled:
                oldest.drop_link()
                oldest.fail(FetchError(f"no answer within {self._timeout:g} s"))
                await trio.lowlevel.checkpoint()  # who asked goes on in `fail`
        self._watching = False


@final
class Question(Promise[Response]):
    """A request that is under way. `link` carries it, once one does."""

    __slots__ = ("asked_again", "deadline", "link", "request")

    def __init__(self, request: bytes, deadline: float) -> None:
        super().__init__()
        self.request = request
        self.deadline = deadline
        self.asked_again = False
        self.link: _Link | None = None

    def give_up(self) -> None:
        self.settled = True
        self.drop_link()

    def drop_link(self) -> None:
        """What it is answered now, nobody may take for the answer to another."""
        link, self.link = self.link, None
        if link is not None:
            link.close()


def _next(waiting: deque[Question]) -> Question | None:
    while waiting:
        question = waiting.popleft()
        if not question.settled:
            return question
    return None


@final
class _Link:
    """One connection: a `Readable` that carries one question at a time."""

    __slots__ = ("_answer", "_pool", "_question", "_sending", "_sock", "_used")

    def __init__(self, sock: socket.socket, pool: Pool) -> None:
        self._sock = sock
        self._pool = pool
        self._question: Question | None = None
        self._answer: AnswerReader
        self._sending: trio.CancelScope | None = None
        self._used = False
        pool.stage.reader.add(sock.fileno(), self, newcomer=pool.newcomers)

    def ask(self, question: Question) -> None:
        """Send a question. It may turn out that the connection is gone."""
        self._question, question.link = question, self
        self._answer = AnswerReader(self._pool.limit)
        request = question.request
        try:
            sent = self._send(request)
        except OSError as error:
            self._lost(error)
            return
        if sent < len(request):
            self._sending = trio.CancelScope(deadline=question.deadline)
            self._pool.stage.spawn(partial(self._send_rest, self._sending, request, sent))

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data)
        except _LATER:
            return 0

    async def _send_rest(self, sending: trio.CancelScope, request: bytes, sent: int) -> None:
        with sending:
            while sent < len(request):
                await trio.lowlevel.wait_writable(self._sock)
                try:
                    sent += self._send(memoryview(request)[sent:])
                except OSError as error:
                    self._lost(error)
                    return
            self._sending = None

    def readable(self) -> None:
        """A part of the answer, or the end of the connection."""
        while True:
            try:
                data = self._sock.recv(_CHUNK)
            except _LATER:
                return
            except OSError as error:
                self._lost(error)
                return
            if not data or self._question is None:
                self._lost(None)
                return
            answer = self._answer
            try:
                answer.feed(data)
            except FetchError as error:
                self._fail(error)
                return
            if answer.complete:
                self._answered(answer)
                return
            if not self._more():
                return

    def _more(self) -> bool:
        """Whether TLS has bytes that no event will tell of."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def _answered(self, answer: AnswerReader) -> None:
        question, self._question = self._question, None
        assert question is not None
        question.link = None
        if answer.reusable and not self._more() and self._sending is None:
            self._used = True
            self._pool.freed(self)
        else:
            self.close()
        question.settle(answer.response())

    def _lost(self, error: OSError | None) -> None:
        """The backend closed the connection, or it broke."""
        question, host = self._question, self._pool.host
        if question is None:
            self.close()  # while it was idle; or the backend says what nobody asked for
        elif not self._answer.begun:
            if self._used and not question.asked_again:
                question.link = None
                self.close()
                self._pool.ask_again(question)
            else:
                silent = FetchError(f"{host}: the connection was closed without an answer")
                self._fail(silent if error is None else FetchError.of(host, error))
        elif error is not None:
            self._fail(FetchError.of(host, error))
        else:
            try:
                self._answer.end()
            except FetchError as cut_off:
                self._fail(cut_off)
            else:
                self._answered(self._answer)

    def _fail(self, error: FetchError) -> None:
        question = self._question
        self.close()
        if question is not None:
            question.link = None
            question.fail(error)

    def hung_up(self) -> None:
        self._lost(None)

    def crashed(self) -> None:
        _log.exception("reading an answer failed")
        self._fail(FetchError("reading the answer failed"))

    def close(self) -> None:
        """Idempotent. Its question, if it has one, is the caller's business."""
        self._question = None
        if self._sock.fileno() < 0:
            return
        self._pool.stage.reader.drop(self._sock.fileno())
        if self._sending is not None:
            self._sending.cancel()
            trio.lowlevel.notify_closing(self._sock)
        self._sock.close()
        self._pool.gone(self)


def _check_name(name: str) -> None:
    """TLS would refuse it at every connection.

    Raises:
        ValueError: it is none that a certificate could have.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name!r} cannot be the name in a certificate: {error.__cause__ or error}") from None
