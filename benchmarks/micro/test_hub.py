"""Micro-benchmarks of the way out: an outbox whose peer takes everything, and the registry of clients."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from broker.hub import Outbox, Registry
from broker.protocol import codes
from tests.support.listeners import Listener

FRAME = b"x" * 170


class Peer:
    """A sink and its owner; all that is sent is taken at once."""

    def __init__(self) -> None:
        self.taken = 0

    def try_send(self, data: bytes | memoryview) -> int:
        self.taken += len(data)
        return len(data)

    async def wait_writable(self) -> None:
        raise AssertionError("there is always room")

    async def send_all(self, data: bytes) -> None:
        raise AssertionError("everything goes straight")

    def write_failed(self, why: codes.Disconnect) -> None:
        raise AssertionError(why)

    def spawn(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        raise AssertionError("no backlog, no writer")


def test_offer_straight(benchmark: Any) -> None:
    peer = Peer()
    outbox = Outbox(peer, peer, limit=1 << 20, write_timeout=1.0)
    benchmark(outbox.offer, FRAME)
    assert peer.taken


def test_offer_ten_while_corked(benchmark: Any) -> None:
    peer = Peer()
    outbox = Outbox(peer, peer, limit=1 << 20, write_timeout=1.0)

    def frame() -> None:
        outbox.cork()
        for _ in range(10):
            outbox.offer(FRAME)
        outbox.uncork()

    benchmark(frame)
    assert peer.taken % 1700 == 0


def test_a_client_comes_and_goes(benchmark: Any) -> None:
    registry = Registry()
    for number in range(1000):
        registry.add(Listener(f"c{number}", user=f"u{number}"))
    client = Listener("new", user="u5")

    def come_and_go() -> None:
        registry.add(client)
        registry.remove(client)

    benchmark(come_and_go)
    assert registry.connections("u5") == 1
