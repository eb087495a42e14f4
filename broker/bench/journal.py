"""What a channel carried, and whether everybody got all of it: once, and in one order."""

from __future__ import annotations

import hashlib
from array import array
from typing import final

from broker.bench.marks import HIGHEST, KEY

__all__ = ["Journal", "Wrong"]

_SHOWN = 3


class Wrong(RuntimeError):
    """The server lost, doubled or reordered something."""


@final
class Journal:
    """One channel. Its order is what the first reader saw; every other reader has to see the same.

    Publications that were under way at the same moment may come in any order, so it is not known beforehand. But one
    that was sent after another had been answered has to come after it.
    """

    __slots__ = ("_answered_before", "_open", "channel", "last", "order")

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.order = bytearray()
        """Keys, one after another."""
        self.last: tuple[bytes, int, int, int, bytes] = (b"", -1, 0, 0, b"")
        """The last read: bytes, position before, keys, position after, tail. Most readers read the same."""
        self._answered_before = array("q")
        self._open: dict[int, None] = {}

    def post(self) -> int:
        """The next publication is sent; its number."""
        number = len(self._answered_before)
        self._open[number] = None
        self._answered_before.append(next(iter(self._open)))
        return number

    def answered(self, number: int) -> None:
        """The API has answered it."""
        del self._open[number]

    @property
    def posted(self) -> int:
        return len(self._answered_before)

    def follow(self, at: int, keys: bytes) -> int:
        """A reader whose position is `at` reads `keys`; its new position.

        Raises:
            Wrong: it should have read others.
        """
        end = at + len(keys)
        known = self.order[at:end]
        if known != keys:
            if not keys.startswith(known):
                raise Wrong(f"channel {self.channel}: one reads {_show(keys)} where another read {_show(known)}")
            self.order += keys[len(known) :]
        return end

    def verify(self) -> None:
        """Everything that was posted is there, once, and nothing before what had been answered when it was posted.

        Raises:
            Wrong: it is not so.
        """
        base, posted = self.channel * HIGHEST, self.posted
        seen = bytearray(posted)
        complete = 0
        for place in range(0, len(self.order), KEY):
            number = int(self.order[place : place + KEY]) - base
            if not 0 <= number < posted:
                raise Wrong(f"channel {self.channel}: publication {base + number} is none of this channel")
            if seen[number]:
                raise Wrong(f"channel {self.channel}: publication {number} came twice")
            seen[number] = 1
            if self._answered_before[number] > complete:
                raise Wrong(
                    f"channel {self.channel}: publication {number} came before {complete}, sent and answered before"
                )
            while complete < posted and seen[complete]:
                complete += 1
        if complete < posted:
            lost = [number for number, there in enumerate(seen) if not there]
            raise Wrong(f"channel {self.channel}: lost {len(lost)} publications, {lost[:_SHOWN]} among them")

    def digest(self) -> str:
        """The same for all processes whose readers saw the same."""
        return hashlib.blake2b(self.order, digest_size=16).hexdigest()


def _show(keys: bytes | bytearray) -> str:
    numbers = [int(keys[at : at + KEY]) % HIGHEST for at in range(0, min(len(keys), _SHOWN * KEY), KEY)]
    return f"{numbers}{'…' if len(keys) > _SHOWN * KEY else ''}"
