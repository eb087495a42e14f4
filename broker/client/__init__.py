"""A Trio client of the broker, and of any server that speaks Centrifugo's client protocol.

async with broker.client.connect("ws://localhost:8000/connection/websocket") as client:
    async with client.subscribe("news") as news:
        async for publication in news:
            print(publication.data)
"""

from __future__ import annotations

from broker.client.address import Dial
from broker.client.backoff import Backoff
from broker.client.client import Client, GetToken
from broker.client.errors import BrokerError, ConnectionLost, Disconnected, Lagged, ReplyError, Unsubscribed
from broker.client.events import Event, History, Join, Leave, Message, PresenceStats, Subscribed
from broker.client.opening import connect
from broker.client.server_side import OnServerEvent
from broker.client.subscription import GetSubscriptionToken, Subscription
from broker.protocol import ClientInfo, Publication, StreamPosition

__all__ = [
    "Backoff",
    "BrokerError",
    "Client",
    "ClientInfo",
    "ConnectionLost",
    "Dial",
    "Disconnected",
    "Event",
    "GetSubscriptionToken",
    "GetToken",
    "History",
    "Join",
    "Lagged",
    "Leave",
    "Message",
    "OnServerEvent",
    "PresenceStats",
    "Publication",
    "ReplyError",
    "StreamPosition",
    "Subscribed",
    "Subscription",
    "Unsubscribed",
    "connect",
]
