"""The node: the use cases of the hub. It owns the registry of channels and clients, and the tasks that serve them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Any, final

import trio
from msgspec import Raw

from broker.eager import Gate, begin, go_on, own_task
from broker.hub.backlog import Backlog
from broker.hub.channel import Channel
from broker.hub.channel_survey import answer_channels, survey_channels
from broker.hub.cluster import Cluster
from broker.hub.control import ControlCommand, DisconnectUser, NodeInfo, NodeMetrics
from broker.hub.delivery import Delivery, Turn
from broker.hub.emulation import answer_emulation, forward_emulation
from broker.hub.history_reads import HistoryReads
from broker.hub.ports import (
    PLAIN_PUBLISH,
    Broker,
    Controller,
    EngineUnavailable,
    HistoryPage,
    HistoryQuery,
    ImmediateBroker,
    Presence,
    PresenceStats,
    PublishOptions,
    PublishResult,
)
from broker.hub.positions import PositionChecks
from broker.hub.registry import Registry
from broker.hub.timers import TimerWheel
from broker.observe import Counters
from broker.protocol import ClientInfo, EmulationRequest, Publication

__all__ = ["Node", "open_node"]

_LINGER = 1.0
"""Seconds that a channel without subscribers stays subscribed at the engine: clients come back at once."""

_GOODBYE_SECONDS = 1.0
"""For telling the other nodes that this one ends."""


@final
class Node:
    """One server process of the cluster: opened by `open_node`, alive as long as its block."""

    def __init__(
        self,
        name: str,
        version: str,
        broker: Broker,
        presence: Presence,
        controller: Controller,
        nursery: trio.Nursery,
    ) -> None:
        self.uid = str(uuid.uuid4())
        self.name = name
        self.version = version
        self.registry = Registry()
        self.timers = TimerWheel()
        self.counters = Counters()
        self.turn = Turn()
        self._backlog = Backlog()
        self._broker = broker
        self._publish_now = broker.publish_nowait if isinstance(broker, ImmediateBroker) else None
        reads = HistoryReads(broker, self.counters, self._spawn)
        self._history = broker.history if self._publish_now else reads.history
        self._presence = presence
        self._nursery = nursery
        self._started = trio.current_time()
        self._idle: dict[str, float] = {}
        self._clock = trio.current_time
        self._metrics: NodeMetrics | None = None
        self._positions = PositionChecks(self.registry.channels.get, broker)
        self._delivery = Delivery(self.registry, self.counters, self._positions.add)
        broker.attach(self._delivery)
        self.cluster = Cluster(
            self.uid,
            controller,
            describe=self.describe,
            carry_out=self._carry_out,
            counters=self.counters,
            nursery=nursery,
        )
        answer_channels(self.cluster, self._local_channels)
        answer_emulation(self.cluster, self._hear)

    # ---- publications and what is kept of them --------------------------------------------------------------------

    async def publish(self, channel: str, pub: Publication, options: PublishOptions = PLAIN_PUBLISH) -> PublishResult:
        """Publish to everybody. Waits while this channel's pump is full: publishers feel a slow server, not readers."""
        local = self.registry.channels.get(channel)
        while local is not None and local.full:
            await own_task()
            await local.wait_room()
        return self._counted(await self._broker.publish(channel, pub, options))

    def publish_nowait(self, channel: str, pub: Publication, options: PublishOptions) -> PublishResult | None:
        """`publish`, where nothing has to be waited for. None, and nothing was done, where something may."""
        publish = self._publish_now
        if publish is None:
            return None
        local = self.registry.channels.get(channel)
        if local is not None and local.full:
            return None
        result = publish(channel, pub, options)
        if result.suppressed:
            return self._counted(result)
        self.counters.sent["publication"] += 1
        return result

    def publish_in_turn(self, channel: str, pub: Publication, options: PublishOptions) -> PublishResult | None:
        """`publish_nowait` for publishers who are not in the channel themselves: within a turn of the reader few
        subscribers are told at its end, of all that was published in it."""
        if self._publish_now is None:
            return None
        delivery = self._delivery
        outer, delivery.held = delivery.held, self.turn.channels
        try:
            return self.publish_nowait(channel, pub, options)
        finally:
            delivery.held = outer

    def _counted(self, result: PublishResult) -> PublishResult:
        if result.suppressed:
            self.counters.suppressed[result.suppressed] += 1
        else:
            self.counters.sent["publication"] += 1
        return result

    def together(self) -> AbstractContextManager[None]:
        """What is published within leaves together, one send per subscriber and channel, at the end of the block.

        There must be no await in it: what others do meanwhile would come too early.
        """
        return self._delivery.together()

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        self.counters.sent["join"] += 1
        await self._broker.publish_join(channel, info)

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        self.counters.sent["leave"] += 1
        await self._broker.publish_leave(channel, info)

    async def history(self, channel: str, query: HistoryQuery, meta_ttl: float) -> HistoryPage:
        self.counters.actions["history"] += 1
        return await self._history(channel, query, meta_ttl)

    async def remove_history(self, channel: str) -> None:
        self.counters.actions["history_remove"] += 1
        await self._broker.remove_history(channel)

    # ---- presence -------------------------------------------------------------------------------------------------

    async def add_presence(self, channel: str, client_id: str, info: ClientInfo) -> None:
        self.counters.actions["add_presence"] += 1
        await self._presence.add(channel, client_id, info)

    async def remove_presence(self, channel: str, client_id: str) -> None:
        self.counters.actions["remove_presence"] += 1
        await self._presence.remove(channel, client_id)

    async def presence(self, channel: str) -> dict[str, ClientInfo]:
        self.counters.actions["presence"] += 1
        return await self._presence.clients(channel)

    async def presence_stats(self, channel: str) -> PresenceStats:
        self.counters.actions["presence_stats"] += 1
        return await self._presence.stats(channel)

    # ---- channels of this node ------------------------------------------------------------------------------------

    async def open_channel(self, name: str) -> Channel:
        """The channel, with the engine delivering to it. The caller adds its subscription before its next await.

        Raises:
            EngineUnavailable: it cannot be asked to deliver.
        """
        while True:
            channel = self.registry.channels.get(name)
            if channel is None:
                channel = self._begin_delivery(name)
            ready = channel.ready
            if ready is not None:
                await ready.wait()
            if channel.failure is not None:
                raise channel.failure
            if ready is None:
                return channel

    def open_channel_nowait(self, name: str) -> Channel | None:
        """`open_channel`, where nothing has to be waited for; None where something may."""
        channel = self.registry.channels.get(name)
        if channel is None:
            channel = self._begin_delivery(name)
        return channel if channel.ready is None and channel.failure is None else None

    def _begin_delivery(self, name: str) -> Channel:
        channel = self.registry.channels[name] = Channel(name, self._spawn, self._backlog)
        channel.ready = Gate()
        self._run(self._deliver_to(channel, channel.ready))
        return channel

    async def _deliver_to(self, channel: Channel, ready: Gate) -> None:
        """Work of the hub, not of the client that came first: if that one goes, the others still want it."""
        self.counters.actions["broker_subscribe"] += 1
        try:
            await self._broker.subscribe(channel.name)
        except Exception as error:  # for those who wait: names come from clients, and one must not end them all
            channel.failure = error
            del self.registry.channels[channel.name]
        else:
            self._idle[channel.name] = self._clock()  # until it has a subscriber
        finally:
            channel.ready = None
            ready.open()

    def release(self, channel: Channel) -> None:
        """Call after a subscription was removed: a channel that nobody uses goes after a moment."""
        if not channel.subscriptions:
            self._idle[channel.name] = self._clock()

    def _drop_idle(self) -> None:
        before = self._clock() - _LINGER
        for name, since in list(self._idle.items()):
            if since > before:
                continue
            del self._idle[name]
            channel = self.registry.channels[name]
            if not channel.subscriptions:
                channel.ready = Gate()  # who wants it now waits until the engine has let go of it
                self._run(self._end_delivery(channel, channel.ready))

    async def _end_delivery(self, channel: Channel, ready: Gate) -> None:
        self.counters.actions["broker_unsubscribe"] += 1
        try:
            await self._broker.unsubscribe(channel.name)
        except EngineUnavailable:
            pass  # what it goes on to deliver finds no channel here
        finally:
            self.counters.deliveries += channel.deliveries
            del self.registry.channels[channel.name]
            ready.open()

    async def _janitor(self) -> None:
        while True:
            await trio.sleep(_LINGER / 2)
            self._drop_idle()

    def _spawn(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._nursery.start_soon(task)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """At once; where it waits for a promise, on when that is settled; and else in a task of the hub."""
        done, promise = begin(work)
        if promise is not None:
            promise.when_settled(partial(self._run, work))
        elif not done:
            self._nursery.start_soon(go_on, work)

    # ---- connections ----------------------------------------------------------------------------------------------

    async def control(self, command: ControlCommand) -> None:
        """Carry `command` out on every connection it concerns, on every node.

        Raises:
            EngineUnavailable: the other nodes could not be told; nothing was done here either.
        """
        await self.cluster.tell(command)
        self._carry_out(command)

    def _carry_out(self, command: ControlCommand) -> None:
        target = command.target
        spare = command.spare if isinstance(command, DisconnectUser) else frozenset()
        for client in self.registry.select(target.user, target.client, target.session):
            if client.client_id not in spare:
                client.control(command)

    async def emulate(self, node: str, session: str, data: bytes) -> bool:
        """Take what a client sent by a request of its own to its session, which may be on another node.

        Returns:
            False if nobody knows that node. A session that is gone hears nothing, and nobody is told.

        Raises:
            EngineUnavailable: the other node was not reached.
        """
        if not self.cluster.knows(node):
            return False
        await forward_emulation(self.cluster, EmulationRequest(node, session, Raw(data)))
        return True

    def _hear(self, session_id: str, data: bytes) -> bool:
        session = self.registry.sessions.get(session_id)
        if session is not None:
            session.hear(data)
        return session is not None

    def describe(self) -> NodeInfo:
        """This node, as it is now."""
        registry = self.registry
        channels = list(registry.live_channels())
        return NodeInfo(
            uid=self.uid,
            name=self.name,
            version=self.version,
            num_clients=len(registry.clients),
            num_users=len(registry.users),
            num_subs=sum(channel.subscriptions for channel in channels),
            num_channels=len(channels),
            uptime=int(self._clock() - self._started),
            metrics=self._metrics,
        )

    def measure(self, step: Callable[[], Mapping[str, float]], seconds: float) -> None:
        """Tell all nodes every so many seconds what `step` gives: what happened since it was last called."""
        self._nursery.start_soon(self._keep_measuring, step, seconds, name="node metrics")

    async def _keep_measuring(self, step: Callable[[], Mapping[str, float]], seconds: float) -> None:
        while True:
            self._metrics = NodeMetrics(seconds, step())
            await trio.sleep(seconds)

    @property
    def deliveries(self) -> int:
        """Pushes of channels handed to connections since the start."""
        return self.counters.deliveries + sum(channel.deliveries for channel in self.registry.channels.values())

    async def channels(self, pattern: str = "") -> dict[str, int]:
        """Channels that match the glob `pattern` (empty: all) and have subscribers on any node, with how many.

        Raises:
            EngineUnavailable: a node did not answer.
        """
        return await survey_channels(self.cluster, pattern)

    def _local_channels(self) -> Iterator[tuple[str, int]]:
        for channel in tuple(self.registry.channels.values()):
            if channel.subscriptions:
                yield channel.name, channel.subscriptions


@asynccontextmanager
async def open_node(
    name: str, broker: Broker, presence: Presence, controller: Controller, *, version: str = ""
) -> AsyncIterator[Node]:
    """The hub stage: its nursery owns the registry, the pumps, the timer wheel and what nodes tell each other."""
    async with trio.open_nursery() as nursery:
        node = Node(name, version, broker, presence, controller, nursery)
        nursery.start_soon(node.timers.run, name="timers")
        nursery.start_soon(node._janitor, name="hub janitor")
        nursery.start_soon(node.cluster.run, name="cluster")
        nursery.start_soon(node._positions.run, name="positions")
        try:
            yield node
        finally:
            with trio.move_on_after(_GOODBYE_SECONDS, shield=True):
                await node.cluster.leave()
            node.cluster.close()
            nursery.cancel_scope.cancel()
