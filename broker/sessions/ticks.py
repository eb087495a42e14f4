"""What happens to a connected client now and then: presence refresh, subscription expiry, position checks.

Facts: client protocol §3.7, §3.10, §3.12.
"""

from __future__ import annotations

from typing import Final

import trio

from broker.eager import own_task
from broker.hub import EngineUnavailable, HistoryQuery
from broker.protocol import StreamPosition, codes
from broker.sessions import refresh, server_side, subscriptions
from broker.sessions.client import Client, ClientSubscription, Status

__all__ = ["tick"]

_ON_ITS_WAY: Final = 1.0
"""Seconds after which a publication that the engine has, and has not delivered here, counts as lost."""


async def tick(client: Client) -> None:
    """One tick of `client.presence_update_interval` over all subscriptions of a client."""
    for channel, sub in list(client.subs.items()):
        if client.status is not Status.CONNECTED:
            return
        if not sub.committed or client.subs.get(channel) is not sub:
            continue
        if _expired(client, sub):
            if not sub.client_side_refresh and await refresh.sub_by_backend(client, channel, sub):
                continue
            if client.subs.get(channel) is not sub:
                continue  # it ended while its backend was asked
            if sub.server_side:
                client.disconnect(codes.SUBSCRIPTION_EXPIRED)
                return
            await server_side.end(client, channel, sub, codes.EXPIRED_SUBSCRIPTION)
            continue
        try:
            if sub.presence:
                await _refresh_presence(client, channel, sub)
            if sub.positioned:
                await _check_position(client, channel, sub)
        except EngineUnavailable:
            continue  # the next tick tries again


def _expired(client: Client, sub: ClientSubscription) -> bool:
    delay = client.context.rules.client.expired_sub_close_delay
    return sub.expire_at > 0 and client.context.wall_clock() > sub.expire_at + delay


async def _refresh_presence(client: Client, channel: str, sub: ClientSubscription) -> None:
    try:
        await client.context.node.add_presence(channel, client.client_id, client.client_info(channel))
    except trio.Cancelled:
        client.subs.setdefault(channel, sub)  # the store may have it: for the clean-up, if nobody else cares for it
        raise
    now = client.subs.get(channel)
    if now is not sub and (now is None or not now.presence):
        # it ended while the store was writing: what was put back must go again
        await subscriptions.leave(client, channel, sub)


async def _check_position(client: Client, channel: str, sub: ClientSubscription) -> None:
    now = trio.current_time()
    delay = client.context.rules.client.channel_position_check_delay
    if delay <= 0 or now - sub.checked_at < delay:
        return
    local = sub.channel
    known = local.position(sub) if local is not None else None
    if local is None or known is None:
        return
    page = await client.context.node.history(channel, HistoryQuery(), sub.meta_ttl)
    if client.subs.get(channel) is not sub or local.position(sub) != known or local.busy:
        return  # it moved while we asked, or has more to tell: no verdict
    if page.top != known:
        client.peer.run(_look_again(client, channel, sub, known))
        return
    sub.checked_at = now


async def _look_again(client: Client, channel: str, sub: ClientSubscription, known: StreamPosition) -> None:
    """An engine elsewhere may have read what it has not delivered yet."""
    await own_task()
    await trio.sleep(_ON_ITS_WAY)
    local = sub.channel
    if client.subs.get(channel) is sub and local is not None and local.position(sub) == known and not local.busy:
        client.lost(channel)
