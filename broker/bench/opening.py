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

__all__ = ["Opening", "ResponseStream", "Say", "Stream", "connect", "subscribe"]

_KEY = "dGhlIHNhbXBsZSBub25jZQ=="

Replies = list[dict[str, Any]]


Say = Callable[[bytes], None]
"""Sends the body of a request to `/emulation`."""


class Stream(Protocol):
    """What turns the bytes of a transport into those that marks are looked for in."""

    ping: bytes
    """What tells a ping in them."""

    def feed(self, data: bytes) -> bytes: ...

    def pong(self) -> None:
        """Answer a ping."""


@final
class ResponseStream:
    """The body of a chunked response, whose head has been taken off; chunks may be cut anywhere. Its client speaks by
    requests of their own, which `say` sends."""

    __slots__ = ("_left", "_pong", "_rest", "_say", "_wire", "ping")

    def __init__(self, wire: Wire, say: Say) -> None:
        self.ping = wire.stream_ping
        self._wire = wire
        self._say = say
        self._pong = b""
        self._left = 0
        self._rest = b""

    def identify(self, hello: dict[str, Any]) -> None:
        """Remember what a connect reply says about how to speak."""
        self._pong = self._wire.emulated_pong(hello.get("node", ""), hello.get("session", ""))

    def pong(self) -> None:
        self._say(self._pong)

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
    head += f"Content-Type: {target.content_type}\r\nContent-Length: {len(body)}\r\n"
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
        say: Say,
    ) -> None:
        """
        Args:
            on_open: gets the socket, what its bytes go through, the replies, and all bytes that have come so far.
            say: for transports whose clients speak by requests.
        """
        self.sock = sock
        self._target, self._wire = target, wire
        self._commands = commands
        self._missing = len(commands)
        self._on_open = on_open
        self._data = b""
        self._raw = b""
        self._upgraded = False
        self._stream = None if target.transport == "websocket" else ResponseStream(wire, say)
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
                if self._stream is not None and "connect" in reply:
                    self._stream.identify(reply["connect"])
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
