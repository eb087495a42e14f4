"""What waits to be told in all channels of a node together: each channel has a bound, and so have all of them."""

from __future__ import annotations

from typing import final

import attrs

__all__ = ["Backlog"]


@final
@attrs.define(eq=False)
class Backlog:
    """`events` wait, with `size` bytes of publications. Channels count; whoever publishes to one that has something
    waiting waits for it while `full`."""

    most_events: int = 1 << 16
    most_bytes: int = 64 << 20
    events: int = 0
    size: int = 0

    @property
    def full(self) -> bool:
        return self.events >= self.most_events or self.size >= self.most_bytes

    def add(self, events: int, size: int) -> None:
        """So much more waits, or less."""
        self.events += events
        self.size += size
