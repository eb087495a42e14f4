"""What answers on one listener: a table of exact paths, and whatever is left for an ASGI application.

Facts: which endpoint is on which listener, https://centrifugal.dev/docs/server/configuration#endpoint-configuration.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, final

import attrs

from broker.http1 import Head, Request
from broker.transports.connection import Connection, Machine
from broker.transports.links import Link
from broker.transports.proxies import TrustedProxies

__all__ = ["Answer", "Begin", "Folder", "Route", "ServeApp", "Site", "Takeover", "Upgrade"]

ServeApp = Callable[[Connection, Request], Coroutine[Any, Any, None]]
"""Answers one request of a connection, and ends the connection (`asgi.host`)."""


class Upgrade(Protocol):
    """An endpoint that takes a connection over."""

    def refusal(self, head: Head) -> bytes | None:
        """The response that refuses this request, or None if it is welcome."""

    def accept(self, connection: Connection, head: Head) -> None:
        """Answer 101 and give the connection another machine."""


@final
@attrs.frozen
class Route:
    """One path: `handle` gets a whole request, with a body of at most `body_limit` bytes, and returns a response, or
    what has to be awaited for it.

    `refuse` looks at the head alone: a response from it is all that a stranger gets, whose body is never read.
    """

    methods: frozenset[str]
    handle: Callable[[Request], bytes | Awaitable[bytes]]
    body_limit: int = 0
    refuse: Callable[[Head], bytes | None] | None = None


@final
@attrs.frozen
class Takeover:
    """One path whose answer has no end yet: `accept` gets a whole request, as `Route.handle` does, and gives the
    connection another machine; or it returns a response, if there is nothing to take over."""

    methods: frozenset[str]
    accept: Callable[[Connection, Request], bytes | None]
    body_limit: int = 0
    refuse: Callable[[Head], bytes | None] | None = None


Answer = Route | Takeover


class Begin(Protocol):
    """Begins a connection whose link is no socket."""

    def __call__(self, link: Link, machine: Callable[[Connection], Machine], /) -> Connection: ...


class Folder(Protocol):
    """Everything below a path. `begin` is given to it when the doors open."""

    begin: Begin

    def find(self, head: Head) -> Answer | Upgrade | None:
        """Who answers this request; None if nobody does."""


@final
@attrs.define
class Site:
    """`routes` and `upgrades` by path, `folders` by the path they begin with; `app` gets every other path, if there is
    one. `proxies` may speak for others, if any may. `closing` is set when the server drains."""

    routes: dict[str, Answer] = attrs.field(factory=dict)
    upgrades: dict[str, Upgrade] = attrs.field(factory=dict)
    folders: dict[str, Folder] = attrs.field(factory=dict)
    app: ServeApp | None = None
    proxies: TrustedProxies | None = None
    closing: bool = False

    def find(self, head: Head) -> Answer | Upgrade | None:
        """Who answers this request; None if nobody does, but perhaps `app`."""
        path = head.path
        found = self.routes.get(path) or self.upgrades.get(path)
        if found is None and self.folders:
            for prefix, folder in self.folders.items():
                if path.startswith(prefix):
                    return folder.find(head)
        return found
