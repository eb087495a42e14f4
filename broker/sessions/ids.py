"""Random ids of clients and sessions."""

from __future__ import annotations

import os
from collections.abc import Iterator

__all__ = ["random_id"]

_AT_ONCE = 256
"""Ids made of one read: to ask the kernel costs more than to write an id."""


def _ids() -> Iterator[str]:
    while True:
        digits = os.urandom(16 * _AT_ONCE).hex()
        for at in range(0, len(digits), 32):
            variant = "89ab"[int(digits[at + 16], 16) & 3]
            yield (
                f"{digits[at : at + 8]}-{digits[at + 8 : at + 12]}-4{digits[at + 13 : at + 16]}"
                f"-{variant}{digits[at + 17 : at + 20]}-{digits[at + 20 : at + 32]}"
            )


_next = _ids().__next__


def random_id() -> str:
    """A random UUID (RFC 9562 §5.4), as `uuid.uuid4` writes it."""
    return _next()


def _begin_anew() -> None:
    global _next
    _next = _ids().__next__


os.register_at_fork(after_in_child=_begin_anew)  # a child must not give the ids of its parent
