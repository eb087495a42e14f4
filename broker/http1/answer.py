"""An answer of an HTTP/1.1 server, out of bytes. Sans-I/O, bounded by the bytes of its head and of its body."""

from __future__ import annotations

from typing import Final, final

import attrs
import httptools

__all__ = ["AnswerReader", "FetchError", "Response"]

_HEAD_LIMIT: Final = 16_384


class FetchError(Exception):
    """No answer that could be used, and why. The text holds neither the request's headers nor its body."""

    @classmethod
    def of(cls, host: str, error: Exception) -> FetchError:
        """What went wrong with `host`, without the wrapping that says only that something did."""
        return cls(f"{host}: {error.__cause__ or error}" if str(error.__cause__ or error) else f"{host}: {error!r}")


@final
@attrs.frozen
class Response:
    """An answer, whatever its status. Header names are in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@final
class AnswerReader:
    """One answer, as httptools reads it. Interim answers (1xx) are passed over."""

    def __init__(self, limit: int) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._limit = limit
        self._head_bytes = 0
        self._in_head = True
        self._until_end = True  # the body ends with the connection, unless a header tells its length
        self._surplus = self._keep_alive = False
        self.begun = False
        """Whether a byte of it has come."""
        self.complete = False
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = bytearray()

    def feed(self, data: bytes) -> None:
        """Take in what arrived.

        Raises:
            FetchError: it is not an answer, or too large.
        """
        self.begun = True
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise FetchError("another protocol was answered") from None
        except httptools.HttpParserError as error:
            self._surplus = True
            if not self.complete:  # what follows the answer is nobody's business
                raise FetchError(f"not HTTP: {error}") from None
        if self._in_head and self._head_bytes > _HEAD_LIMIT:
            raise FetchError("the head of the answer is too large")
        if len(self.body) > self._limit:
            raise FetchError("the answer is too large")

    def end(self) -> None:
        """The server closed the connection.

        Raises:
            FetchError: in the middle of its answer.
        """
        if self._in_head or not self._until_end:
            raise FetchError("the answer was cut off")
        self.complete = True

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on the connection: the answer is whole, and nothing came behind it."""
        return self.complete and self._keep_alive and not self._until_end and not self._surplus

    def response(self) -> Response:
        """The answer, once it is complete."""
        return Response(self.status, tuple(self.headers), bytes(self.body))

    # ---- called by the parser ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer
        key = name.decode("latin-1").lower()
        self.headers.append((key, value.decode("latin-1")))
        if key in ("content-length", "transfer-encoding"):
            self._until_end = False

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.complete:
            return
        if status < 200:
            self.headers.clear()
            self._until_end = True
            return
        self.status = status
        self._in_head = False

    def on_body(self, data: bytes) -> None:
        if not self.complete and len(self.body) <= self._limit:
            self.body += data

    def on_message_complete(self) -> None:
        if not self._in_head:
            self._keep_alive = self._parser.should_keep_alive()  # it forgets the headers after this
            self.complete = True
