"""Which web pages may use the server from a browser. Facts: client protocol §1.3, server API §7.1."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from broker.glob import compile_glob
from broker.http1 import Head

__all__ = ["Headers", "Origins"]

Headers = list[tuple[str, str]]


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

    def cors(self, head: Head) -> Headers:
        """Headers that let the page which asks read the answer, if it may. None for who is no page."""
        origin = head.headers.get(b"origin")
        if origin is None or not self.allow(origin):
            return []
        allowed = [
            ("Access-Control-Allow-Origin", origin.decode("latin-1")),
            ("Access-Control-Allow-Credentials", "true"),
            ("Vary", "Origin"),
        ]
        if asked := head.headers.get(b"access-control-request-headers"):
            allowed.append(("Access-Control-Allow-Headers", asked.decode("latin-1")))
        return allowed
