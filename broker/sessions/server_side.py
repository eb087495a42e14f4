"""Subscriptions as the server makes and ends them: API calls, expiry, positions that were lost.

Facts: client protocol §3.14, §3.16.
"""

from __future__ import annotations

import attrs

from broker.channels import Source, SubscribeGrant
from broker.eager import own_task
from broker.hub import EngineUnavailable, SubscribeUser, UnsubscribeUser
from broker.protocol import NotJson, codes
from broker.sessions import subscriptions, telling
from broker.sessions.client import Client, ClientSubscription, Status
from broker.sessions.subscriptions import Wanted

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
        recovery_mode_cache=False,
        auto_cache_recover=False,
        push_join_leave=command.push_join_leave,
        emit_presence=command.presence,
        emit_join_leave=command.join_leave,
        expire_at=command.expire_at,
        chan_info=command.info,
        data=command.data,
    )
    since = command.recover_since
    wanted = Wanted() if since is None else Wanted(recover=True, since=since)
    sub = subscriptions.reserve(client, channel, server_side=True)
    try:
        result = subscriptions.commit(
            await subscriptions.prepare(client, channel, sub, grant, resolved.history_meta_ttl, wanted)
        )
        # the push names the position; what was missed since then is not in it, as in Centrifugo
        push = client.wire.codec.push_subscribe(channel, result)
    except Exception as failure:  # one that is cancelled is cleaned up after with its connection
        await subscriptions.abandon(client, channel, sub)
        if isinstance(failure, codes.Disconnected):
            client.disconnect(failure.disconnect)
        elif isinstance(failure, NotJson):
            client.disconnect(codes.INAPPROPRIATE_PROTOCOL)
        elif not isinstance(failure, codes.ClientError | EngineUnavailable):
            raise
        return
    client.reply(push)
    await subscriptions.announce(client, channel, sub)


async def unsubscribe(client: Client, command: UnsubscribeUser) -> None:
    """An API call ends one subscription, or all of them."""
    channels = [command.channel] if command.channel else list(client.subs)
    for channel in channels:
        sub = client.subs.get(channel)
        if sub is None:
            continue
        if not sub.committed:  # it would come back if it were ended now: its client was not told yet
            await own_task()
            await sub.wait_settled()
        await end(client, channel, sub, command.why)


async def end(client: Client, channel: str, sub: ClientSubscription, why: codes.Unsubscribe) -> None:
    """End a subscription that was committed, and tell its client."""
    if client.status is not Status.CONNECTED or client.subs.get(channel) is not sub:
        return
    del client.subs[channel]
    client.detach(sub)
    telling.subscription_over(client, channel, sub, why)
    client.push_unsubscribe(channel, why)
    await subscriptions.leave(client, channel, sub)


async def insufficient(client: Client, channel: str, sub: ClientSubscription) -> None:
    """A positioned subscription missed something: its client recovers by subscribing anew."""
    if client.subs.get(channel) is not sub:
        return
    if sub.server_side:
        # there is nothing a client could do about one channel that the server chose
        client.disconnect(codes.INSUFFICIENT_STATE)
        return
    await end(client, channel, sub, codes.INSUFFICIENT)
