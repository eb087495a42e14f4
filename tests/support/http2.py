"""A client of HTTP/2, on h2's client side, over the memory streams of a house."""

from __future__ import annotations

from typing import Any, final

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from hyperframe.frame import GoAwayFrame

from broker.transports.http import HttpMachine
from broker.transports.http2 import Http2Machine
from broker.transports.links import StreamLink
from tests.support.peers import House


@final
class Http2Client:
    """`h2` is there for tests that do what no client does; `flush` sends what it made. What came is read in `status`,
    `headers`, `body`, `ended`, `reset` by stream, and `terminated`."""

    def __init__(self, stream: Any, *, window: int = 65_535) -> None:
        self.stream = stream
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        # h2 would refuse everything that comes after a goodbye, but streams end in their own time
        self.h2._frame_dispatch_table[GoAwayFrame] = self._terminated
        self.h2.initiate_connection()
        if window != 65_535:
            self.h2.update_settings({4: window})
        self.status: dict[int, int] = {}
        self.headers: dict[int, dict[str, str]] = {}
        self.body: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.reset: dict[int, int] = {}
        self.terminated: int | None = None
        self.closed = False
        self.acknowledge = True

    async def flush(self) -> None:
        data = self.h2.data_to_send()
        if data:
            await self.stream.send_all(data)

    async def send(self, method: str, path: str, body: bytes | None = None, *, end: bool = True, **headers: str) -> int:
        """Send a request; returns its stream. Without `end`, more of the body may follow."""
        id = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":path", path), (":scheme", "https"), (":authority", "test")]
        fields += [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.h2.send_headers(id, fields, end_stream=end and body is None)
        self.body[id] = b""
        await self.flush()
        if body is not None:
            while (room := self.h2.local_flow_control_window(id)) < len(body) or len(body) > 16_384:
                part, body = body[: min(room, 16_384)], body[min(room, 16_384) :]
                self.h2.send_data(id, part)
                await self.flush()
                if len(part) == room:
                    await self.read()
            self.h2.send_data(id, body, end_stream=end)
            await self.flush()
        return id

    async def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """Send a request and read its answer."""
        id = await self.send(method, path, body, **headers)
        while id not in self.ended:
            assert id not in self.reset, self.reset[id]
            await self.read()
        return self.status[id], self.body[id]

    async def until(self, id: int, text: bytes) -> bytes:
        """Read until a body has `text`; what came up to its end is taken out."""
        while text not in self.body[id]:
            assert id not in self.ended | set(self.reset), self.body[id]
            await self.read()
        found, _, self.body[id] = self.body[id].partition(text)
        return found + text

    async def read(self) -> None:
        """Read once."""
        data = await self.stream.receive_some()
        if not data:
            self.closed = True
            raise EOFError
        for event in self.h2.receive_data(data):
            self._take(event)
        await self.flush()

    async def read_all(self) -> None:
        """Read to the end of the connection."""
        try:
            while True:
                await self.read()
        except (EOFError, trio.BrokenResourceError):
            pass

    def _take(self, event: Event) -> None:
        if isinstance(event, ResponseReceived):
            headers = {str(name): str(value) for name, value in event.headers}
            self.status[event.stream_id] = int(headers.pop(":status"))
            self.headers[event.stream_id] = headers
        elif isinstance(event, DataReceived):
            self.body[event.stream_id] += event.data
            if self.acknowledge:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.ended.add(event.stream_id)
        elif isinstance(event, StreamReset):
            self.reset[event.stream_id] = int(event.error_code)

    def _terminated(self, frame: GoAwayFrame) -> tuple[list[Any], list[Any]]:
        self.terminated = frame.error_code
        return [], []


async def http2(house: House, *, window: int = 65_535, peer: str = "") -> Http2Client:
    """A client of `house`, as after a handshake that agreed on HTTP/2."""
    ours, theirs = trio.testing.memory_stream_pair()
    doors, node = house.server.doors, house.server.node
    site = house.server.sites[0]
    doors.begin(
        StreamLink(theirs, peer),
        lambda carrier: Http2Machine(
            carrier, doors.begin, lambda new: HttpMachine(new, site, node.timers, node.counters), node.timers
        ),
    )
    client = Http2Client(ours, window=window)
    await client.flush()
    await trio.testing.wait_all_tasks_blocked()
    return client
