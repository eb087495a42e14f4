"""Clients of the official SDKs that follow channels while a cluster has bad days, and what judges them (C1, C2).

Every client has an entrance of its own to the balancer, so it is known on which node it is. Every publication has an
id, and is tried on one node after another with that id as its idempotency key, until one of them acknowledges it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, final

import trio

from tests.e2e.balancer import Balancer, Direct, Entrance
from tests.e2e.daemon import Daemon
from tests.e2e.sdk import Sdk
from tests.e2e.tokens import token
from tests.faults.checkers import Checker, Place, PresenceChecker, View
from tests.support.patience import PATIENCE

__all__ = ["ROOM", "Crowd", "Follower"]

ROOM: dict[str, Any] = {
    "name": "room",
    "presence": True,
    "history_size": 5000,
    "history_ttl": "300s",
    "force_recovery": True,
    "allow_subscribe_for_client": True,
}
"""The namespace of its channels."""


@final
class Follower:
    """One client in one channel. `gone` holds the goodbyes it was told: when, and with which code."""

    def __init__(self, crowd: Crowd, entrance: Entrance | Direct, channel: str) -> None:
        self._crowd = crowd
        self.entrance = entrance
        self.channel = channel
        self.view = View(crowd.checker, channel)
        self.id = ""
        self.subscribed = 0
        self.lost = 0
        self.goodbyes: list[tuple[float, int]] = []

    def take(self, event: dict[str, Any]) -> None:
        """Take in what happens to it."""
        now = trio.current_time()
        match event["event"]:
            case "connected":
                self.id = event["client_id"]
            case "connecting" | "disconnected":
                self.goodbyes.append((now, event.get("code", 0)))
                self._crowd.presence[self.channel].leaving(self.id, now)
                self._crowd.presence[self.channel].gone(self.id, now, node_died=True)
            case "subscribing" | "unsubscribed":
                self.view.ended()
            case "subscribed":
                self.subscribed += 1
                if event["was_recovering"] and not event["recovered"]:
                    self.lost += 1
                position = event["position"]
                self.view.subscribed({"recovered": event["recovered"], **position})
                self._crowd.presence[self.channel].came(self.id, now)
            case "publication":
                self.view.pushed(event["offset"], event["data"]["id"])
        self._crowd.moved()

    @property
    def up_to_date(self) -> bool:
        place = self.view.place
        top = self._crowd.tops[self.channel]
        return self.view.live and place is not None and place == top


@final
class Crowd:
    """All followers, the publisher, and who looks at presence.

    Args:
        ttl: seconds that presence of the dead may stay.
        tokens: whether clients have one; else a backend has to know them.
        once: whether a publication that is tried again has one place, whatever happened to its server.
    """

    def __init__(
        self,
        balancer: Balancer | Direct,
        channels: Sequence[str],
        *,
        ttl: float,
        tokens: bool = True,
        once: bool = True,
    ) -> None:
        self.balancer = balancer
        self.channels = channels
        self._tokens = tokens
        self.followers: list[Follower] = []
        self.checker = Checker(once=once)
        self.presence = {channel: PresenceChecker(ttl, margin=2.0) for channel in channels}
        self.tops: dict[str, Place] = {}
        self.acknowledged = 0
        self.load = trio.CancelScope()
        self._ids = itertools.count(1)
        self._news = trio.Event()

    def moved(self) -> None:
        """Somebody got something."""
        self._news.set()
        self._news = trio.Event()

    async def gather(self, sdk: Sdk, count: int) -> None:
        """Let `count` clients of `sdk` in, one after another, channel by channel and node by node."""
        for _ in range(count):
            number = len(self.followers)
            entrance = await self.balancer.open()
            channel = self.channels[number // len(self.balancer.ports) % len(self.channels)]
            follower = Follower(self, entrance, channel)
            self.followers.append(follower)
            options = {"token": token(str(number))} if self._tokens else {}
            client = await sdk.client(entrance.websocket, f"c{number}", **options)
            client.follow(follower.take)
            await client.start_connecting()
            await client.start_subscribing(channel)
        await self.until(lambda: all(follower.view.live for follower in self.followers))

    def on(self, daemon: Daemon) -> list[Follower]:
        """Who is on this node."""
        return [follower for follower in self.followers if follower.entrance.where == daemon.outside]

    def unknown(self, daemon: Daemon) -> None:
        """From here on nobody can say whether those on this node are seen."""
        for follower in self.on(daemon):
            self.presence[follower.channel].leaving(follower.id, trio.current_time())

    # ---- load -----------------------------------------------------------------------------------------------------

    async def publish(self, daemons: Sequence[Daemon], pause: float) -> None:
        """Publish to the channels in turn, over the nodes in turn, until `load` is cancelled."""
        with self.load:
            for number in itertools.count():
                await self.publish_one(daemons, self.channels[number % len(self.channels)])
                await trio.sleep(pause)

    async def publish_one(self, daemons: Sequence[Daemon], channel: str) -> None:
        """One publication; whoever does not acknowledge it is passed over."""
        number = next(self._ids)
        id = f"p{number}"
        self.checker.attempted(channel, id)
        with trio.fail_after(PATIENCE):
            for turn in itertools.count(number):
                daemon = daemons[turn % len(daemons)]
                result = await _published(daemon, channel, id)
                if result is not None:
                    break
                await trio.sleep(0.05)
        place = Place(result["epoch"], result["offset"])
        self.checker.acknowledged(channel, id, place)
        top = self.tops.get(channel)
        if top is None or top.epoch != place.epoch or top.offset < place.offset:
            self.tops[channel] = place
        self.acknowledged += 1
        self.moved()

    async def look(self, daemons: Sequence[Daemon], pause: float) -> None:
        """Ask who is there, channel by channel, of the nodes in turn, until cancelled."""
        for number in itertools.count():
            channel = self.channels[number % len(self.channels)]
            asked = trio.current_time()
            with trio.move_on_after(3):
                answer = await _asked(daemons[number % len(daemons)], channel)
                if answer is not None:
                    self.presence[channel].sampled(answer, asked=asked, answered=trio.current_time())
                    self.moved()
            await trio.sleep(pause)

    async def seen(self) -> None:
        """Until `look` has looked at every channel."""
        await self.until(lambda: all(presence.samples for presence in self.presence.values()))

    # ---- the verdict ----------------------------------------------------------------------------------------------

    async def until(self, condition: Any) -> None:
        with trio.fail_after(PATIENCE):
            while not condition():
                await self._news.wait()

    async def settled(self, daemons: Sequence[Daemon]) -> None:
        """One more publication in each channel, and everybody has everything (C1 f)."""
        for channel in self.channels:
            await self.publish_one(daemons, channel)
        await self.until(lambda: all(follower.up_to_date for follower in self.followers))

    def judge(self) -> None:
        for follower in self.followers:
            follower.view.finish()
        self.checker.finish()
        for presence in self.presence.values():
            presence.finish()


async def _published(daemon: Daemon, channel: str, id: str) -> dict[str, Any] | None:
    body = {"channel": channel, "data": {"id": id}, "idempotency_key": id}
    with trio.move_on_after(3):
        try:
            answer = await daemon.post("/api/publish", body)
        except (OSError, ConnectionError):
            return None
        if answer.status == 200 and "result" in (reply := answer.json()):
            return dict(reply["result"])
    return None


async def _asked(daemon: Daemon, channel: str) -> list[str] | None:
    try:
        answer = await daemon.post("/api/presence", {"channel": channel})
    except (OSError, ConnectionError):
        return None
    if answer.status != 200 or "result" not in (reply := answer.json()):
        return None
    return list(reply["result"]["presence"])
