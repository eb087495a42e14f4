"""Requests of one connection, one after another, out of bytes."""

from __future__ import annotations

from typing import final

from broker.http1.chunked import ChunkedBody
from broker.http1.request import MAX_HEAD, Head, HttpError, Request, check_octets, parse_head

__all__ = ["RequestReader"]


@final
class RequestReader:
    """Push bytes with `feed`; pull `next_head`, say how long its body may be with `want_body`, pull `next_request`.

    Each pull gives None until enough has come. After an `HttpError` the connection has to end: nobody knows where the
    next request would begin. While nothing waits it keeps no buffer.
    """

    __slots__ = ("_at", "_buffer", "_chunks", "_clean", "_head")

    def __init__(self) -> None:
        # From _at on, what has not been read: the bytes that were fed, or a bytearray as soon as they have to grow.
        self._buffer: bytes | bytearray = b""
        self._at = 0
        self._clean = 0
        """Up to here an unfinished head was looked through; to do so at each feed would be quadratic."""
        self._head: Head | None = None
        self._chunks: ChunkedBody | None = None

    def feed(self, data: bytes) -> None:
        """Bytes came."""
        if not self._buffer:
            self._buffer = data
            return
        if self._at or isinstance(self._buffer, bytes):
            self._buffer = bytearray(memoryview(self._buffer)[self._at :])
            self._clean = max(0, self._clean - self._at)
            self._at = 0
        self._buffer += data

    @property
    def begun(self) -> bool:
        """Whether a part of the next head or body has come."""
        return bool(self._buffer)

    def next_head(self) -> Head | None:
        """The head of the next request.

        Raises:
            HttpError: 431 for a head above `MAX_HEAD`, and what `parse_head` raises; as soon as it is certain.
        """
        buffer, at = self._buffer, self._at
        if not buffer:
            return None
        while buffer.startswith(b"\r\n", at):  # RFC 9112 §2.2: old clients send one behind a body
            at = self._at = at + 2
        end = buffer.find(b"\r\n\r\n", max(at, self._clean - 2))
        if end < 0 or end + 4 - at > MAX_HEAD:
            self._check_unfinished()
            return None
        raw = bytes(buffer[at : end + 4])
        try:
            self._head = head = parse_head(raw)
        except HttpError:
            check_octets(raw)  # worse than anything else, and found first when a head comes in pieces
            raise
        self._move(end + 4)
        return head

    def _check_unfinished(self) -> None:
        buffer, most = self._buffer, self._at + MAX_HEAD
        check_octets(buffer[max(self._at, self._clean) : most])
        if len(buffer) > most:
            raise HttpError(431, "request head is too large")
        self._clean = len(buffer) - buffer.endswith(b"\r")

    def want_body(self, limit: int) -> None:
        """The request that has begun may have a body of at most `limit` bytes.

        Raises:
            HttpError: 413, if its head says that there are more.
        """
        assert self._head is not None
        if self._head.content_length > limit:
            raise HttpError(413, "request body is too large")
        if self._head.chunked:
            self._chunks = ChunkedBody(limit)

    @property
    def head(self) -> Head | None:
        """The head of the request that has begun; to put another in its place changes what `next_request` gives."""
        return self._head

    @head.setter
    def head(self, head: Head) -> None:
        self._head = head

    def next_request(self, address: str = "") -> Request | None:
        """The request that has begun, when it is whole; `address` becomes a part of it.

        Raises:
            HttpError: 400 for a malformed body, 413 for chunks above the limit.
        """
        head = self._head
        assert head is not None
        chunks = self._chunks
        if chunks is not None:
            self._move(chunks.take(self._buffer, self._at))
            if not chunks.whole:
                return None
            body = bytes(chunks.data)
            self._chunks = None
        elif head.content_length:
            end = self._at + head.content_length
            if len(self._buffer) < end:
                return None
            body = bytes(self._buffer[self._at : end])
            self._move(end)
        else:
            body = b""
        self._head = None
        return Request(head, body, address)

    def take_rest(self) -> bytes:
        """What came behind the head, for another protocol. Nothing is left."""
        if not self._buffer:
            return b""
        rest = bytes(memoryview(self._buffer)[self._at :])
        self._move(len(self._buffer))
        return rest

    def _move(self, at: int) -> None:
        """Everything before `at` has been read."""
        self._clean = 0
        if at == len(self._buffer):
            self._buffer = b""
            self._at = 0
        else:
            self._at = at
