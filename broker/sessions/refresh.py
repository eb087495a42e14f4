"""Expiry pushed back: refresh, sub_refresh, and the API's refresh. Facts: client protocol §3.4, §3.12."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from broker.channels import Source
from broker.hooks import HookFailed
from broker.hub import RefreshUser
from broker.protocol import RefreshRequest, SubRefreshRequest, codes
from broker.sessions import asking
from broker.sessions.client import Client, ClientSubscription, Status
from broker.sessions.connect import verify_connection
from broker.sessions.subscribe import verify_subscription

__all__ = ["by_backend", "by_server", "refresh", "sub_by_backend", "sub_refresh"]

_ANOTHER_TRY: Final = 60
"""Seconds that a connection or subscription lives on when its backend gives no answer."""


async def refresh(client: Client, id: int, request: RefreshRequest) -> None:
    """A new connection token for the same user."""
    if not request.token or not client.client_side_refresh:
        raise codes.Disconnected(codes.BAD_PROTOCOL)
    rules = client.context.rules
    try:
        claims = await verify_connection(client, request.token)
    except codes.ClientError as failure:
        if failure.error is codes.TOKEN_EXPIRED:
            raise codes.Disconnected(codes.CONNECTION_EXPIRED) from None
        raise
    if claims.user != client.user:
        raise codes.Disconnected(codes.INVALID_TOKEN)
    if _channels_changed(client, claims.subs):
        raise codes.Disconnected(codes.INSUFFICIENT_STATE)
    ttl = 0
    if claims.expire_at and not rules.client.insecure:
        if client.seconds_left(claims.expire_at) <= 0:
            raise codes.ClientError(codes.EXPIRED)
        ttl = client.set_expiry(claims.expire_at)
        client.arm()
    if claims.info:
        client.info = claims.info
    client.reply(client.wire.codec.refresh(id, ttl > 0, ttl))


def _channels_changed(client: Client, channels: Collection[str]) -> bool:
    """Whether the subscriptions that a new token gives differ from those that the client has by its old one."""
    if any(not client.subscribed(channel) for channel in channels):
        return True
    return any(
        sub.source == Source.CONNECTION_TOKEN and channel not in channels for channel, sub in client.subs.items()
    )


async def sub_refresh(client: Client, id: int, request: SubRefreshRequest) -> None:
    """A new subscription token for the same channel."""
    channel = request.channel
    if not channel:
        raise codes.Disconnected(codes.BAD_PROTOCOL)
    sub = client.subs.get(channel)
    if sub is None or not sub.committed:
        raise codes.ClientError(codes.PERMISSION_DENIED)
    if sub.server_side or not sub.client_side_refresh:
        raise codes.Disconnected(codes.BAD_PROTOCOL)
    if not request.token:
        raise codes.ClientError(codes.BAD_REQUEST)
    resolved = client.context.rules.channels.for_client(channel)
    try:
        grant = await verify_subscription(client, resolved, request.token)
    except codes.ClientError as failure:
        if failure.error is codes.PERMISSION_DENIED:
            raise codes.Disconnected(codes.INVALID_TOKEN) from None
        raise  # Centrifugo takes an expired one for a token without expiry, and the deadline is gone
    if client.subs.get(channel) is not sub:
        raise codes.ClientError(codes.PERMISSION_DENIED)  # it ended while its token was verified
    ttl = 0
    if grant.expire_at:
        ttl = client.seconds_left(grant.expire_at)
        if ttl <= 0:
            raise codes.ClientError(codes.EXPIRED)
    sub.expire_at = grant.expire_at
    sub.info = grant.chan_info
    client.reply(client.wire.codec.sub_refresh(id, ttl > 0, ttl))


def by_server(client: Client, command: RefreshUser) -> None:
    """An API call gives the connection another expiry, or ends it as expired."""
    if command.expired or (command.expire_at and client.seconds_left(command.expire_at) <= 0):
        client.disconnect(codes.CONNECTION_EXPIRED)
        return
    ttl = client.set_expiry(command.expire_at)
    if command.info:
        client.info = command.info
    client.arm()
    client.reply(client.wire.codec.push_refresh(ttl > 0, ttl))


async def by_backend(client: Client) -> None:
    """The connection's time is over: the backend says whether it gets more. Its client sees nothing of it."""
    hook = client.context.rules.backends.refresh
    if hook is None:  # a reload took it away
        client.disconnect(codes.CONNECTION_EXPIRED)
        return
    try:
        result = await asking.refresh(client, hook)
    except HookFailed:
        if client.status is Status.CONNECTED:
            client.set_expiry(int(client.context.wall_clock()) + _ANOTHER_TRY, grace=False)
            client.arm()
        return
    if client.status is not Status.CONNECTED:
        return
    if result.expired or client.seconds_left(result.expire_at) <= 0:
        client.disconnect(codes.CONNECTION_EXPIRED)
        return
    client.set_expiry(result.expire_at, grace=False)
    client.arm()
    if result.info is not None:
        client.info = result.info
    if result.meta is not None:
        client.meta = result.meta


async def sub_by_backend(client: Client, channel: str, sub: ClientSubscription) -> bool:
    """A subscription's time is over: whether its backend gives it more."""
    resolved = client.context.rules.channels.resolve(channel)
    hooks = client.context.rules.backends.sub_refresh
    hook = hooks.get(resolved.options.sub_refresh_proxy_name) if resolved is not None else None
    if hook is None:  # a reload took it away
        return False
    now = int(client.context.wall_clock())
    try:
        result = await asking.sub_refresh(client, hook, channel)
    except HookFailed:
        sub.expire_at = now + _ANOTHER_TRY
        return True
    if result.expired or 0 < result.expire_at < now:
        return False
    sub.expire_at = max(result.expire_at, 0)
    if result.info:
        sub.info = result.info
    return True
