"""Clients on responses without an end: those that only listen, and those that speak by requests of their own.

Facts: client protocol §4.2, §5.2, §5.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Final, Protocol, final

from broker.hub import EngineUnavailable
from broker.protocol import ConnectRequest, MalformedFrame, NotJson, codes, emulated_frame, read_connect
from broker.sessions import connect
from broker.sessions.client import Status, Waiting
from broker.sessions.context import Peer
from broker.sessions.options import ClientOptions
from broker.sessions.session import Session

__all__ = ["ConnectFailure", "EmulatedSession", "HearingPeer", "OneWaySession"]

ConnectFailure = codes.Error | codes.Disconnect

_DISCONNECTS: Final[Mapping[codes.Error, codes.Disconnect]] = {
    codes.EXPIRED: codes.CONNECTION_EXPIRED,
    codes.TOKEN_EXPIRED: codes.CONNECTION_EXPIRED,
    codes.TOO_MANY_REQUESTS: codes.FLOOD,
    codes.PERMISSION_DENIED: codes.ANONYMOUS_DENIED,
}


class HearingPeer(Peer, Protocol):
    """A connection that gets its client's commands from elsewhere."""

    def take(self, frame: bytes) -> None:
        """Have `frame` handled, after those that came before. Synchronous; never raises."""


@final
class EmulatedSession(Session):
    """A session whose client hears one response and speaks by requests, which any node may get."""

    __slots__ = ()
    emulated = True
    peer: HearingPeer

    def hear(self, data: bytes) -> None:
        try:
            frame = emulated_frame(data, binary=self.wire.codec.binary)
        except MalformedFrame:
            return  # as in Centrifugo: whoever sent it may not be this client
        self.peer.take(frame)


@final
class OneWaySession(Session):
    """A session that gets pushes and answers nothing: its first frame is a connect request, the others are nothing."""

    __slots__ = ()
    one_way = True

    def handle(self, frame: bytes) -> Waiting | None:
        if self.status is not Status.NEW:
            return None
        counters = self.context.node.counters
        counters.received_from[self.peer.transport].add(frame)
        try:
            request = read_connect(frame)
        except MalformedFrame:
            self.disconnect(codes.BAD_PROTOCOL)
            return None
        return self.begin(request)

    async def begin(self, request: ConnectRequest) -> None:
        """Connect, or disconnect for the reason why not."""
        failure = await self.try_connect(request)
        if failure is not None:
            self.disconnect(disconnect_for(self.context.rules.client, failure))

    async def try_connect(self, request: ConnectRequest) -> ConnectFailure | None:
        """Connect. Returns why not, and then the session is still to be ended."""
        started = perf_counter()
        failure: ConnectFailure | None = None
        try:
            waiting = connect.connect(self, 0, request)
            if waiting is not None:
                await waiting
        except codes.ClientError as refused:
            failure = refused.error
        except codes.Disconnected as end:
            failure = end.disconnect
        except EngineUnavailable:
            failure = codes.INTERNAL
        except NotJson:
            failure = codes.INAPPROPRIATE_PROTOCOL
        counters = self.context.node.counters
        counters.commands["connect"].add(perf_counter() - started)
        if isinstance(failure, codes.Error):
            counters.reply_errors["connect", failure.code] += 1
        return failure


def disconnect_for(options: ClientOptions, failure: ConnectFailure) -> codes.Disconnect:
    """The disconnect that tells a client which gets no replies why its connect failed."""
    if isinstance(failure, codes.Disconnect):
        return failure
    configured = options.connect_code_to_unidirectional_disconnect
    if configured.enabled:
        for each in configured.transforms:
            if each.code == failure.code:
                return codes.Disconnect(each.to.code, each.to.reason)
    return _DISCONNECTS.get(failure, codes.SERVER_ERROR)
