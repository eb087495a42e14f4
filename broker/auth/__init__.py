"""Tokens: from their text to what they claim, or why not."""

from broker.auth.claims import ConnectToken, SubscriptionClaims, SubscriptionToken
from broker.auth.errors import KeysUnavailable, TokenExpired, TokenInvalid
from broker.auth.generate import make_token
from broker.auth.options import SubscriptionTokenOptions, TokenOptions
from broker.auth.verifier import TokenVerifier

__all__ = [
    "ConnectToken",
    "KeysUnavailable",
    "SubscriptionClaims",
    "SubscriptionToken",
    "SubscriptionTokenOptions",
    "TokenExpired",
    "TokenInvalid",
    "TokenOptions",
    "TokenVerifier",
    "make_token",
]
