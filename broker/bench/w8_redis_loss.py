"""W8: the channels of W1, while the Redis that keeps them is killed and comes back.

What is looked at is not how fast a server is but whether it says what happened. Clients are those of `broker.client`,
because they have to come again, subscribe again and recover as the SDKs do; publishers go on all the time, and are told
that nothing can be published.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Final, final

import attrs
import trio

from broker import client as sdk
from broker.bench.api import post
from broker.bench.figures import Outcome
from broker.bench.journal import Wrong
from broker.bench.load import Load
from broker.bench.marks import data_of, find_keys, key_of
from broker.bench.records import Latencies

__all__ = ["redis_loss"]

GROUP: Final = 10
EACH_PER_SECOND: Final = 0.5
"""Publications to a channel."""
PUBLISHERS: Final = 8
OUTAGE: Final = 1.0
"""Seconds between the kill and the new start."""
PATIENCE: Final = 60.0
"""Seconds: servers look every 40 or so whether a subscriber has missed something."""
RETRY: Final = 0.02
_BACKOFF: Final = sdk.Backoff(0.05, 0.5)


@final
class Channel:
    """What was sent to it, one publication after another, and what of that the server has taken."""

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.posted = 0
        self.taken: list[int] = []
        self.readers: list[Reader] = []
        self.turn = trio.Lock()

    def post(self) -> int:
        """The next publication is sent; its number."""
        self.posted += 1
        return self.posted - 1

    @property
    def top(self) -> int:
        """The last publication that the server has taken; -1 while there is none."""
        return self.taken[-1] if self.taken else -1


@final
class Reader:
    """One subscription of one client. What the server took and it did not read is lost; `lost` counts what it was told
    of."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.at = -1
        self.lost = 0
        self._seen = 0  # of what the server has taken, how much it has passed
        self._told = False
        self._excused = -1

    @property
    def behind(self) -> bool:
        """Whether something is still to come that the server has taken and not said to be lost."""
        return max(self.at, self._excused) < self.channel.top

    def break_told(self) -> None:
        """The server has said that publications may be missing before the next one."""
        self._told = True
        self._excused = self.channel.posted - 1

    def read(self, number: int) -> None:
        """
        Raises:
            Wrong: it was doubled, or late, or comes after others that were lost without a word.
        """
        if number <= self.at:
            raise Wrong(f"{self.channel.name}: publication {number} came after {self.at}")
        self._pass(number)
        self.at = number

    def end(self) -> None:
        """Nothing comes any more.

        Raises:
            Wrong: something was lost without a word.
        """
        self._pass(self.channel.posted)

    def _pass(self, until: int) -> None:
        taken = self.channel.taken
        missing = []
        while self._seen < len(taken) and taken[self._seen] < until:
            if taken[self._seen] > self.at:
                missing.append(taken[self._seen])
            self._seen += 1
        if missing and not self._told:
            raise Wrong(
                f"{self.channel.name}: {len(missing)} publications were lost without a word, {missing[0]} first"
            )
        self.lost += len(missing)
        self._told = False


@final
@attrs.define
class Round:
    """Everything of one round."""

    load: Load
    channels: list[Channel]
    latencies: Latencies = attrs.field(factory=Latencies)
    sent_at: dict[bytes, float] = attrs.field(factory=dict)
    deliveries: int = 0
    refused: int = 0
    news: trio.Event = attrs.field(factory=trio.Event)

    # ---- readers --------------------------------------------------------------------------------------------------

    async def listen(self, url: str, channels: Sequence[Channel], ready: Callable[[], None]) -> None:
        """One client, until it is cancelled."""
        async with sdk.connect(url, backoff=_BACKOFF) as client, trio.open_nursery() as nursery:
            for channel in channels:
                await nursery.start(self._follow, client, channel)
            ready()

    async def _follow(
        self, client: sdk.Client, channel: Channel, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        reader = Reader(channel)
        async with client.subscribe(channel.name, recoverable=True, positioned=True, backoff=_BACKOFF) as subscription:
            channel.readers.append(reader)
            task_status.started()
            while True:
                event = await subscription.next_event()
                if isinstance(event, sdk.Subscribed) and event.was_recovering and not event.recovered:
                    reader.break_told()
                    self.news.set()
                elif isinstance(event, sdk.Publication):
                    self._take(reader, event.data)

    def _take(self, reader: Reader, data: bytes) -> None:
        (key,) = find_keys(data)
        now = time.perf_counter()
        self.deliveries += 1
        self.latencies.add(now, self.sent_at.get(key, now))
        reader.read(int(key[6:]))
        self.news.set()

    async def all_at_top(self) -> None:
        """Wait until everybody has read the last publication that the server has taken, or was told of a break since.

        Raises:
            Wrong: somebody never does.
        """
        with trio.move_on_after(PATIENCE) as late:
            while any(reader.behind for channel in self.channels for reader in channel.readers):
                self.news = trio.Event()
                await self.news.wait()
        if late.cancelled_caught:
            behind = sum(reader.behind for channel in self.channels for reader in channel.readers)
            raise Wrong(f"{behind} subscriptions never came to the end of their channels")

    # ---- publishers -----------------------------------------------------------------------------------------------

    async def publish_for(self, seconds: float) -> None:
        """To all channels in turn, each publisher to its own, when it is due or as soon as it can."""
        async with trio.open_nursery() as nursery:
            for number in range(PUBLISHERS):
                nursery.start_soon(self._publish_paced, self.channels[number::PUBLISHERS], seconds)

    async def _publish_paced(self, channels: Sequence[Channel], seconds: float) -> None:
        interval = 1 / (len(channels) * EACH_PER_SECOND)
        begin = trio.current_time()
        with Api(self) as api:
            for number in range(max(round(seconds / interval), 1)):
                await trio.sleep_until(begin + number * interval)
                await api.publish(channels[number % len(channels)])

    async def publish_to_all(self) -> float:
        """One to each channel, again until the server takes it; when the first was taken."""
        first: list[float] = []

        async def publish(channels: Sequence[Channel]) -> None:
            with Api(self) as api:
                for channel in channels:
                    while not await api.publish(channel):  # noqa: ASYNC110 (nobody tells us)
                        await trio.sleep(RETRY)
                    first.append(time.perf_counter())

        async with trio.open_nursery() as nursery:
            for number in range(PUBLISHERS):
                nursery.start_soon(publish, self.channels[number::PUBLISHERS])
        return first[0]


@final
class Api:
    """One publication at a time, over a connection that is kept."""

    def __init__(self, whole: Round) -> None:
        self._round = whole
        self._data = data_of(whole.load.settings.size)
        self._stream: trio.SocketStream | None = None

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.socket.close()
            self._stream = None

    async def publish(self, channel: Channel) -> bool:
        """Whether the server has taken it. If not, it may be told all the same."""
        async with channel.turn:
            taken = await self._post(channel, channel.post())
        if not taken:
            self._round.refused += 1
        return taken

    async def _post(self, channel: Channel, number: int) -> bool:
        key = key_of(channel.number, number)
        target = self._round.load.target
        body = b'{"channel":%s,"data":%s}' % (json.dumps(channel.name).encode(), self._data % key)
        self._round.sent_at[b"%015d" % key] = time.perf_counter()
        try:
            with trio.fail_after(PATIENCE):
                if self._stream is None:
                    self._stream = await trio.open_tcp_stream(target.api.host, target.api.port)
                await self._stream.send_all(post(target.api, "publish", target.api_key, body).replace(b"%%", b"%"))
                answer = await self._answer(self._stream)
        except (OSError, trio.BrokenResourceError):
            self._close()
            answer = b""
        taken = answer.startswith(b"HTTP/1.1 200") and b'"error"' not in answer
        if taken:
            channel.taken.append(number)
        return taken

    async def _answer(self, stream: trio.SocketStream) -> bytes:
        data = b""
        while b"}" not in data.partition(b"\r\n\r\n")[2]:  # all answers to a publish are one object
            part = await stream.receive_some()
            if not part:
                raise trio.BrokenResourceError
            data += part
        return data


def redis_loss(load: Load) -> Outcome:
    """Latency is that of all deliveries; what was published while Redis was away counts from then.

    Raises:
        Wrong: something that the server took was lost without a word, doubled, or out of order.
    """
    if load.target.redis is None:
        raise ValueError("W8 kills the Redis of a server, so it is for servers that are started for it")
    if load.target.transport != "websocket" or load.target.codec != "json" or load.target.link.tls:
        raise ValueError("the clients of W8 speak JSON over WebSocket, without TLS")
    try:
        return trio.run(_redis_loss, load)
    except BaseExceptionGroup as group:
        raise RuntimeError(_first(group)) from group


def _first(error: BaseException) -> str:
    """What went wrong first, of all that ended with it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__


async def _redis_loss(load: Load) -> Outcome:
    settings, target = load.settings, load.target
    assert target.redis is not None
    groups = max(settings.connections // GROUP, 1)
    channels = [Channel(number, settings.channel(number)) for number in range(groups * (GROUP + 1))]
    whole = Round(load, channels)
    url = f"ws://{target.link.authority}{target.link.path}"
    ready = 0
    all_ready = trio.Event()

    def one_ready() -> None:
        nonlocal ready
        ready += 1
        load.say("opening connections", ready / (groups * GROUP))
        if ready == groups * GROUP:
            all_ready.set()

    with contextlib.ExitStack() as until_end:
        async with trio.open_nursery() as nursery:
            for number in range(groups * GROUP):
                first = number // GROUP * (GROUP + 1)
                own, shared = channels[first + number % GROUP], channels[first + GROUP]
                nursery.start_soon(whole.listen, url, [own, shared], one_ready)
            await all_ready.wait()
            with load.timed(lambda: whole.deliveries, settings.seconds + OUTAGE) as clock:
                await whole.publish_for(settings.seconds / 2)
                target.redis.kill()
                async with trio.open_nursery() as publishers:
                    publishers.start_soon(whole.publish_for, OUTAGE)
                    await trio.sleep(OUTAGE)
                    until_end.enter_context(target.redis.again())
                    back = time.perf_counter()
                    published = await whole.publish_to_all() - back
                    await whole.all_at_top()
                    everybody = time.perf_counter() - back
                await whole.publish_for(settings.seconds / 2)
                await whole.all_at_top()
            nursery.cancel_scope.cancel()
    readers = [reader for channel in channels for reader in channel.readers]
    for reader in readers:
        reader.end()
    outcome = load.outcome("deliveries", whole.deliveries, clock, whole.latencies)
    outcome.figures["s to all"] = everybody
    outcome.figures["s to publish"] = published
    outcome.figures["refused"] = float(whole.refused)
    outcome.figures["lost, and told so"] = float(sum(reader.lost for reader in readers))
    return outcome
