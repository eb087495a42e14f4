"""How long to wait before trying again."""

from __future__ import annotations

import random
from typing import Final, final

import attrs

__all__ = ["Backoff"]


@final
@attrs.frozen
class Backoff:
    """Exponential, with jitter: `least` seconds and a random part of a bound that doubles up to `most`.

    The defaults are those of the official JavaScript SDK (client protocol §8).
    """

    least: float = 0.5
    most: float = 20.0

    def delay(self, attempt: int) -> float:
        """Seconds to wait before retry number `attempt`, counted from 0."""
        bound = min(self.most, self.least * 2.0 ** min(attempt, 31))
        return min(self.most, self.least + random.uniform(0, bound))


DEFAULT_BACKOFF: Final = Backoff()
