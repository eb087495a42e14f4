"""JSON for peers that only listen: pushes stand bare, and what answers a connect is a push as well.

Facts: client protocol §1.1, §5.3.
"""

from __future__ import annotations

from typing import Final, final

import msgspec

from broker.protocol.codec import MalformedFrame
from broker.protocol.codes import Disconnect, Unsubscribe
from broker.protocol.json_codec import JsonCodec
from broker.protocol.json_text import BrokenJson, read_json
from broker.protocol.messages import ClientInfo, ConnectRequest, ConnectResult, Publication, SubscribeResult

__all__ = ["OneWayJsonCodec", "read_connect"]

_decode: Final = msgspec.json.Decoder(ConnectRequest | None).decode
_REPLY: Final = len(b'{"id":0,')
_PUSH: Final = len(b'{"push":')


def read_connect(text: bytes) -> ConnectRequest:
    """A connect request that stands alone; `null` is an empty one.

    Raises:
        MalformedFrame: it is none.
    """
    try:
        return read_json(text, _decode) or ConnectRequest()
    except BrokenJson:
        raise MalformedFrame from None


@final
class OneWayJsonCodec(JsonCodec):
    """Units are pushes. Replies are never asked for, but that of a connect."""

    __slots__ = ()

    def connect(self, id: int, result: ConnectResult) -> bytes:
        return b"{" + super().connect(0, result)[_REPLY:]

    def push_publication(self, channel: str, pub: Publication, *, escaped: bool = False, epoch: str = "") -> bytes:
        return super().push_publication(channel, pub, escaped=escaped, epoch=epoch)[_PUSH:-1]

    def push_join(self, channel: str, info: ClientInfo) -> bytes:
        return super().push_join(channel, info)[_PUSH:-1]

    def push_leave(self, channel: str, info: ClientInfo) -> bytes:
        return super().push_leave(channel, info)[_PUSH:-1]

    def push_unsubscribe(self, channel: str, why: Unsubscribe) -> bytes:
        return super().push_unsubscribe(channel, why)[_PUSH:-1]

    def push_subscribe(self, channel: str, result: SubscribeResult) -> bytes:
        return super().push_subscribe(channel, result)[_PUSH:-1]

    def push_refresh(self, expires: bool, ttl: int) -> bytes:
        return super().push_refresh(expires, ttl)[_PUSH:-1]

    def push_disconnect(self, why: Disconnect) -> bytes:
        return super().push_disconnect(why)[_PUSH:-1]
