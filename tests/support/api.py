"""Answers and options that tests of the API have in common."""

from __future__ import annotations

import json
from typing import Any

from tests.support.peers import Answer, House, options

__all__ = ["ALL", "BAD", "INTERNAL", "KEPT", "NOT_FOUND", "OK", "UNAVAILABLE", "UNKNOWN", "UNRECOVERABLE", "post"]

BAD = {"error": {"code": 107, "message": "bad request"}}
UNKNOWN = {"error": {"code": 102, "message": "unknown channel"}}
UNAVAILABLE = {"error": {"code": 108, "message": "not available"}}
INTERNAL = {"error": {"code": 100, "message": "internal server error"}}
NOT_FOUND = {"error": {"code": 104, "message": "not found"}}
UNRECOVERABLE = {"error": {"code": 112, "message": "unrecoverable position"}}
OK: dict[str, Any] = {"result": {}}

KEPT = {"history_size": 5, "history_ttl": "60s", "history_meta_ttl": "300s"}
CHANNEL = {
    "namespaces": [
        {"name": "kept", **KEPT},
        {"name": "seen", "presence": True},
        {"name": "json", "publication_data_format": "json"},
        {"name": "object", "publication_data_format": "json_object"},
        {"name": "binary", "publication_data_format": "binary"},
    ]
}
ALL = options() | {"channel": CHANNEL}


async def post(house: House, path: str, body: object, **headers: str) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await house.http("POST", path, data, {name.replace("_", "-"): value for name, value in headers.items()})
