"""Where in a channel's stream a subscriber stands, and how it asks to go on from there."""

from __future__ import annotations

from typing import Final, final

from broker.client.wire import Pub
from broker.client.wire import Subscribed as SubscribeResult
from broker.protocol import StreamPosition, SubscribeRequest

__all__ = ["Position"]

_INVALID_EPOCH: Final = "_"
"""No stream has it: asks for an answer `recovered: false` (client protocol §9.4, 13)."""


@final
class Position:
    """Offset and epoch of one subscription (client protocol §3.6)."""

    __slots__ = ("_epoch", "_known", "_offset", "_recoverable")

    def __init__(self) -> None:
        self._known = False
        self._recoverable = False
        self._offset = 0
        self._epoch = ""

    @classmethod
    def since(cls, start: StreamPosition | None) -> Position:
        """A position that was kept from an earlier time; recovery begins there."""
        position = cls()
        if start is not None:
            position._known = position._recoverable = True
            position._offset, position._epoch = start.offset, start.epoch
        return position

    @property
    def public(self) -> StreamPosition | None:
        return StreamPosition(self._offset, self._epoch) if self._known else None

    def ask(self, request: SubscribeRequest) -> None:
        """Ask for what was missed, if the channel can tell."""
        if self._recoverable:
            request.recover = True
            request.offset, request.epoch = self._offset, self._epoch

    def accept(self, result: SubscribeResult) -> None:
        """A subscribe was answered: the publications in the answer, if any, are still to be counted."""
        self._known = result.positioned or result.recoverable
        self._recoverable = result.recoverable
        if self._known:
            self._offset, self._epoch = result.offset, result.epoch

    def advance(self, publication: Pub) -> None:
        """A publication was received."""
        if self._known and publication.offset:
            self._offset = publication.offset
            self._epoch = publication.epoch or self._epoch

    def invalidate(self) -> None:
        """The stream that it was in is not to be trusted any more."""
        if self._recoverable:
            self._offset, self._epoch = 0, _INVALID_EPOCH
