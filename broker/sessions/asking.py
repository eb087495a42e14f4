"""Asking the backend: what a client wants becomes an event, and what the backend says becomes what the session does.

Whoever asks here waits, and finds afterwards that its client may be gone: then `Disconnected` ends the command, and
no answer is sent. Facts: client protocol §3.15, server-side §4.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict, TypeVar

from broker.channels import Resolved, Source, SubscribeGrant
from broker.hooks import (
    CacheEmptyEvent,
    ConnectEvent,
    ConnectResult,
    Hook,
    HookFailed,
    PublishEvent,
    PublishResult,
    RefreshEvent,
    RefreshResult,
    RpcEvent,
    SubRefreshEvent,
    SubRefreshResult,
    SubscribeEvent,
)
from broker.protocol import ConnectRequest, codes
from broker.sessions.client import Client, Status

__all__ = ["cache_empty", "connect", "publish", "refresh", "rpc", "sub_refresh", "subscribe", "who"]

E = TypeVar("E")
R = TypeVar("R")


class _Who(TypedDict):
    client: str
    address: str
    transport: str
    protocol: str
    user: str
    meta: bytes
    headers: Mapping[str, str]
    emulated_headers: Mapping[str, str]


def who(client: Client) -> _Who:
    """What every event says of its client."""
    return {
        "client": client.client_id,
        "address": client.peer.address,
        "transport": client.peer.transport,
        "protocol": "protobuf" if client.wire.codec.binary else "json",
        "user": client.user,
        "meta": client.meta,
        "headers": client.peer.headers,
        "emulated_headers": client.emulated_headers,
    }


async def _ask(client: Client, hook: Hook[E, R], event: E) -> R | None:
    """The backend's answer to a command.

    Raises:
        ClientError: the backend's, or 100 if it gave no answer.
        Disconnected: the backend's, or because the client has gone.
    """
    try:
        answer = await hook(event)
    except HookFailed:
        raise codes.ClientError(codes.INTERNAL) from None
    if client.status is Status.CLOSED:  # it has been disconnected, and nobody got round to cancel this
        raise codes.Disconnected(codes.CONNECTION_CLOSED)
    return answer


async def connect(
    client: Client, hook: Hook[ConnectEvent, ConnectResult], request: ConnectRequest
) -> ConnectResult | None:
    """May this client connect, and as whom? None for nobody."""
    event = ConnectEvent(
        **who(client),
        data=bytes(request.data),
        name=request.name or "",
        version=request.version or "",
        channels=tuple(request.subs or ()),
    )
    return await _ask(client, hook, event)


async def subscribe(client: Client, resolved: Resolved, data: bytes) -> SubscribeGrant:
    """May this client subscribe, and how? No result is a yes."""
    hook = client.context.rules.backends.subscribe[resolved.options.subscribe_proxy_name]
    result = await _ask(client, hook, SubscribeEvent(**who(client), channel=resolved.channel, data=data))
    if result is None:
        return SubscribeGrant.of(resolved, Source.SUBSCRIBE_PROXY)
    return SubscribeGrant.of(
        resolved,
        Source.SUBSCRIBE_PROXY,
        override=result.override,
        expire_at=max(result.expire_at, 0),
        chan_info=result.info,
        data=result.data,
    )


async def publish(client: Client, resolved: Resolved, data: bytes) -> PublishResult | None:
    """May this client publish, and what? None for what it sent."""
    hook = client.context.rules.backends.publish[resolved.options.publish_proxy_name]
    return await _ask(client, hook, PublishEvent(**who(client), channel=resolved.channel, data=data))


async def rpc(client: Client, name: str, method: str, data: bytes) -> bytes:
    """What a method of the backend gives; `name` is that of the proxy."""
    hook = client.context.rules.backends.rpc[name]
    result = await _ask(client, hook, RpcEvent(**who(client), method=method, data=data))
    return b"" if result is None else result.data


async def cache_empty(client: Client, channel: str) -> bool:
    """There is no latest publication: whether the backend has published one meanwhile. No answer is a no."""
    backends, resolved = client.context.rules.backends, client.context.rules.channels.resolve(channel)
    if resolved is None or not resolved.options.cache_empty_proxy_enabled:
        return False
    hook = backends.cache_empty.get(resolved.options.cache_empty_proxy_name)
    if hook is None:
        return False
    try:
        result = await _heard(hook, CacheEmptyEvent(channel=channel))
    except HookFailed:
        return False
    return result is not None and result.populated


async def refresh(client: Client, hook: Hook[RefreshEvent, RefreshResult]) -> RefreshResult:
    """Does the connection live on? An answer without a result, whatever it holds, is a no.

    Raises:
        HookFailed: no answer, so nobody knows.
    """
    return await _heard(hook, RefreshEvent(**who(client))) or RefreshResult(expired=True)


async def sub_refresh(client: Client, hook: Hook[SubRefreshEvent, SubRefreshResult], channel: str) -> SubRefreshResult:
    """Does the subscription live on? As `refresh`."""
    return await _heard(hook, SubRefreshEvent(**who(client), channel=channel)) or SubRefreshResult(expired=True)


async def _heard(hook: Hook[E, R], event: E) -> R | None:
    """No command waits for this answer, so there is nobody to get an error."""
    try:
        return await hook(event)
    except (codes.ClientError, codes.Disconnected):
        return None
