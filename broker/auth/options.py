"""What the token verifier can be told (server API §3.1)."""

from __future__ import annotations

from typing import final

import attrs

from broker.values import Secret


@attrs.frozen(kw_only=True)
class TokenOptions:
    """Keys and claim rules of connection tokens: `client.token.*`.

    With `jwks_public_endpoint` the static keys are not used at all. An algorithm without its key is refused.
    """

    hmac_secret_key: Secret = Secret()
    hmac_previous_secret_key: Secret = Secret()
    hmac_previous_secret_key_valid_until: int = 0
    """Unix seconds until which the previous key is taken; 0 is for ever."""
    rsa_public_key: str = ""
    """The PEM text itself (a PKIX public key or an X.509 certificate), unlike the TLS fields never a path."""
    ecdsa_public_key: str = ""
    jwks_public_endpoint: str = ""
    """A URL, which may hold `{{name}}` for named groups of `issuer_regex` and `audience_regex`."""
    audience: str = ""
    audience_regex: str = ""
    issuer: str = ""
    issuer_regex: str = ""
    user_id_claim: str = ""
    """The claim that names the user; empty means `sub`."""
    insecure_skip_jwks_endpoint_safety_check: bool = False


@final
@attrs.frozen(kw_only=True)
class SubscriptionTokenOptions(TokenOptions):
    """Keys of subscription tokens, where they are not those of connection tokens: `client.subscription_token.*`."""

    enabled: bool = False
