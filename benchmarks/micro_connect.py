"""What a connection costs the server, step by step: `python -m benchmarks.micro_connect`.

Server and clients share one process; only the server's steps are timed. Clients act in crowds, the server then works
until the crowd is served, and its CPU time is divided by their number. Run it on a quiet machine; the least of the
rounds is what the code costs.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import trio

from benchmarks.micro_frames import masked
from broker.app import Server, open_server
from broker.auth import make_token
from broker.config import Config, Sources, load

CROWD: Final = 128
ADDRESSES: Final = 250
SECRET: Final = "benchmark"
RESET: Final = b"\1\0\0\0\0\0\0\0"
UPGRADE: Final = (
    b"GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
STEPS: Final = ("accept", "upgrade", "connect + subscribe", "close")


def main() -> None:
    """Print CPU microseconds per connection."""
    parser = argparse.ArgumentParser(description="CPU microseconds per connection, step by step")
    parser.add_argument("--crowds", type=int, default=40, help=f"crowds of {CROWD} connections")
    parser.add_argument("--tokens", action="store_true", help="each connects with a token of its own")
    parser.add_argument("--config", type=json.loads, default={}, help="options over the defaults, as JSON")
    arguments = parser.parse_args()
    config = _config(arguments.config)
    seconds = trio.run(_run, config, arguments.crowds, arguments.tokens)
    total = 0.0
    for number, step in enumerate(STEPS):
        each = sorted(1e6 * crowd[number] / CROWD for crowd in seconds)
        total += each[0]
        print(f"{step:22} {each[0]:7.1f} µs   median {each[len(each) // 2]:7.1f}")
    print(f"{'together':22} {total:7.1f} µs")


def _config(options: dict[str, object]) -> Config:
    base = {
        "client": {"insecure": True, "token": {"hmac_secret_key": SECRET}},
        "http_server": {"address": "127.0.0.1", "port": 0},
        "log": {"level": "error"},
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.json")
        file.write_text(json.dumps({**base, **options}))
        return load(Sources(file=file, environ={}, dotenv=Path(folder, ".env"), flags={})).config


async def _run(config: Config, crowds: int, tokens: bool) -> list[tuple[float, ...]]:
    async with open_server(config) as server:
        port = int(server.urls[0].rpartition(":")[2])
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 50, 50)
        await _crowd(server, port, 0, tokens)
        return [await _crowd(server, port, number, tokens) for number in range(1, crowds + 1)]


async def _crowd(server: Server, port: int, number: int, tokens: bool) -> tuple[float, ...]:
    """CPU seconds of the steps."""
    registry, connections = server.node.registry, server.doors.connections
    frames = [_commands(number * CROWD + index, tokens) for index in range(CROWD)]
    socks: list[socket.socket] = []
    for index in range(CROWD):
        sock = socket.socket()
        sock.bind((f"127.0.1.{1 + index % ADDRESSES}", 0))
        sock.connect(("127.0.0.1", port))
        socks.append(sock)
    accepted = await _serve(lambda: len(connections) == CROWD)
    _send(socks, [UPGRADE] * CROWD)
    upgraded = await _serve(lambda: _answered(socks))
    _send(socks, frames)
    subscribed = await _serve(lambda: _answered(socks) and len(registry.clients) == CROWD)
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.close()
    closed = await _serve(lambda: not connections)
    return accepted, upgraded, subscribed, closed


async def _serve(done: Callable[[], bool]) -> float:
    """Let the server work until `done`; its CPU seconds. What `done` itself costs is one look in ten turns."""
    began = time.process_time()
    while True:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        spent = time.process_time() - began
        if done():
            return spent
        began = time.process_time() - spent


def _send(socks: Sequence[socket.socket], data: Sequence[bytes]) -> None:
    for sock, each in zip(socks, data, strict=True):
        sock.send(each)


def _answered(socks: list[socket.socket]) -> bool:
    """Whether everybody has an answer; then it is read."""
    try:
        for sock in reversed(socks):  # the last one is served last
            sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    for sock in socks:
        sock.recv(65536)
    return True


def _commands(number: int, tokens: bool) -> bytes:
    connect = {"token": make_token({"sub": f"user {number}"}, SECRET)} if tokens else {}
    commands = {"id": 1, "connect": connect}, {"id": 2, "subscribe": {"channel": f"load_{number}"}}
    return masked("\n".join(map(json.dumps, commands)).encode())


if __name__ == "__main__":
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    main()
