"""A Redis Cluster: which master holds which slot, learnt at the start, from redirections, and now and then."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from typing import Final, final

import structlog
import trio

from broker.engines.redis.address import Server, Shard
from broker.engines.redis.dial import host_of, read_slots
from broker.engines.redis.line import Line, OnUp
from broker.engines.redis.link import Link
from broker.engines.redis.names import slot_of
from broker.hub import EngineUnavailable
from broker.reader import Stage

__all__ = ["Cluster", "Concerns"]

_log = structlog.get_logger("broker.engines.redis")

_SLOTS: Final = 16384
_REFRESH: Final = 15.0
_REFRESH_AWAY: Final = 0.5
"""Seconds between two looks at the map of slots, while all is well and while a master is away."""
_NEW_LINE: Final = 1.0
"""How long a redirected command waits for the link to a server that was not known."""

Concerns = Callable[[bytes], bool]
"""Whether something concerns a name in Redis."""


@final
class Cluster:
    """The route of a shard that is a Cluster: one line to each master.

    `changed` is called with what tells the names that another server holds now, or the same one after a break:
    publications of them may be lost, or may not have come through the members' own links.
    """

    def __init__(self, shard: Shard, stage: Stage, nursery: trio.Nursery, on_up: OnUp) -> None:
        self.changed: Callable[[Concerns], None] = lambda _: None
        self._shard = shard
        self._stage = stage
        self._nursery = nursery
        self._on_up = on_up
        self._lines: dict[Server, tuple[Line, trio.CancelScope]] = {}
        self._slots: list[Line | None] = [None] * _SLOTS
        self._moved: set[int] = set()
        self._slot = functools.lru_cache(4096)(slot_of)
        self._look = trio.Event()

    # ---- routing --------------------------------------------------------------------------------------------------

    def link(self, key: bytes) -> Link:
        line = self._slots[self._slot(key)]
        if line is None:
            raise EngineUnavailable(f"{self._shard}: no master holds slot {self._slot(key)}")
        return line.need()

    async def elsewhere(self, link: Link, answer: str) -> tuple[Link, bool] | None:
        kind, _, rest = answer.partition(" ")
        if kind not in ("MOVED", "ASK"):
            return None
        number, _, address = rest.partition(" ")
        host, _, port = address.rpartition(":")
        if not number.isdecimal() or not port.isdecimal():
            return None
        asked = link.server.rpartition(":")[0].strip("[]")
        line = self._line_to(Server(host_of(host.encode(), asked), int(port)))
        if kind == "MOVED":
            slot = int(number)
            if self._slots[slot] is not line:
                self._slots[slot] = line
                self._moved.add(slot)
            self._look.set()
        with trio.move_on_after(_NEW_LINE):
            await line.up.wait()
        return line.need(), kind == "ASK"

    async def any_master(self) -> Server:
        """For pub/sub: what is published on one is told on all. One that is up, if there is one."""
        up = [server for server, (line, _) in self._lines.items() if line.link is not None]
        return random.choice(up or [*self._lines, *self._shard.servers])

    @property
    def lines(self) -> Sequence[Line]:
        return [line for line, _ in self._lines.values()]

    # ---- the map of slots -----------------------------------------------------------------------------------------

    def _line_to(self, server: Server) -> Line:
        known = self._lines.get(server)
        if known is not None:
            return known[0]

        async def where() -> Server:
            return server

        async def on_up(link: Link) -> None:
            await self._on_up(link)
            if line.up.is_set():  # it was away: what it has now may be less than what it had
                self._moved.update(slot for slot, holder in enumerate(self._slots) if holder is line)
                self._look.set()

        line = Line(self._shard, f"commands to {server}", where, on_up, self._stage, name=str(server))
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await line.run()

        self._nursery.start_soon(run, name=f"redis cluster {server}")
        self._lines[server] = line, scope
        return line

    async def refresh(self) -> None:
        """Learn the map of slots.

        Raises:
            EngineUnavailable: no server tells it.
        """
        up = [server for server, (line, _) in self._lines.items() if line.link is not None]
        ranges = await read_slots(self._shard, [*up, *self._shard.servers], self._stage)
        slots: list[Line | None] = [None] * _SLOTS
        for first, last, server in ranges:
            slots[first : last + 1] = [self._line_to(server)] * (last - first + 1)
        before, self._slots = self._slots, slots
        moved, self._moved = self._moved, set()
        moved.update(slot for slot, line in enumerate(slots) if line is not before[slot] is not None)
        masters = {server for _, _, server in ranges}
        for server in [server for server in self._lines if server not in masters]:
            self._lines.pop(server)[1].cancel()
        if moved:
            self.changed(lambda name: self._slot(name) in moved)

    async def run(self) -> None:
        """Keep the map true until cancelled."""
        while True:
            with trio.move_on_after(_REFRESH if all(line.link for line in self.lines) else _REFRESH_AWAY):
                await self._look.wait()
            await trio.sleep(_REFRESH_AWAY * random.uniform(0.2, 1.0))  # many redirections, one look
            self._look = trio.Event()
            try:
                await self.refresh()
            except EngineUnavailable as error:
                _log.debug("the slots of the Cluster cannot be read", reason=str(error))
