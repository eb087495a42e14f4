"""The rows of the table in docs/benchmarking.md: what is measured, against whom, and what is wanted of it."""

from __future__ import annotations

from typing import Any, final

import attrs

__all__ = ["ROWS", "Row"]

_EVERYBODY = ("broker", "yardstick", "peer")
_PEERS = ("broker", "peer")


@final
@attrs.frozen
class Row:
    """One line. `servers`: broker, yardstick, peer (the first), floor; a name after a slash is a variant of it."""

    name: str
    shape: str
    servers: tuple[str, ...] = _EVERYBODY
    settings: dict[str, Any] = attrs.field(factory=dict)
    variants: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    """Server with its variant -> settings of its own, `shape` among them."""
    rounds: int = 5
    figure: str = ""
    """Where it is another column than the shape's own."""
    half_of: str = ""
    """The row, above this one, of whose figure half is the rate here: what each server can do, and not a guess."""
    codec: str = "json"
    tls: bool = False
    of_yardstick: str = ""
    of_peer: str = ""
    further: str = ""
    """What else is wanted, in words."""


_TEN = {"connections": 10_000}
_BUSY = {"seconds": 2.0}
_STALL = {"stall": True}
_KEPT = {"namespace": "kept"}
_MOST = {"connections": 18_000, "processes": 3}

ROWS = (
    Row("W3p, 1,000", "W3p", (*_EVERYBODY, "floor"), {"seconds": 3.0}, of_yardstick="≥ 0.8", of_peer="≥ 1.5"),
    Row("W3p, 10,000", "W3p", settings=_TEN | {"seconds": 3.0}, rounds=3, of_yardstick="≥ 0.85", of_peer="≥ 1.5"),
    Row("W3p, 1,000, Protobuf", "W3p", _PEERS, {"seconds": 3.0}, codec="protobuf", of_peer="≥ 1.5"),
    Row(
        "W3p, 1,000, history and positions",
        "W3p",
        ("broker", "broker/kept"),
        {"seconds": 3.0},
        {"broker/kept": _KEPT},
        further="kept / without ≥ 0.9",
    ),
    Row("W3 one in flight, 1,000", "W3", settings=_BUSY, of_yardstick="≥ 0.7", of_peer="≥ 2"),
    Row("W3s, 1,000", "W3s", settings=_BUSY, of_yardstick="≥ 0.7", of_peer="≥ 7"),
    Row("W3s, 10,000", "W3s", settings=_TEN | _BUSY, rounds=3, of_yardstick="≥ 0.7", of_peer="≥ 7"),
    Row("W1, 10,000 clients", "W1", _PEERS, {"seconds": 6.0}, rounds=3, of_peer="≥ 1.5", further="≥ 50,000"),
    Row("W1, 10,000 clients, history", "W1", _PEERS, {"seconds": 6.0} | _KEPT, rounds=3, of_peer="≥ 1.5"),
    Row(
        "W1, 10,000 clients, half load: p99",
        "W1",
        ("broker",),
        {"seconds": 6.0},
        rounds=3,
        half_of="W1, 10,000 clients",
        figure="p99 ms",
        further="≤ 20 ms",
    ),
    Row("W2, one subscription", "W2", of_peer="≤ 1/7", further="≤ 7 KiB"),
    Row(
        "W2, CPU of idle connections",
        "W2",
        ("broker",),
        {"seconds": 55.0},
        rounds=1,
        figure="CPU µs/s/connection",
        further="≤ 2.2 µs",
    ),
    Row("W9", "W9", settings=_BUSY, of_yardstick="≥ 0.65", of_peer="≥ 1.5"),
    Row("W9d", "W9d", settings=_BUSY, of_yardstick="≥ 0.65", of_peer="≥ 1.5"),
    Row("W9b, batch of 100", "W9b", _PEERS, _BUSY, further="≥ 150,000"),
    Row("W9bc, broadcast to 100", "W9bc", _PEERS, _BUSY),
    Row("W10n, connect and subscribe", "W10n", of_yardstick="≥ 0.6", of_peer="≥ 1.5"),
    Row("W10, the same with a JWT", "W10", _PEERS, of_peer="≥ 1.2"),
    Row("W11, client publish", "W11", settings=_BUSY, of_yardstick="≥ 0.6", of_peer="≥ 1.6"),
    Row("W11r, RPC", "W11r", settings=_BUSY, of_yardstick="≥ 0.6", of_peer="≥ 1.6"),
    Row("W11, 10 subscriptions each", "W11", _PEERS, _BUSY | {"subscriptions": 10}, of_peer="≥ 1.6"),
    Row("W11, Protobuf", "W11", _PEERS, _BUSY, codec="protobuf", of_peer="≥ 1.6"),
    Row("TLS: W2", "W2", _PEERS, rounds=3, tls=True, of_peer="≤ 0.4", further="≤ 22 KiB"),
    Row("TLS: W3p, 1,000", "W3p", _PEERS, {"seconds": 3.0}, rounds=3, tls=True, of_peer="≥ 1.3"),
    Row("TLS: W3s, 1,000", "W3s", _PEERS, _BUSY, rounds=3, tls=True, of_peer="≥ 7"),
    Row("TLS: W9", "W9", _PEERS, _BUSY, rounds=3, tls=True, of_peer="≥ 1.3"),
    Row(
        "W7: p99 of those who read",
        "W7",
        ("broker/W3p", "broker/W7"),
        {"seconds": 6.0},
        {"broker/W3p": {"shape": "W3p"}, "broker/W7": {}},
        rounds=3,
        figure="p99 ms",
        further="W7 / W3p ≤ 1.1",
    ),
    Row("W8, back after the loss of Redis", "W8", _PEERS, rounds=3),
    Row(
        "W3p, 18,000: longest stall",
        "W3p",
        _PEERS,
        {"seconds": 4.0} | _STALL | _MOST,
        rounds=3,
        figure="stall ms",
        further="≤ 20 ms",
    ),
    Row(
        "W3s, 18,000: longest stall",
        "W3s",
        _PEERS,
        _BUSY | _STALL | _MOST,
        rounds=3,
        figure="stall ms",
        further="≤ 20 ms",
    ),
    Row(
        "W3p, 18,000 beside 10,000",
        "W3p",
        ("broker", "broker/18,000"),
        _TEN | {"seconds": 4.0, "processes": 3},
        {"broker/18,000": _MOST},
        rounds=3,
        further="within 20 %",
    ),
    Row("W4", "W4", _PEERS, {"seconds": 3.0}, rounds=3),
    Row("W5: p95 of deliveries", "W5", _PEERS, {"seconds": 3.0}, rounds=3),
    Row("W6, 1,000 clients", "W6", _PEERS, rounds=3),
)
"""50,000 subscribers need more open files than 20,000, which is where the machine of the figures ends."""
