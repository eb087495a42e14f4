"""What a codec does. A *unit* is one encoded message of the server, a Reply, without delimiter.

Facts: client protocol §1.1, §1.9, §2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from broker.protocol.codes import Disconnect, Error, Unsubscribe
from broker.protocol.messages import (
    ClientInfo,
    Command,
    ConnectResult,
    Publication,
    StreamPosition,
    SubscribeResult,
)

__all__ = ["Codec", "MalformedFrame", "NotJson"]


class MalformedFrame(Exception):
    """A frame that holds no commands, or something that is not one."""


class NotJson(Exception):
    """A payload is not one JSON text, so JSON clients cannot be told."""


class Codec(Protocol):
    """One of the two encodings of the client protocol. Stateless."""

    @property
    def name(self) -> str: ...

    @property
    def binary(self) -> bool: ...

    @property
    def ping(self) -> bytes:
        """The unit of a ping."""
        ...

    def join(self, units: Sequence[bytes]) -> bytes:
        """Several units as one frame's payload."""
        ...

    def commands(self, frame: bytes) -> Iterator[Command]:
        """The commands of a frame, in order, each decoded when it is asked for; the only one of a frame at once.

        Raises:
            MalformedFrame: at the first one that cannot be decoded; those before it have been given.
        """
        ...

    def error(self, id: int, error: Error) -> bytes: ...

    def connect(self, id: int, result: ConnectResult) -> bytes: ...

    def subscribe(self, id: int, result: SubscribeResult) -> bytes: ...

    def unsubscribe(self, id: int) -> bytes: ...

    def publish(self, id: int) -> bytes: ...

    def presence(self, id: int, clients: dict[str, ClientInfo]) -> bytes: ...

    def presence_stats(self, id: int, clients: int, users: int) -> bytes: ...

    def history(self, id: int, publications: Sequence[Publication], top: StreamPosition) -> bytes: ...

    def rpc(self, id: int, data: bytes) -> bytes: ...

    def refresh(self, id: int, expires: bool, ttl: int) -> bytes: ...

    def sub_refresh(self, id: int, expires: bool, ttl: int) -> bytes: ...

    def push_publication(self, channel: str, pub: Publication, *, escaped: bool = False, epoch: str = "") -> bytes:
        """A publication as a push. With `escaped`, JSON carries the payload as a string (delta, §6.3).

        Raises:
            NotJson: JSON cannot carry this payload.
        """
        ...

    def push_join(self, channel: str, info: ClientInfo) -> bytes: ...

    def push_leave(self, channel: str, info: ClientInfo) -> bytes: ...

    def push_unsubscribe(self, channel: str, why: Unsubscribe) -> bytes: ...

    def push_subscribe(self, channel: str, result: SubscribeResult) -> bytes: ...

    def push_refresh(self, expires: bool, ttl: int) -> bytes: ...

    def push_disconnect(self, why: Disconnect) -> bytes: ...
