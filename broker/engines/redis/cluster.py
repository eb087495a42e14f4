"""A Redis Cluster: which master holds which slot, learnt at the start, from redirections, and now and then."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import Final, final

import structlog
import trio

from broker.engines.redis.address import Server, Shard
from broker.engines.redis.dial import read_slots
from broker.engines.redis.line import Line, OnUp
from broker.engines.redis.link import Link
from broker.engines.redis.names import slot_of
from broker.hub import EngineUnavailable

__all__ = ["Cluster"]

_log = structlog.get_logger("broker.engines.redis")

_SLOTS: Final = 16384
_REFRESH: Final = 15.0
_REFRESH_AWAY: Final = 0.5
"""Seconds between two looks at the map of slots, while all is well and while a master is away."""
_NEW_LINE: Final = 1.0
"""How long a redirected command waits for the link to a server that was not known."""


@final
class Cluster:
    """The route of a shard that is a Cluster: one line to each master."""

    def __init__(self, shard: Shard, nursery: trio.Nursery, on_up: OnUp) -> None:
        self._shard = shard
        self._nursery = nursery
        self._on_up = on_up
        self._lines: dict[Server, tuple[Line, trio.CancelScope]] = {}
        self._slots: list[Line | None] = [None] * _SLOTS
        self._slot = functools.lru_cache(4096)(slot_of)
        self._look = trio.Event()

    # ---- routing --------------------------------------------------------------------------------------------------

    def link(self, key: bytes) -> Link:
        line = self._slots[self._slot(key)]
        if line is None:
            raise EngineUnavailable(f"{self._shard}: no master holds slot {self._slot(key)}")
        return line.need()

    async def elsewhere(self, answer: str) -> tuple[Link, bool] | None:
        kind, _, rest = answer.partition(" ")
        if kind not in ("MOVED", "ASK"):
            return None
        slot, _, address = rest.partition(" ")
        host, _, port = address.rpartition(":")
        if not slot.isdecimal() or not port.isdecimal() or not host:
            return None
        line = self._line_to(Server(host, int(port)))
        if kind == "MOVED":
            self._slots[int(slot)] = line
            self._look.set()
        with trio.move_on_after(_NEW_LINE):
            await line.up.wait()
        return line.need(), kind == "ASK"

    def pick(self) -> Server | None:
        """Any master, for pub/sub: what is published on one is told on all. One that is up, if there is one."""
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
        line = Line(self._shard, f"commands to {server}", self._on_up, pick=lambda: server)
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
        ranges = await read_slots(self._shard, [*up, *self._shard.servers])
        slots: list[Line | None] = [None] * _SLOTS
        for first, last, server in ranges:
            slots[first : last + 1] = [self._line_to(server)] * (last - first + 1)
        self._slots = slots
        masters = {server for _, _, server in ranges}
        for server in [server for server in self._lines if server not in masters]:
            self._lines.pop(server)[1].cancel()

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
