"""Which payloads a channel takes: the option `publication_data_format` (server-side §1.8)."""

from __future__ import annotations

from broker.protocol import is_json

__all__ = ["acceptable"]


def acceptable(data: bytes, fmt: str, known_json: bool) -> bool:
    """Whether `data` may be published.

    Args:
        fmt: "" for anything that is not empty, `json`, `json_object`, or `binary` for anything at all.
        known_json: `data` was part of a JSON text already, so that it need not be checked again.
    """
    if fmt == "binary":
        return True
    if not data:
        return False
    if fmt == "json":
        return known_json or is_json(data)
    if fmt == "json_object":
        return data.lstrip(b" \t\n\r").startswith(b"{") and (known_json or is_json(data))
    return True
