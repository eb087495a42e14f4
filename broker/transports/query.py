"""What clients that can send nothing but an address put into it. Facts: client protocol §5.2, §5.3."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

__all__ = ["connect_parameter"]

_NAME = "cf_connect="


def connect_parameter(query: str) -> bytes:
    """The value of `cf_connect`; empty if there is none."""
    for part in query.split("&"):
        if part.startswith(_NAME):
            return unquote_to_bytes(part[len(_NAME) :].replace("+", " "))
    return b""
