"""Every code of the client protocol, in one table: errors, disconnects, unsubscribes.

Facts: client protocol §4 (https://centrifugal.dev/docs/server/codes).
"""

from __future__ import annotations

from typing import Final, final

import attrs

__all__ = ["ClientError", "Disconnect", "Disconnected", "Unsubscribe"]


@final
@attrs.frozen
class Error:
    """An error reply: the connection lives on. `temporary` tells the client that a retry may help."""

    code: int
    message: str
    temporary: bool = False


@final
@attrs.frozen
class Disconnect:
    """Why a connection is closed. Clients reconnect on 3000-3499, 4000-4499 and above 5000."""

    code: int
    reason: str


@final
@attrs.frozen
class Unsubscribe:
    """Why a subscription ends. Clients resubscribe on codes of 2500 and above."""

    code: int
    reason: str


class ClientError(Exception):
    """Raised by a handler to answer its command with an error."""

    def __init__(self, error: Error) -> None:
        super().__init__(f"{error.code}: {error.message}")
        self.error = error


class Disconnected(Exception):
    """Raised by a handler to end its connection; no reply is sent."""

    def __init__(self, disconnect: Disconnect) -> None:
        super().__init__(f"{disconnect.code}: {disconnect.reason}")
        self.disconnect = disconnect


INTERNAL: Final = Error(100, "internal server error", temporary=True)
UNAUTHORIZED: Final = Error(101, "unauthorized")
UNKNOWN_CHANNEL: Final = Error(102, "unknown channel")
PERMISSION_DENIED: Final = Error(103, "permission denied")
METHOD_NOT_FOUND: Final = Error(104, "method not found")
ALREADY_SUBSCRIBED: Final = Error(105, "already subscribed")
LIMIT_EXCEEDED: Final = Error(106, "limit exceeded")
BAD_REQUEST: Final = Error(107, "bad request")
NOT_AVAILABLE: Final = Error(108, "not available")
TOKEN_EXPIRED: Final = Error(109, "token expired")
EXPIRED: Final = Error(110, "expired")
TOO_MANY_REQUESTS: Final = Error(111, "too many requests", temporary=True)
UNRECOVERABLE_POSITION: Final = Error(112, "unrecoverable position")
CONCURRENT_PAGINATION: Final = Error(113, "concurrent pagination", temporary=True)

CONNECTION_CLOSED: Final = Disconnect(3000, "connection closed")
SHUTDOWN: Final = Disconnect(3001, "shutdown")
SERVER_ERROR: Final = Disconnect(3004, "internal server error")
CONNECTION_EXPIRED: Final = Disconnect(3005, "connection expired")
SUBSCRIPTION_EXPIRED: Final = Disconnect(3006, "subscription expired")
SLOW: Final = Disconnect(3008, "slow")
WRITE_ERROR: Final = Disconnect(3009, "write error")
INSUFFICIENT_STATE: Final = Disconnect(3010, "insufficient state")
FORCE_RECONNECT: Final = Disconnect(3011, "force reconnect")
NO_PONG: Final = Disconnect(3012, "no pong")
FLOOD: Final = Disconnect(3013, "too many requests")
STATE_INVALIDATED: Final = Disconnect(3014, "state invalidated")
INVALID_TOKEN: Final = Disconnect(3500, "invalid token")
BAD_PROTOCOL: Final = Disconnect(3501, "bad request")
STALE: Final = Disconnect(3502, "stale")
FORCE_DISCONNECT: Final = Disconnect(3503, "force disconnect")
CONNECTION_LIMIT: Final = Disconnect(3504, "connection limit")
CHANNEL_LIMIT: Final = Disconnect(3505, "channel limit")
INAPPROPRIATE_PROTOCOL: Final = Disconnect(3506, "inappropriate protocol")
ANONYMOUS_DENIED: Final = Disconnect(3507, "permission denied")
SEND_NOT_AVAILABLE: Final = Disconnect(3508, "not available")
TOO_MANY_ERRORS: Final = Disconnect(3509, "too many errors")

BY_CLIENT: Final = Unsubscribe(0, "client unsubscribed")
BY_DISCONNECT: Final = Unsubscribe(1, "client disconnected")
"""These two are never sent to clients."""
SERVER_UNSUBSCRIBE: Final = Unsubscribe(2000, "server unsubscribe")
INSUFFICIENT: Final = Unsubscribe(2500, "insufficient state")
EXPIRED_SUBSCRIPTION: Final = Unsubscribe(2501, "subscription expired")
INVALIDATED_SUBSCRIPTION: Final = Unsubscribe(2502, "state invalidated")
