"""A server on memory streams, and clients that speak to it frame by frame: conversations read like scripts.

Time is the test's (`autojump_clock`), no socket is involved, and when a block ends, nothing of its clients may be
left in the server (promise P10).
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, final

import attrs
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair

from broker.app import Server, open_server
from broker.auth import make_token
from broker.config import Config, Sources, load
from broker.engines import open_memory_engine
from broker.hooks import Hooks
from tests.support import protobuf
from tests.support.slow_engine import Pace, Wire, slow_engine

WALL = 1_700_000_000.0
"""Unix seconds at the start of every test."""


def configured(options: Mapping[str, Any] | None = None, **flags: str) -> Config:
    """A configuration as a file with `options` would give it; insecure clients unless they say otherwise."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.json")
        file.write_text(json.dumps(dict(options or {})))
        return load(Sources(file=file, environ={}, dotenv=Path(folder, ".env"), flags=flags)).config


@final
class House:
    """A running server and its clients."""

    def __init__(self, server: Server, nursery: trio.Nursery) -> None:
        self.server = server
        self._nursery = nursery
        self.clients: list[RawClient] = []

    @property
    def presence(self) -> dict[str, Any]:
        """What the presence store holds, by channel."""
        presence: Any = self.server.node._presence
        return getattr(presence, "inner", presence)._channels  # type: ignore[no-any-return]

    async def open_stream(self, *, lockstep: bool = False, peer: str = "") -> trio.testing.MemorySendStream:
        """A raw connection: the client's end. With `lockstep` each side waits until the other has read. `peer` is the
        address that it seems to come from."""
        ours, theirs = lockstep_stream_pair() if lockstep else memory_stream_pair()
        self.server.doors.take_in_stream(theirs, self.server.sites[0], peer=peer)
        await trio.testing.wait_all_tasks_blocked()
        return ours  # type: ignore[return-value]

    async def client(
        self, query: str = "", headers: str = "", *, protobuf: bool = False, lockstep: bool = False
    ) -> RawClient:
        """A WebSocket connection that has not sent connect."""
        stream = await self.open_stream(lockstep=lockstep)
        if protobuf:
            headers += "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n"
        await stream.send_all(
            f"GET /connection/websocket{query} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {'A' * 22}==\r\n{headers}\r\n".encode()
        )
        client = RawClient(stream, protobuf=protobuf)
        await client.read_handshake()
        self.clients.append(client)
        return client

    async def connected(
        self, *, via: str = "", with_headers: str = "", protobuf: bool = False, **connect: Any
    ) -> RawClient:
        """A client whose connect was answered; `hello` holds the answer. `via` is the query of its address."""
        client = await self.client(via, with_headers, protobuf=protobuf)
        reply = await client.ask(connect=connect)
        client.hello = reply["connect"]
        return client

    async def http(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, *, peer: str = ""
    ) -> Answer:
        """One request over a connection of its own, which costs no time."""
        stream = await self.open_stream(peer=peer)
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        await stream.send_all(
            f"{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{lines}"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = b""
        while (given := _whole(answer, with_body=method != "HEAD")) is None and (data := await stream.receive_some()):
            answer += data
        await stream.aclose()
        assert given is not None, answer
        return given

    async def api(self, method: str, /, **params: Any) -> dict[str, Any]:
        """Call the HTTP API; whatever it says, it says it with status 200."""
        answer = await self.http("POST", f"/api/{method}", json.dumps(params).encode())
        assert answer.status == 200, answer
        return answer.json()  # type: ignore[no-any-return]


@final
@attrs.frozen
class Answer:
    """An HTTP response; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def _whole(answer: bytes, *, with_body: bool) -> Answer | None:
    """A response, once all of it has come."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return None
    first, *rest = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    status = int(first.split(" ")[1])
    if with_body and status not in (204, 304) and len(body) < int(headers["content-length"]):
        return None
    return Answer(status, headers, body)


@final
class RawClient:
    """One WebSocket peer. `hello` is the connect result.

    A Protobuf client speaks in the same dictionaries as a JSON one, but its payloads are bytes.
    """

    def __init__(self, stream: Any, *, protobuf: bool = False) -> None:
        self.stream = stream
        self.protobuf = protobuf
        self.buffer = b""
        self.units: list[dict[str, Any]] = []
        self.hello: dict[str, Any] = {}
        self.closed: tuple[int, str] | None = None
        self.native_pings = 0
        self._id = 0

    async def read_handshake(self) -> None:
        while b"\r\n\r\n" not in self.buffer:
            data = await self.stream.receive_some()
            assert data, self.buffer
            self.buffer += data
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head

    # ---- out ------------------------------------------------------------------------------------------------------

    async def send_frame(self, payload: bytes, opcode: int = 1) -> None:
        await self.stream.send_all(masked(payload, opcode))

    async def send(self, *commands: dict[str, Any]) -> None:
        """Commands as one frame."""
        if self.protobuf:
            await self.send_frame(protobuf.commands(commands), 2)
        else:
            await self.send_frame("\n".join(json.dumps(command) for command in commands).encode())

    async def command(self, **members: Any) -> int:
        """Send one command under a fresh id."""
        self._id += 1
        await self.send({"id": self._id, **members})
        return self._id

    async def frame(self, *commands: dict[str, Any]) -> list[int]:
        """Send commands under fresh ids in one frame."""
        ids = list(range(self._id + 1, self._id + 1 + len(commands)))
        self._id += len(commands)
        await self.send(*({"id": id, **command} for id, command in zip(ids, commands, strict=True)))
        return ids

    async def pong(self) -> None:
        await self.send({})

    # ---- in -------------------------------------------------------------------------------------------------------

    async def next(self, *, pings: bool = False) -> dict[str, Any]:
        """The next message; answers pings and passes them over unless asked for."""
        while True:
            while not self.units:
                if self.closed is not None:
                    raise EOFError(self.closed)
                await self._read()
            unit = self.units.pop(0)
            if unit or pings:
                return unit
            await self.pong()

    async def ask(self, **members: Any) -> dict[str, Any]:
        """Send a command and wait for its reply; pushes that come before it are kept."""
        id = await self.command(**members)
        before: list[dict[str, Any]] = []
        while True:
            unit = await self.next()
            if unit.get("id") == id:
                self.units[:0] = before
                return unit
            before.append(unit)

    async def push(self) -> dict[str, Any]:
        """The next push."""
        unit = await self.next()
        assert "push" in unit, unit
        return unit["push"]  # type: ignore[no-any-return]

    async def arrived(self) -> None:
        """Read what has come and what is on its way into `units`."""
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.001):
            while self.closed is None:
                await self._read()

    async def nothing(self, seconds: float = 0.001) -> None:
        """Nothing has come, and nothing comes for so long, but for pings, which are answered."""
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(seconds):
            unit = await self.next()
            raise AssertionError(unit)

    async def wait_closed(self) -> tuple[int, str]:
        """Wait for the close frame, answering pings, and answer it."""
        while self.closed is None:
            await self._read()
            for _ in [unit for unit in self.units if not unit]:
                if self.closed is None:
                    await self.pong()
            self.units = [unit for unit in self.units if unit]
        await self.leave()
        return self.closed

    async def leave(self) -> None:
        """Drop the connection."""
        await self.stream.aclose()

    async def _read(self) -> None:
        while True:
            frame = self._frame()
            if frame is not None:
                break
            data = await self.stream.receive_some()
            if not data:
                self.closed = self.closed or (1006, "")
                return
            self.buffer += data
        opcode, payload = frame
        if opcode == 8:
            self.closed = (int.from_bytes(payload[:2], "big"), payload[2:].decode())
        elif opcode == 9:
            self.native_pings += 1
        elif self.protobuf:
            assert opcode == 2
            self.units += protobuf.replies(payload)
        else:
            assert opcode == 1
            self.units += [json.loads(line) for line in payload.split(b"\n")]

    def _frame(self) -> tuple[int, bytes] | None:
        buffer = self.buffer
        if len(buffer) < 2:
            return None
        size, at = buffer[1], 2
        if size == 126:
            size, at = int.from_bytes(buffer[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(buffer[2:10], "big"), 10
        if len(buffer) < at + size:
            return None
        self.buffer = buffer[at + size :]
        return buffer[0] & 15, buffer[at : at + size]


def masked(payload: bytes, opcode: int = 1) -> bytes:
    """One whole client frame."""
    size = len(payload)
    head = bytes((0x80 | opcode,))
    if size < 126:
        head += bytes((0x80 | size,))
    elif size < 65536:
        head += b"\xfe" + size.to_bytes(2, "big")
    else:
        head += b"\xff" + size.to_bytes(8, "big")
    mask = zlib.crc32(payload).to_bytes(4)  # the same in each run: tests are named after what they send
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


@attrs.define
class WallClock:
    """Unix time that goes with Trio's clock."""

    start: float = WALL

    def __call__(self) -> float:
        return self.start + trio.current_time()


@asynccontextmanager
async def open_house(
    options: Mapping[str, Any] | None = None,
    *,
    seed: int = 1,
    pace: Pace | None = None,
    wire: Wire | None = None,
    hooks: Hooks | None = None,
) -> AsyncIterator[House]:
    """A server with `options`; at the end its clients leave, and nothing of them may remain.

    With a `pace` its engine waits, and with a `wire` it delivers late (slow_engine.py).
    """
    engine = open_memory_engine if pace is None else slow_engine(pace, wire)
    async with (
        open_server(
            configured(options),
            wall_clock=WallClock(),
            rng=random.Random(seed),
            engine=engine,
            listen=False,
            hooks=hooks,
        ) as server,
        trio.open_nursery() as nursery,
    ):
        house = House(server, nursery)
        yield house
        for client in house.clients:
            await client.leave()
        await trio.sleep(8)  # virtual: closing handshakes and idle channels have their time
        assert_nothing_left(house)


@asynccontextmanager
async def open_leaving_house(options: Mapping[str, Any], hooks: Hooks) -> AsyncIterator[House]:
    """A server that ends, when the block is left, with whatever clients it still has."""
    async with (
        open_server(
            configured(options),
            wall_clock=WallClock(),
            rng=random.Random(1),
            engine=open_memory_engine,
            listen=False,
            hooks=hooks,
        ) as server,
        trio.open_nursery() as nursery,
    ):
        yield House(server, nursery)


def assert_nothing_left(house: House) -> None:
    """Promise P10: no connection, no hub entry, no presence, no timer of a client that is gone."""
    node = house.server.node
    assert house.server.doors.connections == set()
    assert node.registry.clients == {}
    assert node.registry.users == {}
    assert node.registry.channels == {}
    assert len(node.timers) == 0
    assert house.presence == {}


INSECURE: dict[str, Any] = {"client": {"insecure": True}, "http_api": {"insecure": True}}
NO_PINGS: dict[str, Any] = {"ping_interval": "-1s", "pong_timeout": "-2s"}
"""Options of `client`: for peers that say nothing for a while."""
HISTORY: dict[str, Any] = {"history_size": 10, "history_ttl": "60s", "force_recovery": True}


SECRET = "secret of the tests"


def secured(channel: Mapping[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    """As `options`, but clients need a token made by `token`, and have no permissions but those of the options."""
    token_options = {"hmac_secret_key": SECRET}
    return options(
        channel, **{**sections, "client": {"insecure": False, "token": token_options, **sections.get("client", {})}}
    )


def token(user: str = "", **claims: Any) -> str:
    """A connection token, or with `channel` a subscription token. Times are Unix seconds, see `WALL`."""
    return make_token({"sub": user, **claims}, SECRET)


def options(channel: Mapping[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    """Insecure options with `channel.without_namespace` set, and whole sections over them."""
    base: dict[str, Any] = {**INSECURE, "channel": {"without_namespace": dict(channel or {})}}
    for name, section in sections.items():
        base[name] = {**base.get(name, {}), **section}
    return base
