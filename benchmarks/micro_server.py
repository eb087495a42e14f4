"""`python -m benchmarks.micro_server`: microseconds of whole requests, from the bytes read to the bytes written.

A whole server in this process, whose peers take everything at once: no sockets, no load, so that what is left is the
server's own Python. CPU time, best of several runs. `--profile NAME` prints where the time of one of them goes.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import attrs
import trio

from benchmarks.micro_frames import masked
from broker.app import Server, open_server
from broker.config import Config, Sources, load
from broker.protocol import PROTOBUF
from broker.protocol.schema import client_pb2 as pb
from broker.transports.connection import Connection

DATA = b'{"text":"%b"}' % (b"x" * 117)
UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: localhost:8000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
OPEN: dict[str, Any] = {
    "client": {"insecure": True},
    "http_api": {"insecure": True},
    "rpc": {"ping": {"enabled": True}},
    "log": {"level": "error"},
}
"""Nothing to verify."""
HISTORY = {"history_size": 100, "history_ttl": "60s", "force_positioning": True, "force_recovery": True}
RUNS = 7


@final
class Void:
    """A link to a peer that takes everything at once and sends what it is told to."""

    secure = False
    socket = None
    alpn = None
    peer = ""

    def try_send(self, data: bytes | memoryview) -> int:
        return len(data)

    def start(self, *_: object) -> None: ...

    def receive(self) -> None: ...

    def pending(self) -> bool:
        return False

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def stop(self) -> None: ...

    async def receive_some(self) -> bytes:
        return b""

    async def wait_writable(self) -> None: ...

    async def send_all(self, data: bytes) -> None: ...

    async def shut_down(self) -> None: ...

    async def aclose(self) -> None: ...


@final
@attrs.frozen
class House:
    """A server, and peers that come in."""

    server: Server

    async def peer(self) -> Connection:
        doors = self.server.doors
        before = set(doors.connections)
        doors.take_in(Void(), self.server.sites[0])
        (connection,) = doors.connections - before
        return connection

    async def client(self, *channels: str, protobuf: bool = False) -> Connection:
        connection = await self.peer()
        query = "?cf_protocol=protobuf" if protobuf else ""
        connection.machine.feed(UPGRADE.format(path=f"/connection/websocket{query}").encode())
        commands: list[dict[str, Any]] = [{"id": 1, "connect": {}}]
        commands += [{"id": 2 + at, "subscribe": {"channel": channel}} for at, channel in enumerate(channels)]
        for command in commands:
            connection.machine.feed(binary_frame(command) if protobuf else client_frame(command))
        return connection


def binary_frame(command: dict[str, Any]) -> bytes:
    """A masked frame with one command in Protobuf, the mask being zero."""
    parsed = pb.Command(id=command["id"])
    for name, body in command.items():
        if name != "id":
            member = getattr(parsed, name)
            member.SetInParent()
            for field, value in body.items():
                setattr(member, field, value)
    payload = PROTOBUF.join([parsed.SerializeToString()])
    size = len(payload)
    head = bytes((0x82, 0x80 | size)) if size < 126 else b"\x82\xfe" + size.to_bytes(2, "big")
    return head + bytes(4) + payload


def client_frame(command: dict[str, Any]) -> bytes:
    """A masked frame with one command in JSON."""
    return masked(json.dumps(command, separators=(",", ":")).encode())


def post(path: str, body: bytes) -> bytes:
    """A request on a connection that stays open."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost:8000\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


Case = Callable[[House], Any]


async def api_publish(house: House) -> Callable[[], None]:
    await house.client("bench")
    return feeding(await house.peer(), _publish("bench"))


async def api_publish_history(house: House) -> Callable[[], None]:
    await house.client("kept:bench")
    return feeding(await house.peer(), _publish("kept:bench"))


async def api_batch(house: House) -> Callable[[], None]:
    await house.client("bench")
    body = b'{"commands":[%b]}' % b",".join([b'{"publish":{"channel":"bench","data":%b}}' % DATA] * 100)
    return feeding(await house.peer(), post("/api/batch", body))


async def client_publish(house: House) -> Callable[[], None]:
    return feeding(await house.client(), _command("publish", channel="mine", data=json.loads(DATA)))


async def client_publish_10(house: House) -> Callable[[], None]:
    return feeding(await house.client(*_TEN), _command("publish", channel="channel_3", data=json.loads(DATA)))


async def client_publish_protobuf(house: House) -> Callable[[], None]:
    command = {"id": 9, "publish": {"channel": "mine", "data": DATA}}
    return feeding(await house.client(protobuf=True), binary_frame(command))


async def client_rpc(house: House) -> Callable[[], None]:
    return feeding(await house.client(), _command("rpc", method="ping", data={}))


async def client_rpc_protobuf(house: House) -> Callable[[], None]:
    command = {"id": 9, "rpc": {"method": "ping", "data": b"{}"}}
    return feeding(await house.client(protobuf=True), binary_frame(command))


_TEN = [f"channel_{number}" for number in range(10)]

CASES: dict[str, tuple[Case, int]] = {
    "api_publish": (api_publish, 1),
    "api_publish_history": (api_publish_history, 1),
    "api_batch": (api_batch, 100),
    "client_publish": (client_publish, 1),
    "client_publish_10": (client_publish_10, 1),
    "client_publish_protobuf": (client_publish_protobuf, 1),
    "client_rpc": (client_rpc, 1),
    "client_rpc_protobuf": (client_rpc_protobuf, 1),
}
"""By name: what makes the request, and how many publications or commands are in one."""


def _publish(channel: str) -> bytes:
    return post("/api/publish", b'{"channel":%b,"data":%b}' % (json.dumps(channel).encode(), DATA))


def _command(name: str, **body: Any) -> bytes:
    return client_frame({"id": 9, name: body})


def feeding(connection: Connection, request: bytes) -> Callable[[], None]:
    feed = connection.machine.feed
    return lambda: feed(request)


def best(call: Callable[[], None], seconds: float) -> float:
    """Seconds of CPU that one call takes, in the best of several runs."""
    number, took = 1, 0.0
    while took < seconds:
        number *= 2
        took = _took(call, number)
    return min(took, *(_took(call, number) for _ in range(RUNS - 1))) / number


def _took(call: Callable[[], None], number: int) -> float:
    began = time.process_time()
    for _ in range(number):
        call()
    return time.process_time() - began


def configuration() -> Config:
    tree = OPEN | {"channel": {"namespaces": [{"name": "kept"} | HISTORY]}}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.json")
        file.write_text(json.dumps(tree))
        return load(Sources(file=file, environ={}, dotenv=Path(folder, ".env"))).config


async def measure(names: list[str], seconds: float, profile: bool = False) -> dict[str, float]:
    """Microseconds by name."""
    found: dict[str, float] = {}
    for name in names:
        make, count = CASES[name]
        async with open_server(configuration(), listen=False) as server:
            house = House(server)
            call = await make(house)
            found[name] = best(call, seconds) * 1e6 / count
            print(f"{name:58} {found[name]:9.2f}")
            if profile:
                _profile(call)
            for connection in list(server.doors.connections):
                connection.drop()
    return found


def _profile(call: Callable[[], None]) -> None:
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(10_000):
        call()
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(30)


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("case", nargs="*", choices=[*CASES, []], help="default: all")
    parse.add_argument("--profile", action="store_true")
    parse.add_argument("--seconds", type=float, default=0.2, help="of each of the runs")
    options = parse.parse_args()
    print(f"{'Python ' + sys.version.split()[0]:58} {'us':>9}")
    trio.run(measure, options.case or list(CASES), options.seconds, options.profile)


if __name__ == "__main__":
    main()
