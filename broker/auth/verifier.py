"""Tokens to claims: the only place that says a token is genuine.

The order of the checks is Centrifugo's (server-side §3.1): form, claims, patterns of issuer and audience, signature,
exact issuer and audience, purpose, time. The algorithm is never the token's choice: a key says what it is for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, TypeVar, final

from msgspec import Struct

from broker.auth.claims import (
    ConnectToken,
    Registered,
    SubscriptionToken,
    decode_connection,
    decode_subscription,
)
from broker.auth.endpoint import Endpoint
from broker.auth.errors import TokenExpired, TokenInvalid
from broker.auth.jwks import Fetch, KeySets, fetch_key_set
from broker.auth.jws import SignedToken, parse
from broker.auth.keys import (
    PUBLIC_KEY_ALGORITHMS,
    HmacKey,
    Key,
    ec_key_from_pem,
    load_public_keys,
    rsa_key_from_pem,
)
from broker.auth.options import TokenOptions
from broker.channels import compile_re2

__all__ = ["TokenVerifier"]

_REMEMBERED: Final = 8192
"""Genuine tokens remembered of each kind, so that clients who all come back at once cost no signature each."""
_LONGEST_REMEMBERED: Final = 2048
"""Characters; bounds, with the number above, what is remembered to some 40 MiB whatever the tokens are."""
_LONGEST_NAME: Final = 1024
"""Characters of an issuer or audience that a pattern looks at: `re` backtracks, and the text is not verified yet."""

T = TypeVar("T")


@final
class _Genuine(Struct, Generic[T], frozen=True):
    """A token whose signature holds, to be relied on until `until` (Unix seconds). Its own times are another matter."""

    registered: Registered
    claims: T
    until: float


@final
class TokenVerifier:
    """The keys and rules of one set of options. A reload makes a new one."""

    def __init__(
        self,
        options: TokenOptions,
        *,
        wall_clock: Callable[[], float],
        skip_signature: bool = False,
        fetch: Fetch = fetch_key_set,
    ) -> None:
        """Read the keys.

        Args:
            wall_clock: Unix seconds.
            skip_signature: `client.insecure_skip_token_signature_verify`. INSECURE.
            fetch: how key sets are fetched.

        Raises:
            ValueError: a key, a pattern or the address of key sets is wrong. The text begins with the option's name.
        """
        self._options = options
        self._wall_clock = wall_clock
        self._skip_signature = skip_signature
        with _of_option("issuer_regex"):
            self._issuer = _pattern(options.issuer, options.issuer_regex)
        with _of_option("audience_regex"):
            self._audience = _pattern(options.audience, options.audience_regex)
        self._endpoint: Endpoint | None = None
        self._static: list[tuple[Key, float]] = []
        if options.jwks_public_endpoint:
            with _of_option("jwks_public_endpoint"):
                self._endpoint = Endpoint(
                    options.jwks_public_endpoint,
                    (options.issuer_regex, options.audience_regex),
                    check=not options.insecure_skip_jwks_endpoint_safety_check,
                )
            load_public_keys()
        else:
            self._static = _static_keys(options)
        self._key_sets = KeySets(fetch)
        self._connections: dict[str, _Genuine[ConnectToken]] = {}
        self._subscriptions: dict[str, _Genuine[SubscriptionToken]] = {}

    async def verify_connection(self, token: str) -> ConnectToken:
        """Give the claims of a connection token. Waits only where a key set has to be fetched.

        Raises:
            TokenInvalid: forged, malformed, or not for this server or purpose.
            TokenExpired: genuine, but not now.
            KeysUnavailable: nobody can tell at the moment.
        """
        genuine = await self._genuine(token, self._connections, decode_connection)
        if genuine.registered.channel:
            raise TokenInvalid("a subscription token where a connection token belongs")
        self._check_time(genuine.registered)
        return genuine.claims

    async def verify_subscription(self, token: str) -> SubscriptionToken:
        """Give the claims of a subscription token; the caller compares user, channel and client.

        Raises:
            TokenInvalid: as for connections.
            TokenExpired: as for connections.
            KeysUnavailable: as for connections.
        """
        genuine = await self._genuine(token, self._subscriptions, decode_subscription)
        self._check_time(genuine.registered)
        if not genuine.registered.channel:
            raise TokenInvalid("no channel")
        return genuine.claims

    async def _genuine(
        self,
        token: str,
        remembered: dict[str, _Genuine[T]],
        decode: Callable[[bytes, str], tuple[Registered, Callable[[], T]]],
    ) -> _Genuine[T]:
        known = remembered.get(token)
        if known is not None and self._wall_clock() <= known.until:
            return known
        parts = parse(token)
        registered, make_claims = decode(parts.payload, self._options.user_id_claim)
        groups = self._match_patterns(registered)
        until = math.inf if self._skip_signature else await self._check_signature(parts, groups)
        self._check_names(registered)
        genuine = _Genuine(registered, make_claims(), until)
        if len(token) <= _LONGEST_REMEMBERED:
            if len(remembered) >= _REMEMBERED:
                remembered.clear()
            remembered[token] = genuine
        return genuine

    def _match_patterns(self, registered: Registered) -> dict[str, str]:
        """Match issuer and audience; returns what their named groups hold."""
        groups: dict[str, str] = {}
        for option, pattern, names in (
            ("issuer", self._issuer, (registered.issuer,)),
            ("audience", self._audience, registered.audience),
        ):
            if pattern is None:
                continue
            for name in names:
                found = pattern.search(name) if len(name) <= _LONGEST_NAME else None
                if found is not None:
                    groups.update((group, text) for group, text in found.groupdict().items() if text is not None)
                    break
            else:
                raise TokenInvalid(f"{option} does not match")
        return groups

    async def _check_signature(self, token: SignedToken, groups: dict[str, str]) -> float:
        """Returns until when (Unix seconds) the key that made the signature may be relied on."""
        if self._endpoint is None:
            now = self._wall_clock()
            for key, until in self._static:
                if now <= until and key.verify(token.algorithm, token.signed, token.signature):
                    return until
            raise TokenInvalid("bad signature")
        if not token.key_id or token.algorithm not in PUBLIC_KEY_ALGORITHMS:
            raise TokenInvalid("nothing that a key set could verify")
        public_key, seconds = await self._key_sets.key(self._endpoint.resolve(groups), token.key_id)
        if not public_key.verify(token.algorithm, token.signed, token.signature):
            raise TokenInvalid("bad signature")
        return self._wall_clock() + seconds

    def _check_names(self, registered: Registered) -> None:
        options = self._options
        if options.audience and options.audience not in registered.audience:
            raise TokenInvalid("made for another audience")
        if options.issuer and options.issuer != registered.issuer:
            raise TokenInvalid("made by another issuer")

    def _check_time(self, registered: Registered) -> None:
        now = self._wall_clock()
        if registered.exp is not None and now >= registered.exp:
            raise TokenExpired("expired")
        if registered.nbf is not None and now < registered.nbf:
            raise TokenExpired("not valid yet")


def _static_keys(options: TokenOptions) -> list[tuple[Key, float]]:
    """The configured keys, each with the last Unix second at which it counts."""
    keys: list[tuple[Key, float]] = []
    if options.hmac_secret_key:
        keys.append((HmacKey(options.hmac_secret_key.reveal().encode()), math.inf))
    if options.hmac_previous_secret_key:
        until = options.hmac_previous_secret_key_valid_until or math.inf
        keys.append((HmacKey(options.hmac_previous_secret_key.reveal().encode()), until))
    if options.rsa_public_key:
        with _of_option("rsa_public_key"):
            keys.append((rsa_key_from_pem(options.rsa_public_key), math.inf))
    if options.ecdsa_public_key:
        with _of_option("ecdsa_public_key"):
            keys.append((ec_key_from_pem(options.ecdsa_public_key), math.inf))
    return keys


def _pattern(exact: str, pattern: str) -> re.Pattern[str] | None:
    if not pattern:
        return None
    if exact:
        raise ValueError("cannot be used together with the exact text")
    return compile_re2(pattern)


@contextmanager
def _of_option(name: str) -> Iterator[None]:
    """Put the option's name before what is wrong with it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
