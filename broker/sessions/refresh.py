"""Expiry pushed back: refresh, sub_refresh, and the API's refresh. Facts: client protocol §3.4, §3.12."""

from __future__ import annotations

from collections.abc import Collection

from broker.channels import Source
from broker.hub import RefreshUser
from broker.protocol import RefreshRequest, SubRefreshRequest, codes
from broker.sessions.client import Client
from broker.sessions.connect import verify_connection
from broker.sessions.subscribe import verify_subscription

__all__ = ["by_server", "refresh", "sub_refresh"]


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
