"""One seeded life of a server: clients, publishers and an engine that waits do what a seed says, in its order.

The same seed gives the same run: Trio's scheduler, the clock and every choice are taken from it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, final

import trio
import trio.testing

from tests.sim.checker import Checker, Place, View, Violation
from tests.support.peers import NO_PINGS, House, RawClient, open_house, options
from tests.support.slow_engine import Delays, Pace

__all__ = ["live"]

CHANNELS: Final = ("a", "b", "c")
KEPT: Final = 6
_COME_BACK: Final = 4000


def live(seed: int, *, plant: Callable[[House], None] | None = None) -> None:
    """Live once. `plant` may break the server, to see that it is found.

    Raises:
        Violation: a promise was broken.
    """
    with _deterministic(seed):
        trio.run(_Life(seed, plant).run, clock=trio.testing.MockClock(autojump_threshold=0))


@contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    """Trio's own hooks for its Hypothesis plug-in. Private: if they go, this fails loudly."""
    run = trio._core._run
    before, run._ALLOW_DETERMINISTIC_SCHEDULING = run._ALLOW_DETERMINISTIC_SCHEDULING, True
    run._r.seed(seed)
    try:
        yield
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = before


@final
class _Life:
    def __init__(self, seed: int, plant: Callable[[House], None] | None) -> None:
        self.rng = random.Random(seed)
        self.checker = Checker()
        self.plant = plant
        self.actors: list[_Actor] = []
        self.failing = self.rng.choice((0, 0, 15))
        self.counter = 0

    async def run(self) -> None:
        pace: Pace = Delays(self.rng, self.rng.choice((0.0, 0.01, 0.5)), failing=self.failing)
        channel = {
            "history_size": KEPT,
            "history_ttl": "1h",
            "force_recovery": True,
            "presence": True,
            "join_leave": self.rng.random() < 0.3,
            "force_push_join_leave": True,
        }
        settings = options(channel, client={**NO_PINGS, "presence_update_interval": "3s"})
        async with open_house(settings, seed=self.rng.randrange(1 << 30), pace=pace) as house:
            if self.plant is not None:
                self.plant(house)
            async with trio.open_nursery() as nursery:
                for _ in range(self.rng.randint(2, 5)):
                    actor = _Actor(self, house, random.Random(self.rng.random()))
                    self.actors.append(actor)
                    nursery.start_soon(actor.run, self.rng.randint(5, 25))
                for _ in range(self.rng.randint(1, 3)):
                    nursery.start_soon(self.backend, house, random.Random(self.rng.random()))
            if isinstance(pace, Delays):
                pace.failing = 0
            await self.settle(house)
            house.clients = [actor.client for actor in self.actors if actor.client is not None]
            if self.failing:  # what an engine refused to forget is not the hub's
                presence: Any = house.server.node._presence
                presence.inner._channels.clear()

    async def backend(self, house: House, rng: random.Random) -> None:
        """Publishes over the API, and sometimes interferes."""
        for _ in range(rng.randint(3, 15)):
            await trio.sleep(rng.choice((0, 0, 0.01, 0.3)))
            channel = rng.choice(CHANNELS)
            if rng.random() < 0.9:
                id = self.new_id()
                self.checker.attempted(channel, id)
                answer = await house.api("publish", channel=channel, data=id)
                if "result" in answer:
                    result = answer["result"]
                    self.checker.acknowledged(channel, id, Place(result["epoch"], result["offset"]))
            elif rng.random() < 0.7:
                await house.api("unsubscribe", user="", channel=channel)
            else:
                await house.api("disconnect", user="", disconnect={"code": _COME_BACK, "reason": "again"})

    def new_id(self) -> str:
        self.counter += 1
        return f"p{self.counter}"

    async def settle(self, house: House) -> None:
        """Everything is quiet: the client's view, the hub, presence and the engine must agree."""
        async with trio.open_nursery() as nursery:
            for actor in self.actors:
                nursery.start_soon(actor.listen, 15.0)
            await trio.sleep(15)
        node: Any = house.server.node
        for channel in CHANNELS:
            subscribed = {actor.id for actor in self.actors if actor.views[channel].live}
            for actor in self.actors:
                actor.views[channel].finish()
            local = node.registry.channels.get(channel)
            routed = [] if local is None else [sub for group in local.groups.values() for sub in group.members]
            routed += [] if local is None else list(local.joining)
            hub = {sub.subscriber.client_id for sub in routed}
            if hub != subscribed or len(hub) != len(routed):
                raise Violation(f"{channel}: clients {subscribed}, hub {hub}")
            if local is not None and (local.collecting or local.subscriptions != len(routed)):
                raise Violation(f"{channel}: somebody is still on the way in")
            present = set(node._presence.inner._channels.get(channel, {}))
            if subscribed - present or (present - subscribed and not self.failing):
                raise Violation(f"{channel}: clients {subscribed}, presence {present}")
        connected = {actor.id for actor in self.actors if actor.client is not None}
        if set(node.registry.clients) != connected:
            raise Violation(f"clients {connected}, registry {set(node.registry.clients)}")


@final
class _Actor:
    """A client that does what its random numbers say."""

    def __init__(self, life: _Life, house: House, rng: random.Random) -> None:
        self.life = life
        self.house = house
        self.rng = rng
        self.client: RawClient | None = None
        self.id = ""
        self.views = {channel: View(life.checker, channel) for channel in CHANNELS}

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            try:
                await self.step()
            except EOFError:
                self.closed()

    async def step(self) -> None:
        rng = self.rng
        if self.client is None:
            await self.connect()
            return
        view = self.views[rng.choice(CHANNELS)]
        match rng.randrange(10):
            case 0 | 1 | 2:
                if not view.live:
                    await self.subscribe(view)
            case 3:
                reply = await self.exchange(unsubscribe={"channel": view.channel})
                if "unsubscribe" in reply:
                    view.ended()
            case 4 | 5:
                id = self.life.new_id()
                self.life.checker.attempted(view.channel, id)
                await self.exchange(publish={"channel": view.channel, "data": id})
            case 6:
                if rng.random() < 0.4:
                    await self.client.leave()
                    self.closed()
            case _:
                await self.listen(rng.choice((0.001, 0.02, 1.0)))

    async def connect(self) -> None:
        self.client = await self.house.client()
        reply = await self.exchange(connect={})
        self.id = reply["connect"]["client"]

    async def subscribe(self, view: View) -> None:
        request: dict[str, Any] = {"channel": view.channel}
        if view.place is not None and self.rng.random() < 0.8:
            request |= {"recover": True, "offset": view.place.offset, "epoch": view.place.epoch}
        else:
            view.place = None
        reply = await self.exchange(subscribe=request)
        if "subscribe" in reply:
            view.subscribed(reply["subscribe"])
        elif reply["error"]["code"] not in (100, 105):
            raise Violation(str(reply))

    async def exchange(self, **command: Any) -> dict[str, Any]:
        """Send a command; what comes before its reply happened before it."""
        assert self.client is not None
        id = await self.client.command(**command)
        while True:
            unit = await self.client.next()
            if unit.get("id") == id:
                return unit
            self.take(unit)

    async def listen(self, seconds: float) -> None:
        try:
            with trio.move_on_after(seconds):
                while self.client is not None:
                    self.take(await self.client.next())
        except EOFError:
            self.closed()

    def take(self, unit: dict[str, Any]) -> None:
        push = unit["push"]
        view = self.views[push["channel"]]
        if "pub" in push:
            view.pushed(push["pub"])
        elif "unsubscribe" in push:
            if not view.live:
                raise Violation(f"{view.channel}: unsubscribed, but was not subscribed")
            view.ended()

    def closed(self) -> None:
        client, self.client = self.client, None
        for view in self.views.values():
            view.ended()
        if client is not None and client.closed is not None and client.closed[0] not in (_COME_BACK, 1006):
            raise Violation(f"closed with {client.closed}")
