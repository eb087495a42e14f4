"""Subscribers without a connection: what the hub sends them, and what it asks of them, is noted."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, final

import trio

from broker.hub import Channel, ControlCommand, DeltaMode, GroupKey, Outbox, Subscription, TrySend
from broker.protocol import JSON, Filter, StreamPosition, codes
from broker.protocol.wire import FrameWire, Wire

__all__ = ["JSON_WIRE", "Listener", "payloads"]

JSON_WIRE = FrameWire(JSON)


@final
class Listener:
    """A `Subscriber`, and the `Sink` and `OutboxOwner` of its own outbox. `sent` is what left.

    `on_send` is called with every write before it counts; it may raise, or change what is around.
    """

    def __init__(self, client_id: str = "", *, user: str = "", wire: Wire = JSON_WIRE) -> None:
        self.user = user
        self.client_id = client_id
        self.session_id = ""
        self.wire = wire
        self.sent: list[bytes] = []
        self.lost_in: list[str] = []
        self.ended: list[codes.Disconnect] = []
        self.commands: list[ControlCommand] = []
        self.channel: Channel | None = None
        self.sub: Subscription | None = None
        self.on_send: Callable[[bytes], None] | None = None
        self.try_send: TrySend | None = self._send
        self.outbox = Outbox(self, self, limit=1 << 20, write_timeout=1.0)

    # ---- in a channel -----------------------------------------------------------------------------------------------

    def prepare(
        self,
        channel: Channel,
        *,
        positioned: bool = False,
        delta: DeltaMode = DeltaMode.OFF,
        join_leave: bool = False,
        filter: Filter | None = None,
    ) -> Listener:
        """Begin to collect."""
        self.channel = channel
        self.sub = Subscription(self, GroupKey(self.wire, delta, join_leave, filter), positioned=positioned)
        channel.collect(self.sub)
        return self

    def go_live(self, position: StreamPosition | None = None) -> Listener:
        assert self.channel is not None
        assert self.sub is not None
        self.channel.go_live(self.sub, position)
        return self

    def leave(self) -> None:
        assert self.channel is not None
        assert self.sub is not None
        self.channel.remove(self.sub)
        self.sub = None

    # ---- what it was told -------------------------------------------------------------------------------------------

    @property
    def pushes(self) -> list[dict[str, Any]]:
        return [json.loads(line)["push"] for payload in payloads(b"".join(self.sent)) for line in payload.split(b"\n")]

    @property
    def offsets(self) -> list[int]:
        return [push["pub"].get("offset", 0) for push in self.pushes if "pub" in push]

    @property
    def data(self) -> list[Any]:
        return [push["pub"]["data"] for push in self.pushes if "pub" in push]

    # ---- a Subscriber -----------------------------------------------------------------------------------------------

    def disconnect(self, why: codes.Disconnect) -> None:
        self.ended.append(why)
        if self.sub is not None:
            self.leave()

    def lost(self, channel: str) -> None:
        self.lost_in.append(channel)
        self.leave()

    def control(self, command: ControlCommand) -> None:
        self.commands.append(command)

    # ---- a Sink and an OutboxOwner ----------------------------------------------------------------------------------

    def _send(self, data: bytes | memoryview) -> int:
        data = bytes(data)
        if self.on_send is not None:
            self.on_send(data)
        self.sent.append(data)
        return len(data)

    async def wait_writable(self) -> None:
        await trio.sleep_forever()

    async def send_all(self, data: bytes) -> None:
        raise AssertionError("sent to by try_send")

    def write_failed(self, why: codes.Disconnect) -> None:
        self.disconnect(why)

    def spawn(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        raise AssertionError("nothing waits here")


def payloads(data: bytes) -> list[bytes]:
    """The payloads of unmasked frames, one after another."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        size, at = data[at + 1], at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size, at = int.from_bytes(data[at : at + width], "big"), at + width
        found.append(data[at : at + size])
        at += size
    return found
