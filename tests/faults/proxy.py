"""A TCP proxy that does to its links what networks do: delay, stop, cut, reset, half-close, and loss.

    async with open_proxy(port) as proxy:           # clients go to proxy.port, the proxy goes to `port`
        proxy.delay = 0.05                          # each way, on every link
        for link in proxy.links: link.stop()        # a black hole: nothing passes, nothing is lost, nobody is told
        proxy.reset()                               # RST to both ends of every link
        proxy.arrivals = Arrivals.REFUSED           # newcomers get RST, as from a port where nobody listens

Every link may be treated apart: `proxy.links` holds those that live, the oldest first, and `link.said(b"SUBSCRIBE")`
tells one that carries subscriptions from others. What a stopped link holds back passes in order when it goes on;
links that go on in another order than they were stopped in reorder what is sent over several.
"""

from __future__ import annotations

import enum
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, final

import trio

__all__ = ["Arrivals", "Link", "Proxy", "Way", "open_proxy", "start_proxy"]

RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with no time left: close sends RST."""
_REMEMBERED: Final = 64 << 10
"""Bytes from the client that a link remembers, for `Link.said`."""
_IN_FLIGHT: Final = 256
"""Chunks under way in one direction: as full as a network gets before its sender has to wait."""


class Way(enum.Enum):
    """A direction."""

    UP = "from the client to the server"
    DOWN = "from the server to the client"


class Arrivals(enum.Enum):
    """What becomes of new connections."""

    SERVED = enum.auto()
    REFUSED = enum.auto()
    """Reset at once."""
    SWALLOWED = enum.auto()
    """Accepted by the kernel, and nobody ever answers."""


Rewrite = Callable[[bytes], bytes]
"""What becomes of a chunk as it was read; it may be cut anywhere. Empty: it is lost."""


@final
class Link:
    """One connection through the proxy: both of its sockets, and what is wrong with it."""

    def __init__(self, proxy: Proxy, client: trio.SocketStream, server: trio.SocketStream) -> None:
        self._proxy = proxy
        self._ends = {Way.UP: (client, server), Way.DOWN: (server, client)}
        self._gates = {way: _open_gate() for way in Way}
        self._left: dict[Way, int | None] = dict.fromkeys(Way)
        self._heard = bytearray()
        self.passed = dict.fromkeys(Way, 0)
        """Bytes that came through."""

    def said(self, text: bytes) -> bool:
        """Whether the client has sent `text` (in any case) among its first 64 KiB."""
        return text.lower() in self._heard.lower()

    def stop(self, *ways: Way) -> None:
        """A black hole: from now on nothing passes in these directions (both), until `go`. The ends are not told."""
        for way in ways or Way:
            if self._gates[way].is_set():
                self._gates[way] = trio.Event()

    def go(self, *ways: Way) -> None:
        """What was held back passes, in order, and what comes after it."""
        for way in ways or Way:
            self._gates[way].set()

    def cut(self) -> None:
        """Close both sockets as a dying process does: each end reads what is there, then the end."""
        self._close(reset=False)

    def reset(self) -> None:
        """RST to both ends: they lose what they have not read."""
        self._close(reset=True)

    def cut_after(self, size: int, way: Way) -> None:
        """Let `size` more bytes pass in this direction, then cut: also in the middle of a message."""
        self._left[way] = size

    async def half_close(self, way: Way) -> None:
        """Tell the end that receives in this direction that nothing more comes; the other direction goes on."""
        await self._ends[way][1].send_eof()

    def _close(self, *, reset: bool) -> None:
        for stream in self._ends[Way.UP]:
            if reset and stream.socket.fileno() >= 0:
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            stream.socket.close()
        self.go()  # what waits behind a stop has nobody to go to: let it see that

    async def carry(self) -> None:
        """Both directions, until both have ended or the link was cut."""
        client, server = self._ends[Way.UP]
        async with client, server, trio.open_nursery() as nursery:
            for way in Way:
                send, receive = trio.open_memory_channel[tuple[float, bytes]](_IN_FLIGHT)
                nursery.start_soon(self._take, way, send)
                nursery.start_soon(self._give, way, receive)

    async def _take(self, way: Way, on: trio.MemorySendChannel[tuple[float, bytes]]) -> None:
        source, _ = self._ends[way]
        rewrite = self._proxy.rewrites[way]() if way in self._proxy.rewrites else None
        async with on:
            try:
                async for chunk in source:
                    if way is Way.UP and len(self._heard) < _REMEMBERED:
                        self._heard += chunk
                    kept = bytes(chunk) if rewrite is None else rewrite(bytes(chunk))
                    if kept:
                        await on.send((trio.current_time() + self._proxy.delay, kept))
            except trio.BrokenResourceError:
                await self._gates[way].wait()  # a reset does not get through a black hole either
                self.reset()
            except trio.ClosedResourceError:
                pass  # cut by us

    async def _give(self, way: Way, from_source: trio.MemoryReceiveChannel[tuple[float, bytes]]) -> None:
        _, target = self._ends[way]
        async with from_source:
            try:
                async for due, chunk in from_source:
                    await trio.sleep_until(due)
                    await self._gates[way].wait()
                    left = self._left[way]
                    if left is None:
                        await target.send_all(chunk)
                        self.passed[way] += len(chunk)
                        continue
                    await target.send_all(chunk[:left])
                    self.passed[way] += min(len(chunk), left)
                    self._left[way] = left - len(chunk)
                    if len(chunk) >= left:
                        self.cut()
                        return
                await self._gates[way].wait()
                await target.send_eof()
            except trio.BrokenResourceError:
                self.reset()
            except trio.ClosedResourceError:
                pass  # cut by us


@final
class Proxy:
    """The links between many clients and one server.

    `delay` (seconds, each way) and `arrivals` may change at any time. `target` is the port of the server that new
    links go to. `rewrites` makes, for each new link, what becomes of the bytes of a direction.
    """

    def __init__(self, target: int, rng: random.Random) -> None:
        self.target = target
        self.delay = 0.0
        self.arrivals = Arrivals.SERVED
        self.rewrites: dict[Way, Callable[[], Rewrite]] = {}
        self.links: list[Link] = []
        self.accepted = 0
        self.port = 0
        self._rng = rng

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        """All links, and those to come, are a black hole until `go`."""
        self.arrivals = Arrivals.SWALLOWED
        for link in self.links:
            link.stop()

    def go(self) -> None:
        """Everything passes again. Who came while there was a black hole has to come again."""
        self.arrivals = Arrivals.SERVED
        for link in self.links:
            link.go()

    def cut(self) -> None:
        """Close all links; new ones come through."""
        for link in tuple(self.links):
            link.cut()

    def reset(self) -> None:
        """RST on all links; new ones come through."""
        for link in tuple(self.links):
            link.reset()

    async def swizzle(self, pause: float, links: Iterable[Link] | None = None) -> None:
        """Stop the links one by one, then let them go on in another order, `pause` seconds between any two."""
        chosen = list(self.links if links is None else links)
        for link in self._rng.sample(chosen, len(chosen)):
            link.stop()
            await trio.sleep(pause)
        for link in self._rng.sample(chosen, len(chosen)):
            link.go()
            await trio.sleep(pause)

    async def serve(self, client: trio.SocketStream) -> None:
        """One connection of a client."""
        self.accepted += 1
        if self.arrivals is Arrivals.SWALLOWED:
            async with client:
                await trio.sleep_forever()
        try:
            if self.arrivals is Arrivals.REFUSED:
                raise OSError
            server = await trio.open_tcp_stream("127.0.0.1", self.target)
        except OSError:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            client.socket.close()
            return
        link = Link(self, client, server)
        self.links.append(link)
        try:
            await link.carry()
        finally:
            self.links.remove(link)


def _open_gate() -> trio.Event:
    gate = trio.Event()
    gate.set()
    return gate


@asynccontextmanager
async def open_proxy(target: int, *, seed: int = 1) -> AsyncIterator[Proxy]:
    """A proxy to `target`, a port of this machine, for as long as the block lives; then its links are cut."""
    async with trio.open_nursery() as nursery:
        yield await start_proxy(nursery, target, seed=seed)
        nursery.cancel_scope.cancel()


async def start_proxy(nursery: trio.Nursery, target: int, *, seed: int = 1) -> Proxy:
    """A proxy to `target` that lives as long as `nursery`."""
    proxy = Proxy(target, random.Random(seed))
    listeners = await nursery.start(partial(trio.serve_tcp, proxy.serve, 0, host="127.0.0.1"))
    proxy.port = listeners[0].socket.getsockname()[1]
    return proxy
