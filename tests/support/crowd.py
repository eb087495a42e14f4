"""Publishers and subscribers in real time, while something bad happens: what they saw is judged by checker C1.

crowd = Crowd(house.client, house.api, ["a", "b"])
async with crowd.at_work(nursery):
    ...                                     # the bad day
await crowd.settle()                        # everybody is at the top again, and nobody was told a lie
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, final

import trio

from tests.faults.checkers import Checker, Place, View
from tests.support.patience import PATIENCE
from tests.support.peers import RawClient

__all__ = ["KEPT", "Crowd"]

KEPT: dict[str, Any] = {"history_size": 5000, "history_ttl": "10m", "force_recovery": True}
"""Options of channels that a crowd uses: nobody misses more than is kept."""

_PACE = 0.005
_AGAIN = 0.05


@final
class Crowd:
    """One publisher and `readers` subscribers for each channel.

    Args:
        connect: opens a connection that has not said connect.
        api: calls the server API.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[RawClient]],
        api: Callable[..., Awaitable[dict[str, Any]]],
        channels: Sequence[str],
        *,
        readers: int = 2,
    ) -> None:
        self.checker = Checker()
        self.acknowledged = 0
        self.refused = 0
        self.longest = 0.0
        """Seconds that the slowest call of the API took."""
        self.connections = 0
        self.recovered = {True: 0, False: 0}
        """Subscriptions that came back, by whether they had everything."""
        self._connect = connect
        self._api = api
        self._channels = channels
        self._views = [View(self.checker, channel) for channel in channels for _ in range(readers)]
        self._ids = itertools.count(1)
        self._news = trio.Event()

    @asynccontextmanager
    async def at_work(self, nursery: trio.Nursery) -> AsyncIterator[None]:
        """Subscribers listen until `nursery` ends; publications are made as long as the block lives. It begins when
        each channel has had some."""
        for view in self._views:
            nursery.start_soon(self._read, view)
        async with trio.open_nursery() as publishers:
            for channel in self._channels:
                publishers.start_soon(self._publish, channel)
            await self.wait(lambda: all(view.place is not None and view.place.offset > 3 for view in self._views))
            yield
            publishers.cancel_scope.cancel()

    async def wait(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Until it holds; looked at whenever something came."""
        with trio.fail_after(seconds):
            while not condition():
                await self._news.wait()

    async def wait_acknowledged(self, count: int = 20) -> None:
        """Until so many more publications were made."""
        goal = self.acknowledged + count
        await self.wait(lambda: self.acknowledged >= goal)

    async def settle(self) -> None:
        """Nothing bad happens any more: soon everybody knows everything."""
        for channel in self._channels:  # what was lost shows with the next one
            await self._publish_one(channel, insist=True)
        with trio.fail_after(PATIENCE):
            for view in self._views:
                while not view.live or view.place != await self._top(view.channel):
                    with trio.move_on_after(0.2):  # the server forgets on its own, too
                        await self._news.wait()
        for view in self._views:
            view.finish()
        self.checker.finish()

    async def _top(self, channel: str) -> Place | None:
        answer = await self._api("history", channel=channel, limit=0)
        if "error" in answer:
            return None
        return Place(answer["result"]["epoch"], answer["result"]["offset"])

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # ---- publishers -----------------------------------------------------------------------------------------------

    async def _publish(self, channel: str) -> None:
        while True:
            await self._publish_one(channel)
            await trio.sleep(_PACE)

    async def _publish_one(self, channel: str, *, insist: bool = False) -> None:
        while True:
            id = f"p{next(self._ids)}"
            self.checker.attempted(channel, id)
            began = trio.current_time()
            answer = await self._api("publish", channel=channel, data=id)
            self.longest = max(self.longest, trio.current_time() - began)
            if "error" not in answer:
                break
            assert answer["error"]["code"] == 100, answer
            self.refused += 1
            self._tell()
            if not insist:
                return
            await trio.sleep(_AGAIN)
        self.acknowledged += 1
        self.checker.acknowledged(channel, id, Place(answer["result"]["epoch"], answer["result"]["offset"]))
        self._tell()

    # ---- subscribers ----------------------------------------------------------------------------------------------

    async def _read(self, view: View) -> None:
        while True:
            try:
                client = await self._connect()
                self.connections += 1
                await client.ask(connect={})
                while True:
                    if not await self._subscribe(client, view):
                        await trio.sleep(_AGAIN)
                    while view.live:
                        self._take(view, await client.next())
            except (EOFError, OSError, trio.BrokenResourceError, AssertionError) as error:
                if isinstance(error, AssertionError) and "HTTP" not in str(error) and str(error) != "b''":
                    raise
                view.ended()
                await trio.sleep(_AGAIN)

    async def _subscribe(self, client: RawClient, view: View) -> bool:
        request: dict[str, Any] = {"channel": view.channel}
        if view.place is not None:
            request |= {"recover": True, "offset": view.place.offset, "epoch": view.place.epoch}
        id = await client.command(subscribe=request)
        while (unit := await client.next()).get("id") != id:
            self._take(view, unit)
        if "error" in unit:
            assert unit["error"]["code"] == 100, unit
            return False
        result = unit["subscribe"]
        if "recover" in request:
            self.recovered[bool(result.get("recovered"))] += 1
        pubs = [(pub["offset"], pub["data"]) for pub in result.get("publications", ())]
        view.subscribed(result | {"publications": pubs})
        self._tell()
        return True

    def _take(self, view: View, unit: dict[str, Any]) -> None:
        push = unit["push"]
        assert push["channel"] == view.channel
        if "pub" in push:
            view.pushed(push["pub"]["offset"], push["pub"]["data"])
        elif "unsubscribe" in push:
            assert push["unsubscribe"]["code"] == 2500, push
            view.ended()
        self._tell()
