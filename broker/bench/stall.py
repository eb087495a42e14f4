"""The longest time in which a server answers nobody, as a client of its own sees it.

A process of its own, which the system prefers to the load where we may ask for that, sends a WebSocket ping every few
milliseconds and notes how long each answer took since the ping was due. The pings are work for the server too, so a
round has them only if asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import final

from broker.bench.figures import Figures
from broker.bench.histogram import Histogram
from broker.bench.target import Target

__all__ = ["Stall"]


@final
class Stall:
    """The probe, from entering to leaving. Without a target nothing happens."""

    def __init__(self, target: Target | None) -> None:
        self._target = target
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Stall:
        if self._target is not None:
            command = [sys.executable, "-m", "broker.bench.probe", json.dumps(self._target.as_json())]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self._process.stdout is not None
            self._process.stdout.readline()  # it has begun
        return self

    def figures(self) -> Figures:
        """What it saw; nothing where the server does not answer pings."""
        if self._process is None:
            return {}
        said, _ = self._process.communicate("end", timeout=20)
        seen = json.loads(said or "null")
        if not seen:
            return {}
        histogram = Histogram.from_json(seen)
        return {"ping p99 ms": 1000 * histogram.percentile(99), "stall ms": 1000 * histogram.highest}

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
