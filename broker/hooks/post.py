"""What backends are told of clients that have gone: each event once, those of one client in order, nobody waits.

An event is put here in the moment in which it happens, by whoever makes it happen; it is delivered by tasks of the
server. So many clients are told of side by side as there are workers, and each hook gets no more at a time than it has
places. What waits is bounded in bytes; beyond, events are dropped and counted.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias, final

import attrs
import structlog
import trio

from broker.hooks.backends import Backends
from broker.hooks.events import ClientEvent, DisconnectEvent, UnsubscribeEvent
from broker.hooks.hook import Hook, HookFailed
from broker.observe import Counters
from broker.protocol import codes

__all__ = ["Post"]

_log = structlog.get_logger("broker.hooks")

_WORKERS: Final = 512
"""Clients told of side by side."""
_MOST: Final = 64 << 20
"""Bytes that wait, as `_size` reckons."""
_QUIET: Final = 1.0
"""Seconds between two log lines about events that were dropped."""

Event: TypeAlias = DisconnectEvent | UnsubscribeEvent


@final
@attrs.frozen
class _Letter:
    kind: str
    name: str
    event: Event
    size: int


@final
class Post:
    """`waiting` counts by event what has not been delivered."""

    def __init__(self, nursery: trio.Nursery, backends: Callable[[], Backends], counters: Counters) -> None:
        self.waiting: defaultdict[str, int] = defaultdict(int)
        self._nursery = nursery
        self._backends = backends
        self._counters = counters
        self._letters: dict[str, deque[_Letter]] = {}  # by client; the first one may be under way
        self._ready: deque[str] = deque()  # clients of which none is
        self._workers = 0
        self._bytes = 0
        self._lost = 0
        self._quiet_until = 0.0
        self._done: trio.Event | None = None

    def put(self, event: Event, name: str) -> None:
        """Tell the hook of this name, once everything that was put in for the same client has been told."""
        letter = _Letter(
            "disconnect" if isinstance(event, DisconnectEvent) else "unsubscribe", name, event, _size(event)
        )
        if self._bytes + letter.size > _MOST:
            self._drop(letter.kind)
            return
        self._bytes += letter.size
        self.waiting[letter.kind] += 1
        letters = self._letters.get(event.client)
        if letters is not None:
            letters.append(letter)
            return
        self._letters[event.client] = deque((letter,))
        self._ready.append(event.client)
        if self._workers < _WORKERS:
            self._workers += 1
            self._nursery.start_soon(self._work, name="hooks post")

    async def wait_empty(self) -> None:
        """Wait until everything has been told."""
        while self._letters:
            self._done = trio.Event()
            await self._done.wait()

    def give_up(self) -> None:
        """Count what waits as lost: there is no more time."""
        for kind, count in self.waiting.items():
            if count:
                self._counters.events_dropped[kind, "shutdown"] += count
                _log.warning("the server ends before a hook was told", hook=kind, events=count)

    async def _work(self) -> None:
        """Lives while clients are ready."""
        try:
            while self._ready:
                client = self._ready.popleft()
                letters = self._letters[client]
                letter = letters[0]
                await self._deliver(letter)
                letters.popleft()
                self._bytes -= letter.size
                self.waiting[letter.kind] -= 1
                if letters:
                    self._ready.append(client)
                else:
                    del self._letters[client]
        finally:
            self._workers -= 1
            if not self._letters and self._done is not None:
                self._done.set()

    async def _deliver(self, letter: _Letter) -> None:
        while True:
            hook = self._hook(letter)
            if hook is None:
                return  # a reload has taken it away
            async with hook.places:
                if self._hook(letter) is not hook:
                    continue  # there is another one since a reload
                # failures are counted and logged there; and what has happened cannot be refused
                with suppress(HookFailed, codes.ClientError, codes.Disconnected):
                    await hook(letter.event)
                return

    def _hook(self, letter: _Letter) -> Hook[Any, Any] | None:
        backends = self._backends()
        return backends.disconnect if letter.kind == "disconnect" else backends.unsubscribe.get(letter.name)

    def _drop(self, kind: str) -> None:
        self._counters.events_dropped[kind, "full"] += 1
        self._lost += 1
        now = trio.current_time()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET
            _log.error("too many events wait for a hook, some are dropped", hook=kind, dropped=self._lost)
            self._lost = 0


def _size(event: ClientEvent) -> int:
    """Bytes that an event keeps in memory, roughly, and never too few."""
    size = 1024 + len(event.meta)
    for headers in (event.headers, event.emulated_headers):
        for name, value in headers.items():
            size += len(name) + len(value)
    return size
