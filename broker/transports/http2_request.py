"""A request of HTTP/2 as one of HTTP/1.1, and a response of HTTP/1.1 as the parts of one of HTTP/2.

Both ends of the translation are strict: what could be read in two ways in HTTP/1.1 does not get there.

Facts: RFC 9113 §8.2, §8.3; RFC 9112 §6, §7.1.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import Final, final

__all__ = ["Malformed", "ResponseParts", "as_request"]

Fields = list[tuple[bytes, bytes]]

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE: Final = re.compile(rb"[\t -~\x80-\xff]*")
_METHOD: Final = re.compile(rb"[A-Z]{1,32}")
_PATH: Final = re.compile(rb"[/*][!-~]*")
_OURS: Final = frozenset((b"host", b"connection", b"transfer-encoding", b"te", b"upgrade", b"expect", b"keep-alive"))
"""Fields that say something about a connection of HTTP/1.1: they are made here."""
_PER_CONNECTION: Final = frozenset((b"connection", b"transfer-encoding", b"keep-alive"))


class Malformed(Exception):
    """A request that could not be said in HTTP/1.1 without a second meaning."""


def as_request(headers: Iterable[tuple[bytes, bytes]], *, ended: bool) -> tuple[bytes, bool]:
    """The head of a request, for a connection that ends with it; and whether its body has to be sent in chunks.

    Args:
        headers: with the pseudo-headers; lower-case names.
        ended: there is no body.

    Raises:
        Malformed: it is refused.
    """
    pseudo: dict[bytes, bytes] = {}
    lines: list[bytes] = []
    host = b""
    length = False
    for name, value in headers:
        if not _VALUE.fullmatch(value):
            raise Malformed
        if name.startswith(b":"):
            pseudo[name] = value
        elif not _NAME.fullmatch(name):
            raise Malformed
        elif name == b"host":
            host = value
        elif name not in _OURS:
            length = length or name == b"content-length"
            lines.append(name + b": " + value)
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if not _METHOD.fullmatch(method) or not _PATH.fullmatch(path):
        raise Malformed
    chunked = not ended and not length
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    first = [method + b" " + path + b" HTTP/1.1", b"host: " + pseudo.get(b":authority", host), b"connection: close"]
    return b"\r\n".join([*first, *lines, b"", b""]), chunked


class _State(enum.Enum):
    HEAD = 0
    SIZE = 1  # the line before a chunk
    DATA = 2  # a body, or a chunk of one
    CHUNK_END = 3
    LAST = 4  # the empty line behind the last chunk
    DONE = 5


@final
class ResponseParts:
    """Takes the bytes of one response, as this server writes them, and gives what they mean.

    Push bytes with `take`, which may leave some of them: those have to come again, when there is room for more.

    Args:
        bodiless: the request was HEAD: whatever the head says, nothing follows.
    """

    __slots__ = ("_bodiless", "_chunked", "_left", "_line", "_state")

    def __init__(self, *, bodiless: bool) -> None:
        self._bodiless = bodiless
        self._state = _State.HEAD
        self._line = b""
        self._left = 0
        """Bytes of the body or chunk that have not come; -1 if only the end of the connection ends it."""
        self._chunked = False

    @property
    def done(self) -> bool:
        return self._state is _State.DONE

    @property
    def until_close(self) -> bool:
        """Whether the end of the connection ends the response."""
        return self._state is _State.DATA and self._left < 0

    def next(self, data: memoryview, room: int) -> tuple[int, Fields | memoryview | None]:
        """Read on.

        Args:
            room: how many bytes of a body may be given.

        Returns:
            How many bytes of `data` were read (0: there is no room for more), and what they were: the fields of the
            head with `:status`, a piece of the body, or None for what is only framing.
        """
        if self._state is _State.DATA:
            size = min(len(data), room) if self._left < 0 else min(len(data), room, self._left)
            if self._left > 0:
                self._left -= size
                if not self._left:
                    self._state = _State.CHUNK_END if self._chunked else _State.DONE
            return size, data[:size]
        if self._state is _State.DONE:
            return len(data), None  # nothing may follow
        end = b"\r\n\r\n" if self._state is _State.HEAD else b"\r\n"
        before = len(self._line)
        self._line += bytes(data)
        at = self._line.find(end, max(0, before - len(end) + 1))
        if at < 0:
            return len(data), None
        line, self._line = self._line[:at], b""
        return at + len(end) - before, self._read(line)

    def _read(self, line: bytes) -> Fields | None:
        if self._state is _State.HEAD:
            return self._read_head(line)
        if self._state is _State.SIZE:
            self._left = int(line, 16)
            self._state = _State.DATA if self._left else _State.LAST
        elif self._state is _State.CHUNK_END:
            self._state = _State.SIZE
        else:
            self._state = _State.DONE
        return None

    def _read_head(self, head: bytes) -> Fields | None:
        first, *lines = head.split(b"\r\n")
        status = first.split(b" ", 2)[1]
        if status.startswith(b"1"):
            return None  # the final one is still to come
        fields: Fields = [(b":status", status)]
        self._left = -1
        for line in lines:
            name, _, value = line.partition(b": ")
            name = name.lower()
            if name == b"transfer-encoding":
                self._chunked = True
            elif name == b"content-length":
                self._left = int(value)
            if name not in _PER_CONNECTION:
                fields.append((name, value))
        if self._bodiless or status in (b"204", b"304") or not self._left:
            self._state = _State.DONE
        else:
            self._state = _State.SIZE if self._chunked else _State.DATA
        return fields
