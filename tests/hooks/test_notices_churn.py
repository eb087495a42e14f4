"""Clients that come and go at random, and a backend that loses acknowledgements: every count is exact, and the state of
every channel by its highest generation is the truth."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any, final

import pytest
import trio

from broker.hooks import DisconnectEvent, Hooks, StateEvent, UnsubscribeEvent
from tests.support.peers import NO_PINGS, House, RawClient, open_house, secured, token
from tests.support.slow_engine import Delays

pytestmark = pytest.mark.virtual_time

CHANNELS = [f"c{number}" for number in range(12)]


@final
class Churn:
    """What clients did, and what the backend was told."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.connected: set[str] = set()
        self.subscribed: Counter[tuple[str, str]] = Counter()
        self.gone: Counter[str] = Counter()
        self.ended: Counter[tuple[str, str]] = Counter()
        self.after_the_end: list[str] = []
        self.state: dict[str, tuple[int, str]] = {}
        self.lost = 0

    def hooks(self) -> Hooks:
        app = Hooks()

        @app.on.disconnect()
        async def disconnect(event: DisconnectEvent) -> None:
            await trio.sleep(self.rng.random() * 0.5)
            self.gone[event.client] += 1

        @app.on.unsubscribe("*")
        async def unsubscribe(event: UnsubscribeEvent) -> None:
            await trio.sleep(self.rng.random() * 0.5)
            self.ended[event.client, event.channel] += 1
            if event.client in self.gone:
                self.after_the_end.append(event.client)

        @app.on.state("*", timeout=2)
        async def state(event: StateEvent) -> None:
            before, after = self.rng.random(), self.rng.random()
            if before < 0.2:
                raise ConnectionError("the event is lost")
            for each in event.events:
                if each.generation > self.state.get(each.channel, (0, ""))[0]:
                    self.state[each.channel] = (each.generation, each.type)
            await trio.sleep(after * 0.2)
            if after < 0.3:
                self.lost += 1
                raise ConnectionError("the answer is lost")
            if after > 0.95:
                await trio.sleep(60)

        return app

    async def live(self, house: House, lives: int) -> None:
        """Clients one after another in one place."""
        rng = self.rng
        for _ in range(lives):
            client = await house.connected(token=token(f"u{rng.randrange(5)}"))
            id = client.hello["client"]
            self.connected.add(id)
            mine: set[str] = set()
            for _ in range(rng.randrange(6)):
                await trio.sleep(rng.random() * 2)
                channel = rng.choice(CHANNELS)
                if channel in mine and rng.random() < 0.5:
                    await client.ask(unsubscribe={"channel": channel})
                    mine.discard(channel)
                elif channel in mine:
                    await house.server.api.unsubscribe(f"u{rng.randrange(5)}", channel, client=id)
                    await self._see(client, mine)
                else:
                    await client.ask(subscribe={"channel": channel})
                    mine.add(channel)
                    self.subscribed[id, channel] += 1
            if rng.random() < 0.5:
                await client.leave()
            else:
                await client.send_frame(b"\x03\xe8", 8)
                await client.wait_closed()
            house.clients.remove(client)

    async def _see(self, client: RawClient, mine: set[str]) -> None:
        await client.arrived()
        for unit in client.units:
            push: dict[str, Any] = unit.get("push", {})
            if "unsubscribe" in push:
                mine.discard(push["channel"])
        client.units.clear()


async def churn(seed: int, places: int, lives: int, *, slow: bool) -> None:
    """With a slow engine, presence is being refreshed when clients go."""
    story = Churn(seed)
    client_options = {**NO_PINGS, "presence_update_interval": "1s"}
    options = secured({"allow_subscribe_for_client": True, "presence": True}, client=client_options)
    pace = Delays(random.Random(seed), 0.5) if slow else None
    options["channel"]["state"] = {"vacated_event_delay": story.rng.choice(["1ms", "1s", "5s"]), "batch_max_size": 3}
    async with open_house(options, seed=seed, pace=pace, hooks=story.hooks()) as house:
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for _ in range(places):
                    nursery.start_soon(story.live, house, lives)
            stay = [await house.connected(token=token("stays")) for _ in range(3)]
            for client in stay:
                story.connected.add(client.hello["client"])
                for channel in story.rng.sample(CHANNELS, 3):
                    await client.ask(subscribe={"channel": channel})
                    story.subscribed[client.hello["client"], channel] += 1
            await trio.sleep(200)  # every retry has had its turn
            truth = {channel.name: "occupied" for channel in house.server.node.registry.live_channels()}
            told = {channel: kind for channel, (_, kind) in story.state.items()}
            assert told == {**dict.fromkeys(told, "vacated"), **truth}
            assert not any(house.server.context.notices.waiting().values())
        for client in house.clients:
            await client.leave()
        await trio.sleep(200)
        assert {kind for _, kind in story.state.values()} == {"vacated"}
        assert house.server.context.notices.states._records == {}
    assert story.lost > 0
    assert dict(story.gone) == dict.fromkeys(story.connected, 1)
    assert story.ended == story.subscribed
    assert story.after_the_end == []


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("seed", range(2))
async def test_hundreds_of_lives(seed: int, slow: bool, error_log: Any) -> None:
    error_log.expect("a hook failed")
    await churn(seed, places=20, lives=8, slow=slow)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 110))
async def test_thousands_of_lives(seed: int, error_log: Any) -> None:
    error_log.expect("a hook failed")
    await churn(seed, places=60, lives=40, slow=bool(seed % 2))


async def test_nobody_sees_how_slow_the_backend_is(error_log: Any) -> None:
    """What is told is told beside: a backend that never answers delays no client, and what waits is known."""
    error_log.expect("a hook failed")
    app = Hooks()
    waits: defaultdict[str, int] = defaultdict(int)

    @app.on.disconnect(timeout=600)
    @app.on.unsubscribe("*", timeout=600)
    @app.on.state("*", timeout=600)
    async def never(event: object) -> None:
        waits[type(event).__name__] += 1
        await trio.sleep_forever()

    async with open_house(secured({"allow_subscribe_for_client": True}), hooks=app) as house:
        for _ in range(600):
            client = await house.connected(token=token("42"))
            await client.ask(subscribe={"channel": "news"})
            await client.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert house.server.node.registry.clients == {}
        assert house.server.context.notices.waiting()["disconnect"] == 600
        assert waits["UnsubscribeEvent"] == 512  # workers; the others wait without a task
