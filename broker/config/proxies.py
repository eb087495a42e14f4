"""Rules between the keys of proxies and of those that use them (server-side §1.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from broker.config.readers import quoted
from broker.config.root import Config
from broker.config.schema import values_at
from broker.durations import format_duration
from broker.hooks import DEFAULT
from broker.hooks.options import ProxyOptions, StateOptions
from broker.tls import TlsOptions

__all__ = ["proxy_problems", "used_proxies", "with_proxy_tls"]

Problem = tuple[str, str]

_CLIENT_KINDS: Final = ("connect", "refresh", "disconnect")
_CHANNEL_KINDS: Final = ("subscribe", "publish", "sub_refresh", "cache_empty", "unsubscribe", "state")
_MOST_TEXT: Final = 123
"""Bytes of a reason: what a WebSocket close frame has room for."""


def proxy_problems(config: Config) -> Iterator[Problem]:
    """What is wrong with the proxies that are used."""
    named = {proxy.name for proxy in config.proxies}
    for path, name, _ in _references(config):
        if name != DEFAULT and name not in named:
            yield path, f"no such proxy: {quoted(name)}"
    for path, proxy in used_proxies(config).items():
        yield from _proxy(path, proxy)
    yield from _state(config.channel.state)


def used_proxies(config: Config) -> dict[str, ProxyOptions]:
    """The proxies that something asks, by their paths."""
    named = {proxy.name: proxy for proxy in config.proxies}
    used: dict[str, ProxyOptions] = {}
    for kind in _CLIENT_KINDS:
        switched = getattr(config.client.proxy, kind)
        if switched.enabled:
            used[f"client.proxy.{kind}"] = switched
    for _, name, default in _references(config):
        if name == DEFAULT:
            used[default] = next(value for _, value in values_at(config, default))
        elif name in named:
            used[f"proxies[{name}]"] = named[name]
    return used


def _state(options: StateOptions) -> Iterator[Problem]:
    for name in ("vacated_event_delay", "batch_max_delay"):
        delay = getattr(options, name)
        if delay < 0:
            yield f"channel.state.{name}", f"must not be negative: {format_duration(delay)}"
    if options.batch_max_size < 1:
        yield "channel.state.batch_max_size", f"must be at least 1: {options.batch_max_size}"


def _references(config: Config) -> Iterator[tuple[str, str, str]]:
    """The path and the value of each key that names a proxy, where it counts, and the path of the default one."""
    for place in ("channel.without_namespace", "channel.namespaces.*"):
        for path, options in values_at(config, place):
            for kind in _CHANNEL_KINDS:
                if getattr(options, f"{kind}_proxy_enabled"):
                    yield f"{path}.{kind}_proxy_name", getattr(options, f"{kind}_proxy_name"), f"channel.proxy.{kind}"
    for place in ("rpc.without_namespace", "rpc.namespaces.*"):
        for path, options in values_at(config, place):
            if options.proxy_enabled:
                yield f"{path}.proxy_name", options.proxy_name, "rpc.proxy"


def _proxy(path: str, proxy: ProxyOptions) -> Iterator[Problem]:
    endpoint = proxy.endpoint.reveal()
    if not endpoint:
        yield f"{path}.endpoint", "must be set"
    elif not endpoint.startswith(("http://", "https://")):
        yield f"{path}.endpoint", "gRPC backends are not in this version (give an http:// or https:// address)"
    if proxy.timeout <= 0:
        yield f"{path}.timeout", f"must be more than 0: {format_duration(proxy.timeout)}"
    if proxy.http.max_connections < 1:
        yield f"{path}.http.max_connections", f"must be at least 1: {proxy.http.max_connections}"
    for index, transform in enumerate(proxy.http.status_to_code_transforms):
        here = f"{path}.http.status_to_code_transforms[{index}]"
        error, disconnect = transform.to_error, transform.to_disconnect
        if not transform.status_code:
            yield f"{here}.status_code", "must be set"
        if bool(error.code) == bool(disconnect.code):
            yield here, "needs either to_error.code or to_disconnect.code"
        if disconnect.code and not 3000 <= disconnect.code <= 4999:
            yield f"{here}.to_disconnect.code", f"not from 3000 to 4999: {disconnect.code}"
        for key, text in (("to_error.message", error.message), ("to_disconnect.reason", disconnect.reason)):
            if not text.isascii() or len(text) > _MOST_TEXT:
                yield f"{here}.{key}", f"must be ASCII, of at most {_MOST_TEXT} characters"


def with_proxy_tls(config: Config, read: Callable[[str, TlsOptions], TlsOptions]) -> Config:
    """The configuration with the TLS options of every HTTP proxy as `read` gives them for a path and what is there."""

    def proxy(path: str, options: Any) -> Any:
        if not options.http.tls.enabled:
            return options
        return attrs.evolve(options, http=attrs.evolve(options.http, tls=read(f"{path}.http.tls", options.http.tls)))

    def section(path: str, options: Any) -> Any:
        fields = attrs.fields(type(options))
        return attrs.evolve(
            options, **{each.name: proxy(f"{path}.{each.name}", getattr(options, each.name)) for each in fields}
        )

    return attrs.evolve(
        config,
        client=attrs.evolve(config.client, proxy=section("client.proxy", config.client.proxy)),
        channel=attrs.evolve(config.channel, proxy=section("channel.proxy", config.channel.proxy)),
        rpc=attrs.evolve(config.rpc, proxy=proxy("rpc.proxy", config.rpc.proxy)),
        proxies=tuple(proxy(f"proxies[{each.name}]", each) for each in config.proxies),
    )
