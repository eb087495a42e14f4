"""What can be wrong with a token."""

from __future__ import annotations

from broker.protocol import codes

__all__ = ["KeysUnavailable", "TokenExpired", "TokenInvalid"]


class TokenInvalid(Exception):
    """The token is malformed, forged, or made for another purpose. The text is for logs, never for the client."""


class TokenExpired(Exception):
    """The token is genuine, but its time is over (`exp`) or has not come (`nbf`)."""


class KeysUnavailable(codes.ClientError):
    """The key set that would tell cannot be fetched. Says nothing about the token: error 100, try again.

    Centrifugo takes it for an invalid token, and its clients give up for good whenever the key server is down.
    """

    def __init__(self) -> None:
        super().__init__(codes.INTERNAL)
