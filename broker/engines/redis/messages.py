"""What travels through pub/sub, as Centrifugo writes it (server API §5.4). Quiet.

A bare publication has no position; `__p1:OFFSET:EPOCH__` and `__d1:OFFSET:EPOCH:SIZE:BASE:SIZE:` stand before one that
has, the latter with its predecessor; `__j__` and `__l__` before who joined or left.
"""

from __future__ import annotations

from typing import Final, final

from broker.hub import Deliver, Room
from broker.protocol import Publication
from broker.protocol.stored import unpack_info, unpack_publication

__all__ = ["JOIN", "LEAVE", "Decoder"]

JOIN: Final = b"__j__"
LEAVE: Final = b"__l__"


@final
class Decoder:
    """Hands messages to whom they are for."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._epoch = ""
        self._epoch_bytes = b""

    def take(self, channel: str, data: bytes) -> Room | None:
        """One message of a channel. Returns what to wait for before the next one, if anything.

        Raises:
            ValueError: it is none that we know.
        """
        if not data.startswith(b"__"):
            return self._deliver.publication(channel, unpack_publication(data), "", None)
        head = data[:5]
        if head == b"__p1:":
            stop = data.index(b"__", 5)
            offset, _, epoch = data[5:stop].partition(b":")
            return self._publication(channel, data[stop + 2 :], offset, epoch, None)
        if head == b"__d1:":
            offset, epoch, size, rest = data[5:].split(b":", 3)
            base, rest = _cut(rest, size)
            size, _, rest = rest.partition(b":")
            pub, _ = _cut(rest + b":", size)
            return self._publication(channel, pub, offset, epoch, unpack_publication(base) if base else None)
        if head == JOIN:
            self._deliver.join(channel, unpack_info(data[5:]))
        elif head == LEAVE:
            self._deliver.leave(channel, unpack_info(data[5:]))
        else:
            raise ValueError("an unknown kind of message")
        return None

    def _publication(
        self, channel: str, data: bytes, offset_text: bytes, epoch: bytes, base: Publication | None
    ) -> Room | None:
        pub = unpack_publication(data)
        offset = int(offset_text)
        if offset <= 0:
            raise ValueError("an offset that no stream has")
        pub.offset = offset
        if base is not None:
            base.offset = offset - 1
        if epoch != self._epoch_bytes:
            self._epoch, self._epoch_bytes = epoch.decode(), epoch
        return self._deliver.publication(channel, pub, self._epoch, base)


def _cut(data: bytes, size: bytes) -> tuple[bytes, bytes]:
    length = int(size)
    if not 0 <= length < len(data) or data[length : length + 1] != b":":
        raise ValueError("a message that is shorter than it says")
    return data[:length], data[length + 1 :]
