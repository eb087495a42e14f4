"""Who is asked about what: every hook of one configuration, by event and by the name that channels and methods give."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, final

import attrs

from broker.channels.options import ChannelsOptions
from broker.hooks import events as ev
from broker.hooks.hook import Hook
from broker.hooks.http import HttpCarrier
from broker.hooks.options import ChannelProxies, ClientProxies, NamedProxyOptions, ProxyOptions
from broker.observe import Calls
from broker.reader import Stage

__all__ = ["DEFAULT", "NO_BACKENDS", "Backends", "CallsBy", "Proxies", "http_backends"]

DEFAULT = "default"
"""The name by which a namespace means the proxy of its kind."""

CallsBy = Mapping[tuple[str, str, str], Calls]
"""Calls by carrier, event and name; makes what is not there."""

E = TypeVar("E")
R = TypeVar("R")


@final
@attrs.frozen(kw_only=True)
class Backends:
    """Built whole, and replaced whole by a reload.

    Attributes:
        disconnect: told, not asked, as are unsubscribe and state.
        subscribe, publish, sub_refresh, cache_empty, unsubscribe, state: by the `…_proxy_name` of a namespace; rpc by
            that of a method's.
        channel_hooks: pairs of event and name for a channel, where more than its namespace says who is asked.
        method_hook: the name for a method in the same way, "" where its namespace says it.
        http_headers: names, in lower case, of the headers that some hook wants from a client's request.
        emulated_headers: the same for those of a client's connect command.
        carriers: what has to be closed when nobody asks any more.
    """

    connect: Hook[ev.ConnectEvent, ev.ConnectResult] | None = None
    refresh: Hook[ev.RefreshEvent, ev.RefreshResult] | None = None
    disconnect: Hook[ev.DisconnectEvent, ev.Noted] | None = None
    subscribe: Mapping[str, Hook[ev.SubscribeEvent, ev.SubscribeResult]] = attrs.field(factory=dict)
    publish: Mapping[str, Hook[ev.PublishEvent, ev.PublishResult]] = attrs.field(factory=dict)
    sub_refresh: Mapping[str, Hook[ev.SubRefreshEvent, ev.SubRefreshResult]] = attrs.field(factory=dict)
    rpc: Mapping[str, Hook[ev.RpcEvent, ev.RpcResult]] = attrs.field(factory=dict)
    cache_empty: Mapping[str, Hook[ev.CacheEmptyEvent, ev.CacheEmptyResult]] = attrs.field(factory=dict)
    unsubscribe: Mapping[str, Hook[ev.UnsubscribeEvent, ev.Noted]] = attrs.field(factory=dict)
    state: Mapping[str, Hook[ev.StateEvent, ev.Noted]] = attrs.field(factory=dict)
    channel_hooks: Callable[[str], tuple[tuple[str, str], ...]] | None = None
    method_hook: Callable[[str], str] = lambda method: ""
    http_headers: frozenset[str] = frozenset()
    emulated_headers: frozenset[str] = frozenset()
    carriers: tuple[HttpCarrier[Any, Any], ...] = ()

    @property
    def told(self) -> bool:
        """Whether some hook is told what has happened, not only asked."""
        return self.disconnect is not None or bool(self.unsubscribe) or bool(self.state)

    def close(self) -> None:
        """Others are asked from now on. Questions under way are still answered."""
        for carrier in self.carriers:
            carrier.close()


NO_BACKENDS = Backends()


@final
@attrs.frozen(kw_only=True)
class Proxies:
    """The proxies of a configuration, and who uses them."""

    client: ClientProxies
    channel: ChannelProxies
    rpc: ProxyOptions
    named: tuple[NamedProxyOptions, ...]
    channels: ChannelsOptions
    rpc_names: frozenset[str]
    """The `proxy_name` of every kind of methods that has a proxy."""


def http_backends(proxies: Proxies, calls: CallsBy, stage: Stage) -> Backends:
    """The hooks that a configuration asks for.

    Raises:
        ValueError: an endpoint, a header or a certificate cannot be used.
    """
    return _Building(proxies, calls, stage).backends()


@final
class _Building:
    def __init__(self, proxies: Proxies, calls: CallsBy, stage: Stage) -> None:
        self._stage = stage
        self._proxies = proxies
        self._named = {each.name: each for each in proxies.named}
        self._calls = calls
        self._used: list[ProxyOptions] = []
        self._carriers: list[HttpCarrier[Any, Any]] = []

    def backends(self) -> Backends:
        client, channel = self._proxies.client, self._proxies.channel
        connect = client.connect if client.connect.enabled else None
        refresh = client.refresh if client.refresh.enabled else None
        disconnect = client.disconnect if client.disconnect.enabled else None
        return Backends(
            connect=None if connect is None else self._hook("connect", DEFAULT, connect, ev.ConnectResult),
            refresh=None if refresh is None else self._hook("refresh", DEFAULT, refresh, ev.RefreshResult),
            disconnect=None if disconnect is None else self._hook("disconnect", DEFAULT, disconnect, ev.Noted),
            subscribe=self._by_name("subscribe", channel.subscribe, ev.SubscribeResult),
            publish=self._by_name("publish", channel.publish, ev.PublishResult),
            sub_refresh=self._by_name("sub_refresh", channel.sub_refresh, ev.SubRefreshResult),
            cache_empty=self._by_name("cache_empty", channel.cache_empty, ev.CacheEmptyResult),
            unsubscribe=self._by_name("unsubscribe", channel.unsubscribe, ev.Noted),
            state=self._by_name("state", channel.state, ev.Noted),
            rpc=self._hooks("rpc", self._proxies.rpc_names, self._proxies.rpc, ev.RpcResult),
            http_headers=frozenset(name.lower() for each in self._used for name in each.http_headers),
            emulated_headers=frozenset(name.lower() for each in self._used for name in each.emulated_headers),
            carriers=tuple(self._carriers),
        )

    def _by_name(self, kind: str, default: ProxyOptions, result: type[R]) -> dict[str, Hook[Any, R]]:
        channels = self._proxies.channels
        names = {
            getattr(options, f"{kind}_proxy_name")
            for options in (channels.without_namespace, *channels.namespaces)
            if getattr(options, f"{kind}_proxy_enabled")
        }
        return self._hooks(kind, names, default, result)

    def _hooks(
        self, kind: str, names: Iterable[str], default: ProxyOptions, result: type[R]
    ) -> dict[str, Hook[Any, R]]:
        return {
            name: self._hook(kind, name, default if name == DEFAULT else self._named[name], result) for name in names
        }

    def _hook(self, kind: str, name: str, options: ProxyOptions, result: type[R]) -> Hook[Any, R]:
        self._used.append(options)
        try:
            carrier: HttpCarrier[Any, R] = HttpCarrier(options, result, self._stage)
        except (ValueError, ssl.SSLError) as error:
            raise ValueError(f"the {kind} proxy {name} cannot be used: {error}") from None
        self._carriers.append(carrier)
        return Hook(kind, name, carrier, self._calls["http", kind, name], options.http.max_connections)
