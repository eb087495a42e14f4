"""What all sessions share: the node, and the rules that a reload replaces in one assignment."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol, final

import attrs

from broker.auth import TokenVerifier
from broker.channels import Channels
from broker.hooks import NO_BACKENDS, Backends, Notices
from broker.hooks.options import StateOptions
from broker.hub import Node, Outbox
from broker.protocol import codes
from broker.protocol.wire import Wire
from broker.sessions.options import ClientOptions, RpcOptions

__all__ = ["NO_HEADERS", "Context", "Peer", "Rules"]

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


@final
@attrs.frozen
class Rules:
    """Everything a SIGHUP can change for sessions. Built whole, then put into `Context.rules` at once."""

    client: ClientOptions
    channels: Channels
    rpc: RpcOptions
    connection_tokens: TokenVerifier
    subscription_tokens: TokenVerifier
    backends: Backends = NO_BACKENDS
    state: StateOptions = attrs.field(factory=StateOptions)


@final
@attrs.define
class Context:
    """One per server. `wall_clock` gives Unix seconds; `random` a number in [0, 1). `notices` comes when it runs."""

    node: Node
    rules: Rules
    version: str
    wall_clock: Callable[[], float]
    random: Callable[[], float]
    notices: Notices = attrs.field(init=False)

    def kept_headers(self, headers: Mapping[bytes, bytes]) -> Mapping[str, str]:
        """Of a client's request, the headers that some hook wants, for as long as the connection lives."""
        wanted = self.rules.backends.http_headers
        if not wanted:
            return NO_HEADERS
        found = {name: headers.get(name.encode()) for name in wanted}
        return {name: value.decode("latin-1") for name, value in found.items() if value is not None} or NO_HEADERS


class Peer(Protocol):
    """The connection that carries a session, as the session sees it."""

    @property
    def transport(self) -> str:
        """Its name in metrics and hooks: `websocket`, …"""
        ...

    @property
    def native_ping(self) -> bool:
        """Whether the client asked for pings of the transport itself instead of the protocol's."""
        ...

    @property
    def header_user(self) -> str | None:
        """The user id that a trusted header named, if the configuration reads one."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """What `Context.kept_headers` gave for its request."""
        ...

    @property
    def address(self) -> str:
        """Where the client is, as an IP address; empty if nobody knows."""
        ...

    @property
    def reading(self) -> bool:
        """False while a command waits in its own task: what the client sends meanwhile is not seen yet."""
        ...

    @property
    def wire(self) -> Wire: ...

    @property
    def outbox(self) -> Outbox: ...

    def welcome(self) -> None:
        """The connect has succeeded, and what answers it follows at once. Synchronous."""

    def close(self, why: codes.Disconnect) -> None:
        """Begin to close; synchronous. What waits in the outbox still leaves, unless the peer was too slow."""

    def crashed(self) -> None:
        """Called within an `except`, outside of the connection's own tasks: behind its wall all the same."""

    def hang_up(self) -> None:
        """Read no more; drop the connection without a code if the peer does not leave by itself within 5 s."""

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine at once, and go on with it in the connection's own task if it has to wait."""
