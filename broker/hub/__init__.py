"""The hall: channels, fan-out, outboxes, and the contracts of what plugs into them."""

from broker.hub.channel import Channel
from broker.hub.cluster import Cluster, Handler, Reply, Survey
from broker.hub.control import (
    ControlCommand,
    DisconnectUser,
    NodeInfo,
    NodeMetrics,
    RefreshUser,
    SubscribeUser,
    Target,
    UnsubscribeUser,
)
from broker.hub.delivery import Turn
from broker.hub.node import Node, open_node
from broker.hub.outbox import Outbox, OutboxOwner, Sink, TrySend
from broker.hub.ports import (
    NO_HISTORY,
    PLAIN_PUBLISH,
    Broker,
    Controller,
    Deliver,
    EngineUnavailable,
    HistoryOptions,
    HistoryPage,
    HistoryQuery,
    Presence,
    PresenceStats,
    PublishOptions,
    PublishResult,
    Room,
    Subscriber,
    UnrecoverablePosition,
    publish_options,
)
from broker.hub.registry import Registry
from broker.hub.subscription import DeltaMode, GroupKey, Subscription, patched, plain_key
from broker.hub.timers import Timed, TimerWheel

__all__ = [
    "NO_HISTORY",
    "PLAIN_PUBLISH",
    "Broker",
    "Channel",
    "Cluster",
    "ControlCommand",
    "Controller",
    "Deliver",
    "DeltaMode",
    "DisconnectUser",
    "EngineUnavailable",
    "GroupKey",
    "Handler",
    "HistoryOptions",
    "HistoryPage",
    "HistoryQuery",
    "Node",
    "NodeInfo",
    "NodeMetrics",
    "Outbox",
    "OutboxOwner",
    "Presence",
    "PresenceStats",
    "PublishOptions",
    "PublishResult",
    "RefreshUser",
    "Registry",
    "Reply",
    "Room",
    "Sink",
    "SubscribeUser",
    "Subscriber",
    "Subscription",
    "Survey",
    "Target",
    "Timed",
    "TimerWheel",
    "TrySend",
    "Turn",
    "UnrecoverablePosition",
    "UnsubscribeUser",
    "open_node",
    "patched",
    "plain_key",
    "publish_options",
]
