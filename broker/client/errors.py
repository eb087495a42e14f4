"""What can go wrong for a client, from one command to the whole connection."""

from __future__ import annotations

from typing import Final, final

__all__ = ["BrokerError", "ConnectionLost", "Disconnected", "Lagged", "ReplyError", "Unsubscribed"]

TRANSPORT_CLOSED: Final = 1
NO_PING: Final = 2
SUBSCRIBE_TIMEOUT: Final = 3
BAD_PROTOCOL: Final = 2
MESSAGE_TOO_BIG: Final = 1009
"""Codes that a client gives itself (client protocol §4.4), and the one of WebSocket that ends it."""


class BrokerError(Exception):
    """Base of all errors here. `code` and `reason` are the server's, or the client's own below 100."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}" if self.reason else str(self.code)


@final
class ReplyError(BrokerError):
    """The server answered a command with an error. `temporary`: the same command may succeed later."""

    def __init__(self, code: int, reason: str, temporary: bool = False) -> None:
        super().__init__(code, reason)
        self.temporary = temporary


@final
class ConnectionLost(BrokerError):
    """There is no connection, or it broke before the reply: whether the command took effect is unknown.

    The client connects again by itself, unless it is `terminal`.
    """

    def __init__(self, code: int, reason: str, final: bool = False) -> None:
        super().__init__(code, reason)
        self.terminal = final or 3500 <= code < 4000 or 4500 <= code < 5000 or code == MESSAGE_TOO_BIG
        """Whether there is no use in coming back (client protocol §1.6)."""


@final
class Disconnected(BrokerError):
    """The client is disconnected for good."""


@final
class Unsubscribed(BrokerError):
    """The subscription is over for good."""


@final
class Lagged(BrokerError):
    """The subscription is over: events came faster than they were taken, and its buffer is full."""

    def __init__(self, buffer: int) -> None:
        super().__init__(0, f"{buffer} events were waiting")
