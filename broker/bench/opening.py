"""From a connected socket to a client that is connected and subscribed, over any transport.

WebSocket: an upgrade, then one frame with all commands. HTTP streaming and SSE: one request that carries the commands,
and a response of chunks that does not end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, final
from urllib.parse import quote

from broker.bench.sockets import Sock, read, send
from broker.bench.target import Target
from broker.bench.wire import Command, Wire, split_frames

__all__ = ["Dechunker", "Opening", "Stream", "connect", "subscribe"]

_KEY = "dGhlIHNhbXBsZSBub25jZQ=="

Replies = list[dict[str, Any]]


class Stream(Protocol):
    """What turns the bytes of a transport into those that marks are looked for in."""

    def feed(self, data: bytes) -> bytes: ...


@final
class Dechunker:
    """The body of a chunked response, whose head has been taken off; chunks may be cut anywhere."""

    __slots__ = ("_left", "_rest")

    def __init__(self) -> None:
        self._left = 0
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """
        Raises:
            ConnectionError: the response has ended, or is not chunked.
        """
        out = []
        data = self._rest + data
        at = 0
        while at < len(data):
            if self._left:
                part = data[at : at + self._left]
                out.append(part)
                at += len(part)
                self._left -= len(part)
                continue
            end = data.find(b"\r\n", at + 2 if data.startswith(b"\r\n", at) else at)
            if end < 0:
                break
            try:
                self._left = int(data[at:end], 16)
            except ValueError:
                raise ConnectionError(f"no chunk begins with {data[at:end][:20]!r}") from None
            if not self._left:
                raise ConnectionError("the server ended the stream")
            at = end + 2
        self._rest = data[at:]
        return b"".join(out)


def request(target: Target, wire: Wire, commands: Sequence[Command]) -> bytes:
    """What opens a connection: with `commands` already in it, but over WebSocket."""
    link = target.link
    head = f"Host: {link.authority}\r\n"
    if target.transport == "websocket":
        protocol = "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n" if target.codec == "protobuf" else ""
        return (
            f"GET {link.path} HTTP/1.1\r\n{head}Upgrade: websocket\r\nConnection: Upgrade\r\n{protocol}"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {_KEY}\r\n\r\n"
        ).encode()
    body = wire.payload(commands)
    if target.transport == "sse":
        return f"GET {link.path}?cf_connect={quote(body)} HTTP/1.1\r\n{head}\r\n".encode()
    kind = "application/octet-stream" if target.codec == "protobuf" else "application/json"
    head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"POST {link.path} HTTP/1.1\r\n{head}\r\n".encode() + body


@final
class Opening:
    """A connection from its first request to the last reply to its first commands."""

    def __init__(
        self,
        sock: Sock,
        target: Target,
        wire: Wire,
        commands: Sequence[Command],
        on_open: Callable[[Sock, Stream | None, Replies, bytes], None],
    ) -> None:
        """`on_open` gets the socket, what its bytes go through, the replies, and all bytes that have come so far."""
        self.sock = sock
        self._target, self._wire = target, wire
        self._commands = commands
        self._missing = len(commands)
        self._on_open = on_open
        self._data = b""
        self._raw = b""
        self._upgraded = False
        self._stream = None if target.transport == "websocket" else Dechunker()
        self._replies: Replies = []

    def begin(self) -> None:
        send(self.sock, request(self._target, self._wire, self._commands))

    def readable(self) -> None:
        self._data += read(self.sock)
        if not self._upgraded:
            head, separator, rest = self._data.partition(b"\r\n\r\n")
            if not separator:
                return
            if not head.startswith(b"HTTP/1.1 101" if self._stream is None else b"HTTP/1.1 200"):
                raise ConnectionError(f"the server refused the connection: {self._data.decode(errors='replace')}")
            self._upgraded, self._data = True, rest
            if self._stream is None:
                send(self.sock, self._wire.frame(*self._commands))
        for payload in self._payloads():
            self._raw += payload
            for reply in self._wire.replies(payload):
                if "error" in reply:
                    raise ConnectionError(f"the server answered {reply}")
                if reply.get("id"):
                    self._missing -= 1
                    self._replies.append(reply)
        if not self._missing:
            self._on_open(self.sock, self._stream, self._replies, self._raw + self._data)

    def _payloads(self) -> list[bytes]:
        if self._stream is None:
            payloads, self._data = split_frames(self._data)
            return payloads
        body, self._data = self._stream.feed(self._data), b""
        if self._target.transport == "sse":
            return [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
        return [body]


def connect(token: str = "") -> Command:
    return {"id": 1, "connect": {"token": token} if token else {}}


def subscribe(channel: str, number: int = 2, **more: Any) -> Command:
    return {"id": number, "subscribe": {"channel": channel, **more}}
