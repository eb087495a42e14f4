"""Connection tokens. The load shares no code with a server, so it signs them itself (HS256, no expiry)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

__all__ = ["make_token"]


def make_token(user: str, secret: str) -> str:
    parts = ({"typ": "JWT", "alg": "HS256"}, {"sub": user})
    signed = b".".join(_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return (signed + b"." + _base64url(hmac.digest(secret.encode(), signed, hashlib.sha256))).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
