"""Bodies in chunks (RFC 9112 §7.1), decoded strictly: every line ends with CRLF, every size is plain hexadecimal."""

from __future__ import annotations

import re
from typing import Final, final

from broker.http1.request import HttpError, check_octets

__all__ = ["ChunkedBody"]

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t -~\x80-\xff]*)?")
"""A size, and extensions that nobody reads."""
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")
_MAX_LINE: Final = 1024
_MAX_TRAILERS: Final = 4096
"""Bytes of all trailers. They are checked, and ignored."""

_MALFORMED: Final = "malformed chunk"


@final
class ChunkedBody:
    """Takes chunks out of a buffer until `whole`; `data` is the body then, of at most `limit` bytes."""

    __slots__ = ("_at_end", "_in_trailers", "_left", "_limit", "_trailers", "data", "whole")

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.whole = False
        self._limit = limit
        self._left = 0
        """Bytes of the current chunk that have not come."""
        self._at_end = False
        """They all have; the CRLF behind them has not."""
        self._in_trailers = False
        self._trailers = 0

    def take(self, buffer: bytes | bytearray, at: int) -> int:
        """Read from `at` on as far as possible; returns where to go on when there is more, or where the body ends.

        Raises:
            HttpError: 400 malformed, 413 above the limit, 431 too many trailers.
        """
        while not self.whole:
            if self._left:
                part = buffer[at : at + self._left]
                self.data += part
                self._left -= len(part)
                at += len(part)
                if self._left:
                    return at
                self._at_end = True
            if self._at_end:
                end = buffer[at : at + 2]
                if end != b"\r\n":
                    if b"\r\n".startswith(end):
                        return at
                    raise HttpError(400, _MALFORMED)
                self._at_end = False
                at += 2
            stop = buffer.find(b"\r\n", at)
            line = bytes(buffer[at : stop if stop >= 0 else len(buffer)])
            if len(line) > _MAX_LINE:
                raise HttpError(400, _MALFORMED)
            if stop < 0:
                check_octets(line)
                return at
            self._line(line)
            at = stop + 2
        return at

    def _line(self, line: bytes) -> None:
        """A line between the data: the size of a chunk, or a trailer."""
        if self._in_trailers:
            self._trailers += len(line) + 2
            if self._trailers > _MAX_TRAILERS:
                raise HttpError(431, "too many trailers")
            if not line:
                self.whole = True
            elif not _TRAILER.fullmatch(line):
                raise HttpError(400, "malformed trailer")
            return
        size = _SIZE_LINE.fullmatch(line)
        if size is None:
            raise HttpError(400, _MALFORMED)
        self._left = int(size[1], 16)
        self._in_trailers = not self._left
        if len(self.data) + self._left > self._limit:
            raise HttpError(413, "request body is too large")
