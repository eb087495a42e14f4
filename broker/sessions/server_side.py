"""Subscriptions as the server makes and ends them: API calls, expiry, positions that were lost.

Facts: client protocol §3.14, §3.16.
"""

from __future__ import annotations

import attrs

from broker.channels import Source, SubscribeGrant
from broker.hub import EngineUnavailable, SubscribeUser, UnsubscribeUser
from broker.protocol import SubscribeResult, codes
from broker.sessions import subscriptions
from broker.sessions.client import Client, ClientSubscription, Status

__all__ = ["end", "insufficient", "subscribe", "unsubscribe"]


async def subscribe(client: Client, command: SubscribeUser) -> None:
    """An API call subscribes this client. One that is subscribed already sees nothing."""
    channel = command.channel
    if channel in client.subs:
        return
    if len(client.subs) >= client.context.rules.client.channel_limit:
        client.disconnect(codes.CHANNEL_LIMIT)
        return
    resolved = client.context.rules.channels.resolve(channel)
    if resolved is None:
        return  # its namespace went with a reload
    grant = attrs.evolve(
        SubscribeGrant.of(resolved, Source.SERVER_API),
        positioned=command.positioned,
        recoverable=command.recoverable,
        push_join_leave=command.push_join_leave,
        emit_presence=command.presence,
        emit_join_leave=command.join_leave,
        auto_cache_recover=False,
        expire_at=command.expire_at,
        chan_info=command.info,
        data=command.data,
    )
    sub = subscriptions.reserve(client, channel, server_side=True)
    try:
        result = subscriptions.commit(
            await subscriptions.prepare(client, channel, sub, grant, resolved.history_meta_ttl)
        )
    except BaseException as failure:
        await subscriptions.abandon(client, channel, sub)
        if isinstance(failure, codes.Disconnected):
            client.disconnect(failure.disconnect)
        elif not isinstance(failure, codes.ClientError | EngineUnavailable):
            raise
        return
    push = SubscribeResult(
        recoverable=result.recoverable,
        epoch=result.epoch,
        offset=result.offset,
        positioned=result.positioned,
        data=result.data,
    )
    client.reply(client.wire.codec.push_subscribe(channel, push))
    await subscriptions.announce(client, channel, sub)


async def unsubscribe(client: Client, command: UnsubscribeUser) -> None:
    """An API call ends one subscription, or all of them."""
    channels = [command.channel] if command.channel else list(client.subs)
    for channel in channels:
        sub = client.subs.get(channel)
        if sub is not None:
            await end(client, channel, sub, command.why)


async def end(client: Client, channel: str, sub: ClientSubscription, why: codes.Unsubscribe) -> None:
    """End a subscription and tell its client."""
    if client.status is not Status.CONNECTED or client.subs.get(channel) is not sub:
        return
    told = sub.committed
    del client.subs[channel]
    client.detach(sub)
    if told:
        client.push_unsubscribe(channel, why)
    await subscriptions.forget(client, channel, sub)


async def insufficient(client: Client, channel: str, sub: ClientSubscription) -> None:
    """A positioned subscription missed something: its client recovers by subscribing anew."""
    if client.subs.get(channel) is not sub:
        return
    if sub.server_side:
        # there is nothing a client could do about one channel that the server chose
        client.disconnect(codes.INSUFFICIENT_STATE)
        return
    await end(client, channel, sub, codes.INSUFFICIENT)
