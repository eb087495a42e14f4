"""Subscribers of one round, spread over several processes where one would be the bottleneck."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
from typing import Any, final

from broker.bench.journal import Wrong
from broker.bench.load import Load

__all__ = ["Crowd"]

_PER_PROCESS = 15_000
_SLOT = struct.Struct("=qq")
_OPENING, _READY, _END, _FAILED = range(4)


@final
class Crowd:
    """`settings.connections` subscribers, all of them subscribed once this is made.

    Ours are handled by the load's own poll. The others live in forks, which write how many deliveries they have read
    into memory that is shared.
    """

    def __init__(self, load: Load, *, probes: int = 0) -> None:
        """
        Raises:
            ConnectionError: the server refused one.
        """
        self._load = load
        settings = load.settings
        total = settings.connections
        count = settings.processes or -(-total // _PER_PROCESS)
        self._others = max(min(count, total) - 1, 0)
        self._memory = mmap.mmap(-1, _SLOT.size * max(self._others, 1))
        self._pipes: list[int] = []
        self._pids: list[int] = []
        for other in range(self._others):
            self._fork(other, range(other + 1, total, self._others + 1))
        load.subscribe(range(0, total, self._others + 1), probes=probes)
        load.poll.turn_until(lambda: _OPENING not in self._states(), "subscribers in other processes")

    @property
    def deliveries(self) -> int:
        """Read by all together.

        Raises:
            Wrong, ConnectionError: another process has given up.
        """
        if _FAILED in self._states():
            self.end()
        elsewhere: int = sum(_SLOT.unpack_from(self._memory, _SLOT.size * other)[0] for other in range(self._others))
        return self._load.audience.deliveries + elsewhere

    def end(self) -> None:
        """End the other processes and compare what was read everywhere.

        Raises:
            Wrong, ConnectionError: somebody read something else, or could not.
        """
        for other in range(self._others):
            deliveries, state = _SLOT.unpack_from(self._memory, _SLOT.size * other)
            if state != _FAILED:
                _SLOT.pack_into(self._memory, _SLOT.size * other, deliveries, _END)
        reports = [self._report(pipe) for pipe in self._pipes]
        for pid in self._pids:
            os.waitpid(pid, 0)
        self._pipes, self._pids, self._others = [], [], 0
        for report in reports:
            if "wrong" in report:
                raise Wrong(report["wrong"])
            if "error" in report:
                raise ConnectionError(report["error"])
            if report["digests"] != [journal.digest() for journal in self._load.journals if journal.order]:
                raise Wrong("subscribers in different processes read different publications")
        self._load.verify()

    def _states(self) -> list[int]:
        return [_SLOT.unpack_from(self._memory, _SLOT.size * other)[1] for other in range(self._others)]

    def _report(self, pipe: int) -> dict[str, Any]:
        with os.fdopen(pipe) as lines:
            report: dict[str, Any] = json.loads(lines.read() or '{"error": "a process of subscribers ended"}')
            return report

    def _fork(self, other: int, numbers: range) -> None:
        theirs, ours = os.pipe()
        pid = os.fork()
        if pid:
            os.close(ours)
            self._pipes.append(theirs)
            self._pids.append(pid)
            return
        try:
            report: dict[str, Any] = {}
            try:
                report = {"digests": self._live(other, numbers, os.getppid())}
            except Wrong as error:
                report = {"wrong": str(error)}
            except Exception as error:
                report = {"error": f"{type(error).__name__}: {error}"}
            if "digests" not in report:
                _SLOT.pack_into(self._memory, _SLOT.size * other, 0, _FAILED)
            with contextlib.suppress(OSError):
                os.write(ours, json.dumps(report).encode())
        finally:
            os._exit(0)

    def _live(self, other: int, numbers: range, parent: int) -> list[str]:
        """A process of subscribers, until it is told to end or its parent has gone."""
        with Load(self._load.target, self._load.settings) as load:
            load.add_journals(len(self._load.journals))
            load.subscribe(numbers)
            state = _READY
            while state == _READY and os.getppid() == parent:
                _SLOT.pack_into(self._memory, _SLOT.size * other, load.audience.deliveries, state)
                load.poll.turn(0.05)
                state = _SLOT.unpack_from(self._memory, _SLOT.size * other)[1] or _READY
            return [journal.digest() for journal in load.journals if journal.order]
