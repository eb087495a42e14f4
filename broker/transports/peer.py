"""What the machines that carry a session have in common: each is the machine of a connection and the `Peer` of its
session, and hands from one to the other.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from broker.hub import Outbox
from broker.protocol import codes
from broker.sessions import Session
from broker.transports.connection import Connection

__all__ = ["SessionCarrier"]


class SessionCarrier:
    """The common part. Whoever inherits sets `_connection` and `session`, and says what bytes mean and how to close."""

    __slots__ = ("_connection", "session")

    _connection: Connection
    session: Session

    # ---- a Machine ------------------------------------------------------------------------------------------------

    def failed(self, why: codes.Disconnect) -> None:
        self.session.disconnect(why)

    def ended(self) -> None:
        self.session.peer_gone()

    async def cleanup(self) -> None:
        await self.session.cleanup()

    # ---- a Peer ---------------------------------------------------------------------------------------------------

    @property
    def outbox(self) -> Outbox:
        return self._connection.outbox

    @property
    def address(self) -> str:
        return self._connection.address

    @property
    def reading(self) -> bool:
        return not self._connection.busy

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self._connection.run_beside(work)

    def crashed(self) -> None:
        self._connection.crashed()
