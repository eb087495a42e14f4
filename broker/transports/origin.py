"""Which web pages may use the server from a browser. Facts: client protocol §1.3, server API §7.1."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from broker.glob import compile_glob

__all__ = ["Origins"]


@final
class Origins:
    """The rule of `client.allowed_origins`: globs over whole origins, without regard to case.

    A client that sends no `Origin` is no browser and passes. With an empty list every origin is refused.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        """Compile the globs.

        Raises:
            ValueError: one of them is malformed.
        """
        patterns = list(allowed)
        self._all = "*" in patterns
        self._patterns = [compile_glob(pattern.lower()) for pattern in patterns]

    def allow(self, origin: bytes | None) -> bool:
        if origin is None or self._all:
            return True
        text = origin.decode("latin-1").lower()
        return any(pattern.fullmatch(text) is not None for pattern in self._patterns)
