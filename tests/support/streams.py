"""Clients of responses without an end, byte by byte: they read the head, take chunks apart, and count units."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, final
from urllib.parse import quote

from tests.support import protobuf
from tests.support.peers import Answer, House

__all__ = ["ON", "STREAMS", "StreamClient", "emulate", "open_stream", "request"]

STREAMS: Final = ("http_stream", "sse", "uni_http_stream", "uni_sse")
ON: Final[Mapping[str, Any]] = {name: {"enabled": True} for name in (*STREAMS, "uni_websocket")}
"""Sections that switch every stream on."""


def request(
    transport: str, body: bytes, *, method: str = "POST", headers: str = "", version: str = "1.1", query: str = ""
) -> bytes:
    return (
        f"{method} /connection/{transport}{query} HTTP/{version}\r\nHost: test\r\n{headers}"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


@final
class StreamClient:
    """The reading end of one response. Units come as dictionaries."""

    def __init__(self, stream: Any, *, events: bool, binary: bool) -> None:
        self.stream = stream
        self.status = 0
        self.headers: dict[str, str] = {}
        self.hello: dict[str, Any] = {}
        self.ended = False
        """The body came to its end, as its framing tells."""
        self._events = events
        self._binary = binary
        self._raw = b""
        self._body = b""
        self._units: list[dict[str, Any]] = []

    async def read_head(self) -> None:
        while b"\r\n\r\n" not in self._raw:
            data = await self.stream.receive_some()
            assert data, self._raw
            self._raw += data
        head, _, self._raw = self._raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self._take()

    async def next(self, *, pings: bool = False) -> dict[str, Any]:
        """The next unit, passing over pings unless asked for."""
        while True:
            while not self._units:
                await self.receive()
            unit = self._units.pop(0)
            if unit or pings:
                return unit

    async def rest(self) -> list[dict[str, Any]]:
        """Everything up to the end of the connection."""
        units = []
        try:
            while True:
                units.append(await self.next())
        except EOFError:
            return units

    async def receive(self) -> None:
        data = await self.stream.receive_some()
        if not data:
            raise EOFError
        self._raw += data
        self._take()

    def _take(self) -> None:
        if self.headers.get("transfer-encoding") != "chunked":
            self._body, self._raw = self._body + self._raw, b""
        else:
            self._take_chunks()
        self._take_units()

    def _take_chunks(self) -> None:
        while b"\r\n" in self._raw:
            size, _, rest = self._raw.partition(b"\r\n")
            length = int(size, 16)
            if len(rest) < length + 2:
                return
            assert rest[length : length + 2] == b"\r\n"
            assert not self.ended
            self.ended = length == 0
            self._body += rest[:length]
            self._raw = rest[length + 2 :]

    def _take_units(self) -> None:
        if self._binary:
            self._units += protobuf.replies(self._body)  # chunks hold whole messages
            self._body = b""
        elif self._events:
            assert b"\r" not in self._body  # the EventSource of Node mistakes what follows it in the same chunk
            self._body = self._body.removeprefix(b"\n")
            *events, self._body = self._body.split(b"\n\n")
            for event in events:
                assert event.startswith(b"data: "), event
                assert b"\n" not in event
                self._units.append(json.loads(event[6:]))
        else:
            *lines, self._body = self._body.split(b"\n")
            self._units += [json.loads(line) for line in lines]

    async def leave(self) -> None:
        await self.stream.aclose()


async def open_stream(
    house: House,
    transport: str,
    *commands: dict[str, Any],
    get: bool = False,
    binary: bool = False,
    headers: str = "",
    version: str = "1.1",
    lockstep: bool = False,
    peer: str = "",
) -> StreamClient:
    """A response that has begun. Without commands, an anonymous connect; one-way, the one thing given is the connect.

    Where the connect succeeded, `hello` is its result.
    """
    one_way = transport.startswith("uni_")
    commands = commands or (({},) if one_way else ({"id": 1, "connect": {}},))
    body = b"\n".join(json.dumps(command).encode() for command in commands)
    if binary:
        body = protobuf.commands(commands)
        headers += "Content-Type: application/octet-stream\r\n"
    sent = (
        request(transport, b"", method="GET", headers=headers, version=version, query="?cf_connect=" + quote(body))
        if get
        else request(transport, body, headers=headers, version=version)
    )
    stream = await house.open_stream(lockstep=lockstep, peer=peer)
    await stream.send_all(sent)
    client = StreamClient(stream, events=transport.endswith("sse"), binary=binary)
    await client.read_head()
    house.clients.append(client)  # type: ignore[arg-type]
    if client.status == 200:
        first = await client.next()
        if "connect" in first:
            client.hello = first["connect"]
        else:
            client._units.insert(0, first)
    return client


async def emulate(
    house: House, client: StreamClient, *commands: dict[str, Any], binary: bool = False, **changed: str
) -> Answer:
    """Have `client` say something by a request of its own, as the JavaScript SDK does."""
    node, session = changed.get("node", client.hello["node"]), changed.get("session", client.hello["session"])
    if binary:
        data = protobuf.commands(commands)
        fields = [(1, node.encode()), (2, session.encode()), (3, data)]
        body = b"".join(bytes((number << 3 | 2,)) + protobuf.length(value) + value for number, value in fields)
        return await house.http("POST", "/emulation", body, {"Content-Type": "application/octet-stream"})
    text = "\n".join(json.dumps(command) for command in commands)
    body = json.dumps({"session": session, "node": node, "data": text}).encode()
    return await house.http("POST", "/emulation", body, {"Content-Type": "application/json"})
