"""Every load shape by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import attrs

from broker.bench import (
    w1_million,
    w2_idle,
    w3_hot_channel,
    w4_echo,
    w5_broadcast,
    w6_recovery,
    w7_slow_readers,
    w8_redis_loss,
    w9_api,
    w10_storm,
    w11_inbound,
    w12_backend,
    w13_flood,
)
from broker.bench.figures import Outcome, Settings
from broker.bench.load import Load
from broker.bench.local import Asked

__all__ = ["SHAPES", "Shape"]


@final
@attrs.frozen
class Shape:
    """A load shape of docs/benchmarking.md."""

    name: str
    about: str
    defaults: Settings
    measure: Callable[[Load], Outcome]
    figure: str
    """The column that counts: servers are compared by it."""
    more_is_better: bool = True
    has_floor: bool = False
    """Whether a loop of bare sends can play the server."""
    simple: bool = True
    """Whether it asks no more than to connect, subscribe, publish and call."""
    asked: Asked | None = None
    """What servers ask a backend about; one that runs already has to be configured so."""
    own_redis: bool = False
    """Whether servers keep their channels in a Redis that is started for them; one that runs already cannot be
    measured."""


_HOT = Settings(connections=1000)
_DELIVERIES = "deliveries/CPU-s"
_MEMORY = "KiB/connection"
_PUBLISHES = "publishes/CPU-s"

_ALL = (
    Shape(
        "W1",
        "clients with a channel of their own and one of ten, who come and go",
        Settings(connections=10_000, batch=11, size=100, seconds=10),
        w1_million.million,
        _DELIVERIES,
    ),
    Shape(
        "W2",
        "idle connections, each with one subscription",
        Settings(connections=5000, channels=0, seconds=0),
        w2_idle.with_one_subscription,
        _MEMORY,
        more_is_better=False,
    ),
    Shape(
        "W2n",
        "idle connections without a subscription",
        Settings(connections=5000, seconds=0),
        w2_idle.with_none,
        _MEMORY,
        more_is_better=False,
    ),
    Shape(
        "W3", "a hot channel, one publish at a time", _HOT, w3_hot_channel.in_turn_or_busy, _DELIVERIES, has_floor=True
    ),
    Shape(
        "W3p",
        "a hot channel, paced so that nothing can be joined",
        Settings(connections=1000, seconds=5, rate=20_000),
        w3_hot_channel.paced,
        _DELIVERIES,
        has_floor=True,
    ),
    Shape(
        "W3s",
        "a hot channel, publishes pile up",
        Settings(connections=1000, in_flight=16),
        w3_hot_channel.in_turn_or_busy,
        _DELIVERIES,
        has_floor=True,
    ),
    Shape(
        "W4",
        "clients publish, to themselves and to groups of six",
        Settings(connections=600, rate=20_000, seconds=5),
        w4_echo.echo,
        _DELIVERIES,
    ),
    Shape(
        "W5",
        "broadcasts to five channels with history, which is read meanwhile",
        Settings(connections=1500, channels=5, namespace="kept", rate=20_000, seconds=5),
        w5_broadcast.broadcast_and_history,
        "p95 ms",
        more_is_better=False,
        simple=False,
    ),
    Shape(
        "W6",
        "all clients cut off at once, who come again and recover",
        Settings(connections=1000, channels=100, namespace="kept", seconds=0),
        w6_recovery.recovery,
        "recoveries/CPU-s",
        simple=False,
    ),
    Shape(
        "W7",
        "a hot channel, paced, and one in a hundred does not read",
        Settings(connections=1000, seconds=8, rate=20_000),
        w7_slow_readers.slow_readers,
        "p99 ms",
        more_is_better=False,
        simple=False,
    ),
    Shape(
        "W8",
        "the channels of W1, while the Redis that keeps them is killed and comes back",
        Settings(connections=300, namespace="kept", seconds=6),
        w8_redis_loss.redis_loss,
        "s to all",
        more_is_better=False,
        simple=False,
        own_redis=True,
    ),
    Shape(
        "W9",
        "publish over HTTP, one per request",
        Settings(in_flight=32),
        w9_api.publish,
        _PUBLISHES,
        has_floor=True,
    ),
    Shape("W9b", "publish over HTTP, 100 per batch", Settings(in_flight=32, batch=100), w9_api.publish, _PUBLISHES),
    Shape(
        "W9bc",
        "broadcast over HTTP to 100 channels of one subscriber",
        Settings(in_flight=32, channels=100),
        w9_api.broadcast,
        _PUBLISHES,
        simple=False,
    ),
    Shape(
        "W9d",
        "publish over HTTP to 50 channels of one subscriber",
        Settings(channels=50, in_flight=32),
        w9_api.publish_to_delivery,
        _PUBLISHES,
    ),
    Shape(
        "W10",
        "clients connect with a token and subscribe",
        Settings(connections=4000, channels=0, jwt=True),
        w10_storm.storm,
        "connects/CPU-s",
    ),
    Shape(
        "W10n",
        "clients connect without a token and subscribe",
        Settings(connections=4000, channels=0),
        w10_storm.storm,
        "connects/CPU-s",
    ),
    Shape("W11", "clients publish", Settings(connections=500), w11_inbound.publish, "commands/CPU-s"),
    Shape("W11r", "clients call an RPC method", Settings(connections=500), w11_inbound.rpc, "commands/CPU-s"),
    Shape(
        "W12",
        "32 clients call an RPC method that a backend answers over HTTP",
        Settings(connections=32),
        w12_backend.rpc,
        "calls/CPU-s",
        has_floor=True,
        simple=False,
        asked=Asked(),
    ),
    Shape(
        "W13",
        "W3p, while 10,000 clients connect through a backend that takes 50 ms",
        Settings(connections=1000, seconds=5, rate=20_000, flood=10_000),
        w13_flood.flood,
        "p99 with / without",
        more_is_better=False,
        simple=False,
        asked=Asked(connect=True, delay=0.05),
    ),
)

SHAPES = {shape.name: shape for shape in _ALL}
