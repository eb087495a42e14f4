"""JSON Web Signatures in compact form, taken apart. Nothing is believed here, only read, and read strictly."""

from __future__ import annotations

import binascii
from functools import lru_cache
from typing import Final, final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from broker.auth.errors import TokenInvalid

__all__ = ["MAX_LENGTH", "SignedToken", "base64url", "parse"]

MAX_LENGTH: Final = 16_384
"""Characters of the longest token that is looked at, a quarter of what a frame may hold. Longer ones would only cost
time: the largest honest tokens list some hundred channels."""


class _Header(Struct):
    """What of a header counts. Keys and addresses of keys in it (`jwk`, `jku`, `x5u`, …) are never read."""

    alg: str
    kid: str = ""
    crit: Raw | UnsetType = UNSET


@final
class SignedToken(Struct, frozen=True):
    """A token in parts; its signature covers `signed`."""

    algorithm: str
    key_id: str
    signed: bytes
    payload: bytes
    signature: bytes


_header_decoder = msgspec.json.Decoder(_Header)


def parse(token: str) -> SignedToken:
    """Take a token apart.

    Raises:
        TokenInvalid: it is too long or malformed, or its header names critical extensions (none is known here).
    """
    if len(token) > MAX_LENGTH or not token.isascii():
        raise TokenInvalid("too long, or not ASCII")
    signed, _, signature = token.rpartition(".")
    header, dot, payload = signed.partition(".")
    if not dot or "." in payload:
        raise TokenInvalid("not three parts")
    algorithm, key_id = _read_header(header)
    return SignedToken(algorithm, key_id, signed.encode("ascii"), base64url(payload), base64url(signature))


@lru_cache(maxsize=128)  # an issuer's tokens share their header
def _read_header(segment: str) -> tuple[str, str]:
    try:
        header = _header_decoder.decode(base64url(segment))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TokenInvalid("bad header") from None
    if header.crit is not UNSET:
        raise TokenInvalid("critical header extensions")
    return header.alg, header.kid


def base64url(segment: str) -> bytes:
    """Decode base64url without padding, refusing everything else that `base64` would overlook.

    Raises:
        TokenInvalid: it is something else.
    """
    if "+" in segment or "/" in segment or "=" in segment:
        raise TokenInvalid("not base64url")
    plain = segment.replace("-", "+").replace("_", "/")
    try:
        return binascii.a2b_base64(plain + "=" * (-len(plain) % 4), strict_mode=True)
    except ValueError:
        raise TokenInvalid("not base64url") from None
