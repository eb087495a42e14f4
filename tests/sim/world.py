"""One seeded life of a server: clients, publishers and an engine that waits do what a seed says, in its order.

The same seed gives the same run: Trio's scheduler, the clock and every choice are taken from it.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, final

import trio
import trio.testing

from tests.faults.checkers import Checker, Place, Told, View, Violation
from tests.sim.invariants import check_server, members
from tests.sim.readers import READERS, PlainReader, Reader, payload
from tests.support.fleet import Bus, open_fleet
from tests.support.peers import NO_PINGS, House, RawClient, open_house, options
from tests.support.slow_engine import Delays, Wire

__all__ = ["live"]

CHANNELS: Final = ("a", "b", "c")
KEPT: Final = 6
_COME_BACK: Final = 4000
_QUEUE: Final = 4000
"""Bytes that may wait for a client that does not read."""
_LONGEST: Final = 900.0
"""Seconds of a life; those that work take two hundred."""
_QUIET: Final = 20.0
"""Seconds until everything that was lost has been noticed: a position check, a tick, the slowest of calls."""


def live(seed: int, *, plant: Callable[[House], None] | None = None, always: dict[str, Any] | None = None) -> list[str]:
    """Live once. `plant` may break the server, to see that it is found; `always` fixes what the seed would choose.

    Returns:
        what every client saw, in its order.

    Raises:
        Violation: a promise was broken.
    """
    life = _Life(seed, plant, always or {})
    with _deterministic(seed):
        trio.run(life.run_in_time, clock=trio.testing.MockClock(autojump_threshold=0))
    return life.trace


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
    """`eager`: the engine does not wait at all. Else `delay` is its slowest call in seconds, one of `failing` calls
    fails, and it may deliver up to `late` seconds later, over a wire that loses one of `losing`. There are so many
    `nodes`. The engine may be `forgetting` channels, whose next publication begins another epoch, and `cutting` nodes
    off, of which it tells them. Clients that are `slow` do not read all the time."""

    def __init__(self, seed: int, plant: Callable[[House], None] | None, always: dict[str, Any]) -> None:
        self.rng = random.Random(seed)
        self.checker = Checker()
        self.plant = plant
        self.actors: list[_Actor] = []
        self.trace: list[str] = []
        self.counter = 0
        chosen = {
            "eager": self.rng.random() < 0.2,
            "delay": self.rng.choice((0.0, 0.01, 0.5)),
            "failing": self.rng.choice((0, 0, 15)),
            "late": self.rng.choice((0.0, 0.0, 0.02, 0.4)),
            "losing": self.rng.choice((0, 0, 12)),
            "join_leave": self.rng.random() < 0.4,
            "nodes": self.rng.choice((1, 1, 2, 3)),
            "forgetting": self.rng.random() < 0.3,
            "cutting": self.rng.random() < 0.3,
            "slow": self.rng.random() < 0.3,
        } | always
        self.eager, self.delay, self.failing, self.late, self.losing, self.join_leave = list(chosen.values())[:6]
        self.nodes, self.forgetting, self.cutting, self.slow = list(chosen.values())[6:]
        if self.eager:
            self.failing = self.late = 0
        if not self.late:
            self.losing = 0
            self.cutting = False
        self.lossy = bool(self.late or self.losing or self.cutting or self.forgetting or self.nodes > 1)
        self.houses: list[House] = []

    @property
    def settings(self) -> dict[str, Any]:
        channel = {
            "history_size": KEPT,
            "history_ttl": "1h",
            "force_recovery": True,
            "presence": True,
            "join_leave": self.join_leave,
            "force_push_join_leave": True,
            "allowed_delta_types": ["fossil"],
            "delta_publish": True,
            "allow_tags_filter": True,
        }
        client = {"presence_update_interval": "3s", "channel_position_check_delay": "4s", "queue_max_size": _QUEUE}
        return options(channel, client={**NO_PINGS, **client})

    @asynccontextmanager
    async def servers(self, pace: Delays | None) -> AsyncIterator[list[House]]:
        """One or several, over one engine; at the end nothing of their clients may be left."""

        def wire() -> Wire | None:
            return Wire(random.Random(self.rng.random()), self.late, losing=self.losing) if self.late else None

        if self.nodes == 1:
            seed = self.rng.randrange(1 << 30)
            async with open_house(self.settings, seed=seed, pace=pace, wire=wire()) as house:
                yield [house]
            return
        losing, repeating = self.rng.choice(((0, 0), (8, 0), (0, 4)))
        most = self.rng.choice((0.0, 0.2))
        bus = Bus(random.Random(self.rng.random()), most=most, losing=losing, repeating=repeating)
        async with open_fleet(self.nodes, self.settings, bus=bus, pace=pace, wire=wire) as (_, houses):
            yield houses

    async def run_in_time(self) -> None:
        """Nobody waits for ever (S3)."""
        with trio.fail_after(_LONGEST):
            await self.run()

    async def run(self) -> None:
        pace = None if self.eager else Delays(self.rng, self.delay, failing=0)
        async with self.servers(pace) as houses:
            self.houses = houses
            if pace is not None:
                pace.failing = self.failing
            if self.plant is not None:
                self.plant(houses[0])
            async with trio.open_nursery() as nursery:
                for _ in range(self.rng.randint(2, 5)):
                    actor = _Actor(self, random.Random(self.rng.random()))
                    self.actors.append(actor)
                    nursery.start_soon(actor.run, self.rng.randint(5, 25))
                for _ in range(self.rng.randint(1, 3)):
                    nursery.start_soon(self.backend, random.Random(self.rng.random()))
            if pace is not None:
                pace.failing = 0
            await self.settle()
            for house in houses:
                house.clients = [actor.client for actor in self.actors if actor.client and actor.house is house]
            if self.failing:  # what an engine refused to forget is not the hub's
                houses[0].presence.clear()

    def check(self) -> None:
        for house in self.houses:
            check_server(house.server)

    @property
    def memory(self) -> Any:
        """The engine under everything else."""
        broker: Any = self.houses[0].server.node._broker
        while hasattr(broker, "inner"):
            broker = broker.inner
        return broker

    async def interfere(self, rng: random.Random) -> None:
        """What an engine elsewhere does to those who rely on it."""
        if self.forgetting and rng.random() < 0.5:
            self.memory._streams.pop(rng.choice(CHANNELS), None)  # what comes next has another epoch
        if self.cutting:
            broker: Any = rng.choice(self.houses).server.node._broker
            if not broker.wire.cut:
                broker.wire.cut = True
                await trio.sleep(rng.choice((0.1, 1.0, 3.0)))
                broker.wire.mend(sorted(broker.subscribed))

    async def backend(self, rng: random.Random) -> None:
        """Publishes over the API, and sometimes interferes."""
        for _ in range(rng.randint(3, 15)):
            await trio.sleep(rng.choice((0, 0, 0.01, 0.3)))
            channel = rng.choice(CHANNELS)
            house = rng.choice(self.houses)
            match rng.randrange(15):
                case 2:
                    await house.api("subscribe", user="", channel=channel)
                case 3 | 4:
                    await self.interfere(rng)
                case 0:
                    await house.api("unsubscribe", user="", channel=channel)
                case 1:
                    await house.api("disconnect", user="", disconnect={"code": _COME_BACK, "reason": "again"})
                case _:
                    id, tags = self.new_id(), {"t": rng.choice("01")}
                    self.checker.attempted(channel, id, tags)
                    answer = await house.api("publish", channel=channel, data=payload(id), tags=tags)
                    if "result" in answer:
                        result = answer["result"]
                        self.checker.acknowledged(channel, id, Place(result["epoch"], result["offset"]))
            self.check()

    def new_id(self) -> str:
        self.counter += 1
        return f"p{self.counter}"

    async def settle(self) -> None:
        """Everything is quiet: the client's view, the hubs, presence and the engine must agree."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, _QUIET)
            for actor in self.actors:
                nursery.start_soon(actor.listen, _QUIET)
        self.check()
        for channel in CHANNELS:
            subscribed = {actor.id for actor in self.actors if actor.views[channel].live}
            for actor in self.actors:
                actor.views[channel].finish()
            locals_ = [house.server.node.registry.channels.get(channel) for house in self.houses]
            routed = [sub for local in locals_ if local is not None for sub in members(local)]
            hub = {sub.subscriber.client_id for sub in routed}
            if hub != subscribed or len(hub) != len(routed):
                raise Violation(f"{channel}: clients {subscribed}, hub {hub}")
            if any(local is not None and local.collecting for local in locals_):
                raise Violation(f"{channel}: somebody is still on the way in")
            present = set(self.houses[0].presence.get(channel, {}))
            if subscribed - present or (present - subscribed and not self.failing):
                raise Violation(f"{channel}: clients {subscribed}, presence {present}")
            stream = self.memory._streams.get(channel)
            for actor in self.actors:
                view = actor.views[channel]
                if not view.live or view.place is None:
                    continue
                top = None if stream is None else Place(stream.epoch, stream.top)
                if view.place != top and (top is None or view.wanted is None or view.place.epoch != top.epoch):
                    raise Violation(f"{channel}: {actor.name} is at {view.place}, the engine at {top}")
        connected = {actor.id for actor in self.actors if actor.client is not None}
        registered = {id for house in self.houses for id in house.server.node.registry.clients}
        if registered != connected:
            raise Violation(f"clients {connected}, registry {registered}")
        self.checker.finish()


@final
class _Actor:
    """A client that does what its random numbers say."""

    def __init__(self, life: _Life, rng: random.Random) -> None:
        self.life = life
        self.house = life.houses[0]
        self.rng = rng
        self.slow = life.slow and rng.random() < 0.5
        self.client: RawClient | None = None
        self.id = ""
        self.name = f"client {len(life.actors)}"
        self.views = {channel: View(life.checker, channel) for channel in CHANNELS}
        self.readers: dict[str, Reader] = {}
        self.told: dict[str, Told] = {}

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            try:
                await self.step()
            except (EOFError, trio.BrokenResourceError):
                self.closed()
            self.life.check()

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
                await self.exchange(publish={"channel": view.channel, "data": self.data(id)})
            case 6 if not view.live:
                await self.subscribe(view, and_publish=True)
            case 6:
                if rng.random() < 0.4:
                    await self.client.leave()
                    self.closed()
            case 7 if self.slow:
                await trio.sleep(rng.choice((0.1, 0.9, 3.0)))  # reads nothing
            case _:
                await self.listen(rng.choice((0.001, 0.02, 1.0)))

    def data(self, id: str) -> Any:
        """The payload as this client sends it."""
        assert self.client is not None
        return json.dumps(payload(id)).encode() if self.client.protobuf else payload(id)

    async def connect(self) -> None:
        """To any node, with any codec."""
        self.house = self.rng.choice(self.life.houses)
        self.client = await self.house.client(protobuf=self.rng.random() < 0.4, lockstep=self.slow)
        reply = await self.exchange(connect={})
        self.id = reply["connect"]["client"]

    async def subscribe(self, view: View, *, and_publish: bool = False) -> None:
        """With `and_publish` both stand in one frame: the answer to the subscribe comes first of all."""
        recover = view.place is not None and self.rng.random() < 0.8
        # who comes back with another filter would take what the old one left out for missed
        reader = (type(self.readers[view.channel]) if recover else self.rng.choice(READERS))()
        self.reads(view, reader)
        request: dict[str, Any] = {"channel": view.channel, **reader.asks}
        if recover:
            assert view.place is not None
            request |= {"recover": True, "offset": view.place.offset, "epoch": view.place.epoch}
        else:
            view.place = None
        asked = view.place
        commands = [{"subscribe": request}]
        if and_publish:
            id = self.life.new_id()
            self.life.checker.attempted(view.channel, id)
            commands.append({"publish": {"channel": view.channel, "data": self.data(id)}})
        assert self.client is not None
        ids = await self.client.frame(*commands)
        reply = await self.reply(ids[0])
        if "subscribe" in reply and not view.live:
            view.place = asked  # the server may have subscribed it meanwhile, and ended that again
        self.answered(view, reader, reply)
        for id_ in ids[1:]:
            await self.reply(id_)

    def reads(self, view: View, reader: Reader) -> None:
        """From here on the channel is read in this way."""
        self.readers[view.channel] = reader
        view.wanted = (lambda tags: tags.get("t") == reader.tag) if reader.tag else None

    def answered(self, view: View, reader: Reader, reply: dict[str, Any]) -> None:
        """The answer to a subscribe came."""
        if "subscribe" in reply:
            result = reply["subscribe"]
            self.reads(view, reader)  # anew: the server may have subscribed it meanwhile, and ended that again
            if not result.get("delta") and reader.asks.get("delta"):
                raise Violation("patches were refused")
            self.note("subscribed", view.channel, result.get("offset", 0), len(result.get("publications", ())))
            self.told[view.channel] = Told()
            view.subscribed(result | {"publications": [reader.read(pub) for pub in result.get("publications", ())]})
        elif reply["error"]["code"] not in (100, 105):
            raise Violation(str(reply))

    async def exchange(self, **command: Any) -> dict[str, Any]:
        """Send a command, and take in its reply."""
        assert self.client is not None
        return await self.reply(await self.client.command(**command))

    async def reply(self, id: int) -> dict[str, Any]:
        """A reply; what comes before it happened before it."""
        assert self.client is not None
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
        channel = push["channel"]
        view = self.views[channel]
        if "pub" in push:
            offset, id = self.readers.get(channel, PlainReader()).read(push["pub"])
            self.note("push", channel, offset, id)
            view.pushed(offset, id)
        elif "subscribe" in push:
            self.reads(view, PlainReader())
            self.note("subscribed by the server", channel, push["subscribe"].get("offset", 0))
            self.told[channel] = Told()
            view.subscribed(push["subscribe"])
        elif "unsubscribe" in push:
            self.note("unsubscribed", channel, push["unsubscribe"]["code"])
            if not view.live:
                raise Violation(f"{channel}: unsubscribed, but was not subscribed")
            view.ended()
        elif not (self.life.failing or self.life.losing or self.life.cutting):
            told = self.told[channel]
            if "join" in push:
                told.joined(push["join"]["info"]["client"])
            else:
                told.left(push["leave"]["info"]["client"])

    def note(self, *what: object) -> None:
        self.life.trace.append(f"{trio.current_time():.6f} {self.name} {' '.join(map(str, what))}")

    def closed(self) -> None:
        client, self.client = self.client, None
        for view in self.views.values():
            view.ended()
        if client is not None and client.closed is not None:
            self.note("closed", client.closed[0])
            allowed = [_COME_BACK, 1006, *([3010] if self.life.lossy else []), *([3008, 3009] if self.slow else [])]
            if client.closed[0] not in allowed:
                raise Violation(f"closed with {client.closed}")
