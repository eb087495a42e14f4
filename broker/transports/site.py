"""What answers on one listener: a table of exact paths, and whatever is left for an ASGI application.

Facts: which endpoint is on which listener, https://centrifugal.dev/docs/server/configuration#endpoint-configuration.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, final

import attrs

from broker.http1 import Head, Request

__all__ = ["Route", "ServeApp", "Site", "Upgrade"]

ServeApp = Callable[[Any, Request], Coroutine[Any, Any, None]]
"""Answers one request of a connection, and ends the connection (`asgi.host`)."""


class Upgrade(Protocol):
    """An endpoint that takes a connection over."""

    def refusal(self, head: Head) -> bytes | None:
        """The response that refuses this request, or None if it is welcome."""

    def accept(self, connection: Any, head: Head) -> None:
        """Answer 101 and give the connection another machine."""


@final
@attrs.frozen
class Route:
    """One path: `handle` gets a whole request, with a body of at most `body_limit` bytes, and returns a response.

    `refuse` looks at the head alone: a response from it is all that a stranger gets, whose body is never read.
    """

    methods: frozenset[str]
    handle: Callable[[Request], Awaitable[bytes]]
    body_limit: int = 0
    refuse: Callable[[Head], bytes | None] | None = None


@final
@attrs.define
class Site:
    """`routes` and `upgrades` by path; `app` gets every other path, if there is one. `closing` is set when the
    server drains."""

    routes: dict[str, Route] = attrs.field(factory=dict)
    upgrades: dict[str, Upgrade] = attrs.field(factory=dict)
    app: ServeApp | None = None
    closing: bool = False
