"""The metrics endpoint: Centrifugo's names over our counters and structures, read when Prometheus asks.

Facts: https://centrifugal.dev/docs/server/observability#exported-metrics.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import final

import attrs
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry
from prometheus_client.core import (
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from broker.observe.counters import COMMAND_BUCKETS, Counters, Durations

__all__ = ["CONTENT_TYPE", "Metrics", "Read", "Reader", "render"]


@final
@attrs.frozen
class Read:
    """What the structures themselves tell when they are asked. `deliveries`: pushes handed to connections so far.
    `events_waiting`: what backends have yet to be told, by event."""

    nodes: int
    clients: int
    users: int
    subscriptions: int
    channels: int
    deliveries: int
    events_waiting: Mapping[str, int] = MappingProxyType({})


Reader = Callable[[], Read]

_NS = ("channel_namespace",)  # always empty: Centrifugo fills it only in its PRO edition


CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@final
class Metrics:
    """Everything that one process counts."""

    def __init__(self, counters: Counters, read: Reader, version: str, insecure_flags: int) -> None:
        self._ours = _Collector(counters, read, version, insecure_flags)

    def families(self) -> list[Metric]:
        """All of it, that of the process included."""
        families = self.ours()
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            families += collector.collect()
        return families

    def ours(self) -> list[Metric]:
        """What the broker counts."""
        return list(self._ours.collect())

    def render(self) -> bytes:
        return render(self.families())


def render(families: Iterable[Metric]) -> bytes:
    """Prometheus text."""
    registry = CollectorRegistry()
    registry.register(_Given(list(families)))
    return _OWN_NAMES.sub(rb"\1\2 ", generate_latest(registry))


@final
class _Given(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


_OWN_NAMES = re.compile(
    rb"^(# (?:HELP|TYPE) )(centrifugo_\w+_"
    rb"(?:count|errors|disconnects|unsubscribes|limit|recover|accepted|received|sent|size))_total ",
    re.MULTILINE,
)
"""The library writes `_total` into the header of every counter; Centrifugo's names of counters do not have it."""


@final
class _Collector(Collector):
    def __init__(self, counters: Counters, read: Reader, version: str, insecure_flags: int) -> None:
        self._counters = counters
        self._read = read
        self._version = version
        self._insecure_flags = insecure_flags

    def collect(self) -> Iterator[Metric]:
        read = self._read()
        yield from self._node(read)
        yield from self._clients()
        yield from self._traffic()
        yield from self._api()
        yield from self._hooks(read)

    def _node(self, read: Read) -> Iterator[Metric]:
        c = self._counters
        yield _gauge("node_num_nodes", "Nodes of the cluster.", (), {(): read.nodes})
        yield _gauge("node_num_clients", "Connected clients.", (), {(): read.clients})
        yield _gauge("node_num_users", "Connected users.", (), {(): read.users})
        yield _gauge("node_num_subscriptions", "Subscriptions.", (), {(): read.subscriptions})
        yield _gauge("node_num_channels", "Channels with subscribers.", (), {(): read.channels})
        yield _gauge(
            "client_connections_inflight",
            "Connected clients.",
            ("transport", "accept_protocol", "client_name", "client_version"),
            {("websocket", "", "", ""): read.clients},
        )
        yield _gauge(
            "client_subscriptions_inflight", "Subscriptions.", ("client_name", *_NS), {("", ""): read.subscriptions}
        )
        yield _gauge("node_build", "Version of the node.", ("version",), {(self._version,): 1.0})
        yield _gauge("insecure_flags", "Insecure options that are on.", (), {(): float(self._insecure_flags)})
        yield _by_type("node_messages_sent_count", "Messages sent by this node to the engine.", c.sent)
        yield _by_type("node_messages_received_count", "Messages received from the engine.", c.received)
        yield _count(
            "node_control_ignored_count",
            "Messages of other nodes that were not carried out.",
            ("reason",),
            {(reason,): n for reason, n in c.control_ignored.items()},
        )
        yield _count("node_action_count", "Actions.", ("action", *_NS), {(k, ""): v for k, v in c.actions.items()})
        yield _count("node_client_connection_limit", "Connections refused by a limit.", (), {(): c.connection_limit})
        yield _count(
            "node_engine_pauses_count",
            "Times that messages of the engine had to wait for a channel that was full.",
            (),
            {(): c.pauses},
        )
        yield _count(
            "transport_messages_sent",
            "Pushes of channels handed to connections.",
            ("transport", "frame_type", *_NS),
            {("websocket", "push", ""): read.deliveries},
        )
        yield _count(
            "node_connection_crashes_count", "Connections ended by an error of ours.", (), {(): c.connection_crashes}
        )

    def _clients(self) -> Iterator[Metric]:
        c = self._counters
        yield from _durations(
            "client_command_duration_seconds",
            "Duration of client commands.",
            ("method", *_NS),
            {(method, ""): durations for method, durations in c.commands.items()},
        )
        yield _count(
            "client_num_reply_errors",
            "Errors in replies to clients.",
            ("method", "code", *_NS),
            {(method, str(code), ""): n for (method, code), n in c.reply_errors.items()},
        )
        yield _count(
            "client_num_server_unsubscribes",
            "Unsubscribes by the server.",
            ("code", *_NS),
            {(str(code), ""): n for code, n in c.server_unsubscribes.items()},
        )
        yield _count(
            "client_num_server_disconnects",
            "Disconnects by the server.",
            ("code",),
            {(str(code),): n for code, n in c.server_disconnects.items()},
        )
        yield _count(
            "client_recover",
            "Recoveries.",
            ("recovered", *_NS, "has_recovered_publications"),
            {("yes" if ok else "no", "", "yes" if some else "no"): n for (ok, some), n in c.recovered.items()},
        )
        yield _histogram(
            "client_ping_pong_duration_seconds",
            "Time from a ping to its pong.",
            ("transport",),
            {(transport,): durations for transport, durations in c.ping_pong.items()},
        )
        yield _count(
            "client_connections_accepted",
            "Accepted connections.",
            ("transport", "accept_protocol", "client_name", "client_version"),
            {
                (transport, "", _registered("named", named), _registered("versioned", versioned)): n
                for (transport, named, versioned), n in c.accepted.items()
            },
        )
        yield _count(
            "client_subscriptions_accepted",
            "Accepted subscriptions.",
            ("client_name", *_NS),
            {("", ""): c.subscribed},
        )

    def _traffic(self) -> Iterator[Metric]:
        c = self._counters
        yield _count(
            "transport_messages_received",
            "Frames received.",
            ("transport", "frame_type", *_NS),
            {(transport, "", ""): traffic.frames for transport, traffic in c.received_from.items()},
        )
        yield _count(
            "transport_messages_received_size",
            "Bytes of frames received.",
            ("transport", "frame_type", *_NS),
            {(transport, "", ""): traffic.size for transport, traffic in c.received_from.items()},
        )
        yield _count(
            "transport_outgoing_close_count",
            "Connections closed with a code.",
            ("transport", "code"),
            {(transport, str(code)): n for (transport, code), n in c.transport_closed.items()},
        )
        yield _count(
            "broker_publish_suppressed_count",
            "Publications that were not made.",
            ("reason", *_NS),
            {(reason, ""): n for reason, n in c.suppressed.items()},
        )

    def _api(self) -> Iterator[Metric]:
        c = self._counters
        yield from _durations(
            "api_command_duration_seconds",
            "Duration of API commands.",
            ("protocol", "method"),
            {key: durations for key, durations in c.api_commands.items()},
        )
        yield _count(
            "api_command_errors_total",
            "Errors of API commands.",
            ("protocol", "method", "error"),
            {key: n for key, n in c.api_errors.items()},
        )

    def _hooks(self, read: Read) -> Iterator[Metric]:
        c = self._counters
        hook = ("protocol", "type", "name")
        yield from _durations(
            "proxy_duration_seconds",
            "Duration of calls to backends.",
            hook,
            {key: calls.durations for key, calls in c.hooks.items()},
        )
        yield _count(
            "proxy_errors",
            "Calls to backends that gave no answer.",
            hook,
            {key: calls.errors for key, calls in c.hooks.items()},
        )
        yield _gauge(
            "proxy_inflight_requests",
            "Calls to backends under way.",
            hook,
            {key: calls.inflight for key, calls in c.hooks.items()},
        )
        yield _gauge(
            "hook_events_waiting",
            "Events that backends have yet to be told of.",
            ("type",),
            {(kind,): n for kind, n in read.events_waiting.items()},
        )
        yield _count(
            "hook_events_dropped_total",
            "Events that backends were never told of.",
            ("type", "reason"),
            {key: n for key, n in c.events_dropped.items()},
        )
        in_process = {key[1:]: calls for key, calls in c.hooks.items() if key[0] == "python"}
        yield _count(
            "hook_loop_seconds_total",
            "Time that a Python hook had the event loop to itself.",
            hook[1:],
            {key: calls.loop_seconds for key, calls in in_process.items()},
        )
        yield _gauge(
            "hook_loop_longest_seconds",
            "Longest time that a Python hook held the event loop without a pause.",
            hook[1:],
            {key: calls.loop_longest for key, calls in in_process.items()},
        )


def _registered(adjective: str, given: bool) -> str:
    return "unregistered" if given else f"un{adjective}"


def _by_type(name: str, text: str, values: Mapping[str, int]) -> Metric:
    kinds = ("publication", "join", "leave", "control")
    return _count(name, text, ("type", *_NS), {(kind, ""): values.get(kind, 0) for kind in kinds})


def _count(name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]) -> Metric:
    family = Metric(f"centrifugo_{name.removesuffix('_total')}", text, "counter")
    for key, value in values.items():
        family.add_sample(f"centrifugo_{name}", dict(zip(labels, key, strict=True)), value)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(f"centrifugo_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _durations(
    name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], Durations]
) -> Iterator[Metric]:
    summary = SummaryMetricFamily(f"centrifugo_{name}", text, labels=labels)
    for key, durations in values.items():
        summary.add_metric(key, count_value=durations.count, sum_value=durations.total)
    yield summary
    yield _histogram(f"{name}_histogram", text, labels, values)


def _histogram(name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], Durations]) -> Metric:
    family = HistogramMetricFamily(f"centrifugo_{name}", text, labels=labels)
    for key, durations in values.items():
        buckets, below = [], 0
        for bound, count in zip((*COMMAND_BUCKETS, float("inf")), durations.buckets, strict=True):
            below += count
            buckets.append(("+Inf" if bound == float("inf") else repr(bound), below))
        family.add_metric(key, buckets, durations.total)
    return family
