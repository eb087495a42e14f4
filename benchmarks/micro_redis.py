"""`python -m benchmarks.micro_redis`: what a message of Redis costs before its fan-out, and how long subscriptions take
to come back. It starts a `redis-server` of its own, on the last core; itself it stays on the first."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from typing import final

import trio

from broker.bench.local import free_port
from broker.bench.redis import running_redis
from broker.config import configure
from broker.eager import in_order
from broker.engines import open_engine
from broker.hub import Broker
from broker.protocol import ClientInfo, Publication
from broker.reader import open_stage

_FLOOD = """
import socket, sys
port, channel, count, size = int(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3]), int(sys.argv[4])
data = b"\\x22" + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + b"x" * size
command = b"*3\\r\\n$7\\r\\nPUBLISH\\r\\n$%d\\r\\n%b\\r\\n$%d\\r\\n%b\\r\\n" % (len(channel), channel, len(data), data)
sock = socket.create_connection(("127.0.0.1", port))
for _ in range(count // 100):
    sock.sendall(command * 100)
    left = 100
    while left:
        left -= sock.recv(65536).count(b":")
"""
"""Publishes over a connection of its own, as another node would."""


@final
class _Counted:
    """A `Deliver` that only counts."""

    def __init__(self) -> None:
        self.count = 0
        self.all = trio.Event()
        self.most = 0
        self.back = trio.Event()

    def publication(self, channel: str, pub: Publication, epoch: str, base: Publication | None) -> None:
        self.count += 1
        if self.count == self.most:
            self.all.set()

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def join(self, channel: str, info: ClientInfo) -> None:
        """Nobody joins."""

    def leave(self, channel: str, info: ClientInfo) -> None:
        """Nobody leaves."""

    def interrupted(self, channels: Collection[str]) -> None:
        """Called when all of them are subscribed again."""
        self.back.set()


async def _message(broker: Broker, counted: _Counted, port: int, core: int, count: int, size: int) -> None:
    await broker.subscribe("flood")
    counted.most = counted.count + count
    counted.all = trio.Event()
    command = [sys.executable, "-c", _FLOOD, str(port), "centrifugo.client.flood", str(count), str(size)]
    began = time.process_time()
    with subprocess.Popen(command) as flood:  # noqa: ASYNC220 (begun once, waited for when it has ended)
        os.sched_setaffinity(flood.pid, {core})
        await counted.all.wait()
        spent = time.process_time() - began
        await trio.sleep(0.1)
        flood.wait()
    print(f"a message of {size} B before its fan-out: {spent / count * 1e6:.2f} us of CPU", flush=True)


async def measure(options: argparse.Namespace) -> None:
    first, *_, last = sorted(os.sched_getaffinity(0)) * 2
    os.sched_setaffinity(0, {first})
    with running_redis(free_port) as redis:
        os.sched_setaffinity(redis.pid, {last})
        config = configure({"engine": {"type": "redis", "redis": {"address": redis.address}}})
        async with (
            open_stage() as stage,
            open_engine(config.engine, config.broker, config.presence_manager, random.Random(), stage) as engine,
        ):
            counted = _Counted()
            engine.broker.attach(counted)
            for _ in range(options.rounds):
                await _message(engine.broker, counted, redis.port, last, options.messages, options.payload)
            began = time.perf_counter()
            await in_order(engine.broker.subscribe(f"room:{n}") for n in range(options.subscriptions))
            print(f"{options.subscriptions:,} subscriptions made in {time.perf_counter() - began:.2f} s", flush=True)
            for _ in range(options.rounds):
                counted.back = trio.Event()
                redis.kill()
                with redis.again() as redis:
                    os.sched_setaffinity(redis.pid, {last})
                    began, spent = time.perf_counter(), time.process_time()
                    await counted.back.wait()
                    took, spent = time.perf_counter() - began, time.process_time() - spent
                    print(
                        f"{options.subscriptions:,} subscriptions restored {took:.2f} s after Redis was there again,"
                        f" {spent:.2f} s of CPU",
                        flush=True,
                    )
                    await trio.sleep(0.5)


def main() -> None:
    parse = argparse.ArgumentParser(prog="python -m benchmarks.micro_redis", description=__doc__)
    parse.add_argument("--messages", type=int, default=100_000, metavar="N", help="in a round (100,000)")
    parse.add_argument("--payload", type=int, default=128, metavar="BYTES", help="of a message (128)")
    parse.add_argument("--subscriptions", type=int, default=20_000, metavar="N", help="to be restored (20,000)")
    parse.add_argument("--rounds", type=int, default=3, metavar="N")
    trio.run(measure, parse.parse_args())


if __name__ == "__main__":
    main()
