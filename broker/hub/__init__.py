"""The hall: channels, fan-out, outboxes, and the contracts of what plugs into them."""

from broker.hub.channel import Channel
from broker.hub.control import ControlCommand, DisconnectUser, RefreshUser, SubscribeUser, Target, UnsubscribeUser
from broker.hub.node import Node, NodeInfo, open_node
from broker.hub.outbox import Outbox, OutboxOwner, Sink, TrySend
from broker.hub.ports import (
    NO_HISTORY,
    PLAIN_PUBLISH,
    Broker,
    Deliver,
    EngineUnavailable,
    HistoryOptions,
    HistoryPage,
    HistoryQuery,
    Presence,
    PresenceStats,
    PublishOptions,
    PublishResult,
    Subscriber,
    UnrecoverablePosition,
    publish_options,
)
from broker.hub.registry import Registry
from broker.hub.subscription import DeltaMode, GroupKey, Subscription, patched
from broker.hub.timers import Timed, TimerWheel

__all__ = [
    "NO_HISTORY",
    "PLAIN_PUBLISH",
    "Broker",
    "Channel",
    "ControlCommand",
    "Deliver",
    "DeltaMode",
    "DisconnectUser",
    "EngineUnavailable",
    "GroupKey",
    "HistoryOptions",
    "HistoryPage",
    "HistoryQuery",
    "Node",
    "NodeInfo",
    "Outbox",
    "OutboxOwner",
    "Presence",
    "PresenceStats",
    "PublishOptions",
    "PublishResult",
    "RefreshUser",
    "Registry",
    "Sink",
    "SubscribeUser",
    "Subscriber",
    "Subscription",
    "Target",
    "Timed",
    "TimerWheel",
    "TrySend",
    "UnrecoverablePosition",
    "UnsubscribeUser",
    "open_node",
    "patched",
    "publish_options",
]
