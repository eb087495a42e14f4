"""Tokens as an application's backend makes them: HS256, written out here so that no code of the broker is trusted."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

SECRET = "secret of the tests"


def token(user: str | None = None, *, secret: str = SECRET, **claims: Any) -> str:
    """A JSON Web Token for `user`, or an anonymous one, with any further claims."""
    if user is not None:
        claims["sub"] = user
    head = ".".join(_part(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return head + "." + _part(hmac.digest(secret.encode(), head.encode(), hashlib.sha256))


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
