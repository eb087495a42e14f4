"""The claims of tokens. Payloads in them (`info`, `data`, `meta`) keep the bytes of whoever made the token.

Facts: server-side §3.2, §3.3 (https://centrifugal.dev/docs/server/authentication,
https://centrifugal.dev/docs/server/channel_token_auth).
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar, final

import attrs
import msgspec
from msgspec import Raw, Struct

from broker.auth.errors import TokenInvalid
from broker.channels import Override
from broker.protocol import payload

T = TypeVar("T")

__all__ = [
    "ConnectToken",
    "Registered",
    "SubscriptionClaims",
    "SubscriptionToken",
    "decode_connection",
    "decode_subscription",
]

_FARTHEST: Final = 2.0**53
"""Seconds; times beyond are not dates but mistakes. Milliseconds, a common one, still count, as a far future."""
_NUMBER: Final = re.compile(r"-?[0-9]{1,16}(\.[0-9]{1,9})?")
_NO_OVERRIDE: Final = Override()


@final
@attrs.frozen
class SubscriptionClaims:
    """A server-side subscription that comes with a connection token."""

    info: bytes = b""
    data: bytes = b""
    override: Override = _NO_OVERRIDE


_NO_CLAIMS: Final = SubscriptionClaims()


@final
class ConnectToken(Struct, frozen=True):
    """Who connects. `user` is "" for an anonymous user; `expire_at` is in Unix seconds, 0 for never.

    `info` is what other clients see, `meta` what only backends see. `subs` are server-side subscriptions by channel.
    """

    user: str
    expire_at: int
    info: bytes
    meta: bytes
    subs: Mapping[str, SubscriptionClaims]


@final
class SubscriptionToken(Struct, frozen=True):
    """Who may subscribe to what. The caller compares `user`, `channel` and, if it is not empty, `client`."""

    user: str
    channel: str
    client: str
    expire_at: int
    info: bytes
    data: bytes
    override: Override


@final
class Registered(Struct, frozen=True):
    """The claims that decide whether a token counts. `exp` and `nbf` are Unix seconds, None if absent."""

    issuer: str
    audience: tuple[str, ...]
    exp: float | None
    nbf: float | None
    channel: str


# ---- as they are written ------------------------------------------------------------------------------------------


class _Value(Struct):
    value: bool = False


class _Override(Struct):
    presence: _Value | None = None
    join_leave: _Value | None = None
    force_push_join_leave: _Value | None = None
    force_positioning: _Value | None = None
    force_recovery: _Value | None = None


class _Sub(Struct):
    info: Raw = Raw()
    b64info: str | None = None
    data: Raw = Raw()
    b64data: str | None = None
    override: _Override | None = None


class _Token(Struct):
    sub: str | None = None
    iss: str | None = None
    aud: str | list[str] | None = None
    exp: int | float | str | None = None
    nbf: int | float | str | None = None
    expire_at: int | None = None
    channel: str | None = None
    info: Raw = Raw()
    b64info: str | None = None


class _Connection(_Token):
    channels: list[str] | None = None
    subs: dict[str, _Sub | None] | None = None
    meta: Raw = Raw()


class _Subscription(_Token):
    client: str | None = None
    data: Raw = Raw()
    b64data: str | None = None
    override: _Override | None = None


_connection_decoder = msgspec.json.Decoder(_Connection)
_subscription_decoder = msgspec.json.Decoder(_Subscription)
_any_decoder = msgspec.json.Decoder(dict[str, Raw])
_user_decoder = msgspec.json.Decoder(str | int | None)


def decode_connection(claims: bytes, user_claim: str) -> tuple[Registered, Callable[[], ConnectToken]]:
    """Read the claims of a connection token; `user_claim` names the user instead of `sub` if it is not empty.

    Returns:
        What decides whether the token counts, and what makes the rest of it; to be called once it does. It raises
        `TokenInvalid`, too.

    Raises:
        TokenInvalid: a claim has the wrong type.
    """
    raw = _decode(_connection_decoder, claims)

    def token() -> ConnectToken:
        if raw.subs:
            subs = {channel: _sub(sub) for channel, sub in raw.subs.items()}
        else:
            subs = dict.fromkeys(raw.channels or (), _NO_CLAIMS)
        return ConnectToken(
            user=_user(raw, claims, user_claim),
            expire_at=_expire_at(raw),
            info=_payload(raw.info, raw.b64info),
            meta=payload(raw.meta),
            subs=subs,
        )

    return _registered(raw), token


def decode_subscription(claims: bytes, user_claim: str) -> tuple[Registered, Callable[[], SubscriptionToken]]:
    """Read the claims of a subscription token, as `decode_connection` does.

    Raises:
        TokenInvalid: a claim has the wrong type.
    """
    raw = _decode(_subscription_decoder, claims)

    def token() -> SubscriptionToken:
        return SubscriptionToken(
            user=_user(raw, claims, user_claim),
            channel=raw.channel or "",
            client=raw.client or "",
            expire_at=_expire_at(raw),
            info=_payload(raw.info, raw.b64info),
            data=_payload(raw.data, raw.b64data),
            override=_override(raw.override),
        )

    return _registered(raw), token


def _decode(decoder: msgspec.json.Decoder[T], claims: bytes) -> T:
    try:
        # payloads are passed on unread, and one that is not UTF-8 would break the connections of those who get it
        if not claims.isascii():
            claims.decode()
        return decoder.decode(claims)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TokenInvalid(f"bad claims: {error}") from None


def _registered(raw: _Token) -> Registered:
    audience = (raw.aud,) if isinstance(raw.aud, str) else tuple(raw.aud or ())
    return Registered(raw.iss or "", audience, _time(raw.exp), _time(raw.nbf), raw.channel or "")


def _time(value: int | float | str | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):  # Centrifugo reads numbers in quotes, too
        if _NUMBER.fullmatch(value) is None:
            raise TokenInvalid("a time is not a number")
        value = float(value)
    if abs(value) > _FARTHEST:
        raise TokenInvalid("a time is out of range")
    return value


def _expire_at(raw: _Token) -> int:
    """When what the token allows ends: `expire_at` (0 or less: never) rather than `exp`."""
    if raw.expire_at is None:
        return int(_time(raw.exp) or 0)
    return max(int(_time(raw.expire_at) or 0), 0)


def _user(raw: _Token, claims: bytes, user_claim: str) -> str:
    if not user_claim:
        return raw.sub or ""
    value = _decode(_any_decoder, claims).get(user_claim)
    if value is None:
        return ""
    user = _decode(_user_decoder, bytes(value))
    return "" if user is None else str(user)


def _sub(raw: _Sub | None) -> SubscriptionClaims:
    if raw is None:
        return _NO_CLAIMS
    return SubscriptionClaims(_payload(raw.info, raw.b64info), _payload(raw.data, raw.b64data), _override(raw.override))


def _payload(raw: Raw, base64: str | None) -> bytes:
    if not base64:
        return payload(raw)
    try:
        return binascii.a2b_base64(base64, strict_mode=True)
    except ValueError:
        raise TokenInvalid("bad base64 in a payload") from None


def _override(raw: _Override | None) -> Override:
    if raw is None:
        return _NO_OVERRIDE
    return Override(
        presence=_value(raw.presence),
        join_leave=_value(raw.join_leave),
        force_push_join_leave=_value(raw.force_push_join_leave),
        force_positioning=_value(raw.force_positioning),
        force_recovery=_value(raw.force_recovery),
    )


def _value(raw: _Value | None) -> bool | None:
    return None if raw is None else raw.value
