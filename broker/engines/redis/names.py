"""Names in Redis: keys and channels of pub/sub, as Centrifugo has them (server API §5.4). Quiet.

Whatever a client calls its channel, no two things share a name, and in a Cluster all keys of a channel share a slot.
Where Centrifugo's own form would break that, ours differs: `meta.…` and names with `}` in front.
"""

from __future__ import annotations

import functools
from typing import final

__all__ = ["Names", "shard_index", "slot_of"]


@final
class Names:
    """Names under one prefix. `cluster`: the channel is wrapped as a hash tag."""

    def __init__(self, prefix: str, *, cluster: bool) -> None:
        self._prefix = prefix.encode()
        self._cluster = cluster
        self.probe = self._prefix + b".probe."
        self.control = self._prefix + b".control"
        # two thousand channels at a time: a name costs as much to make as a publication to encode
        self.message = functools.lru_cache(2048)(functools.partial(self._name, b".client."))
        self.history = functools.lru_cache(2048)(self._history)

    def node(self, uid: str) -> bytes:
        """Where one node hears what is meant for it alone."""
        return b"%b.node.%b" % (self._prefix, uid.encode())

    def _name(self, purpose: bytes, channel: str) -> bytes:
        return b"%b%b%b" % (self._prefix, purpose, self._tagged(channel.encode()))

    def _tagged(self, channel: bytes) -> bytes:
        if not self._cluster:
            return channel
        if not channel or channel.startswith(b"}"):
            return b"{brace}%b." % channel  # `{}` is no tag; with a tag of its own, and an end that no other name has
        return b"{%b}" % channel

    def _history(self, channel: str) -> tuple[bytes, bytes]:
        """The keys of a channel's stream and of its position."""
        name = self._tagged(channel.encode())
        dot = b":" if name.startswith(b"meta.") else b"."  # else it would be where the position of another is
        return b"%b.stream%b%b" % (self._prefix, dot, name), b"%b.stream.meta.%b" % (self._prefix, name)

    def result(self, channel: str, key: str) -> bytes:
        """Where the result of a publication with an idempotency key is remembered."""
        if "." in key or "%" in key:  # the last dot parts channel and key
            key = key.replace("%", "%25").replace(".", "%2E")
        return b"%b.%b" % (self._name(b".result.", channel), key.encode())

    def presence(self, channel: str) -> tuple[bytes, bytes]:
        """Expiry of clients, and the clients."""
        return self._name(b".presence.expire.", channel), self._name(b".presence.data.", channel)

    def users(self, channel: str) -> tuple[bytes, bytes]:
        """Expiry of users, and how many clients each has."""
        return self._name(b".presence.user.expire.", channel), self._name(b".presence.user.clients.", channel)


_MASK = (1 << 64) - 1


def shard_index(channel: str, shards: int) -> int:
    """Which of several Redis holds a channel: jump consistent hash over FNV-1a, as Centrifugo chooses."""
    key = 0xCBF29CE484222325
    for byte in channel.encode():
        key = (key ^ byte) * 0x100000001B3 & _MASK
    chosen, jump = -1, 0
    while jump < shards:
        chosen = jump
        key = (key * 2862933555777941757 + 1) & _MASK
        jump = int((chosen + 1) * ((1 << 31) / ((key >> 33) + 1)))
    return chosen


def _crc16_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021) & 0xFFFF if crc & 0x8000 else crc << 1
        table.append(crc)
    return table


_CRC16 = _crc16_table()


def slot_of(key: bytes) -> int:
    """The slot of a key in a Cluster. https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/"""
    start = key.find(b"{")
    if start >= 0:
        stop = key.find(b"}", start + 1)
        if stop > start + 1:
            key = key[start + 1 : stop]
    crc = 0
    for byte in key:
        crc = (crc << 8 & 0xFFFF) ^ _CRC16[crc >> 8 ^ byte]
    return crc % 16384
