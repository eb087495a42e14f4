"""What happens to a connected client now and then: presence refresh, subscription expiry, position checks.

Facts: client protocol §3.7, §3.10, §3.12.
"""

from __future__ import annotations

import trio

from broker.hub import EngineUnavailable, HistoryQuery
from broker.protocol import codes
from broker.sessions import server_side
from broker.sessions.client import Client, ClientSubscription, Status

__all__ = ["tick"]


async def tick(client: Client) -> None:
    """One tick of `client.presence_update_interval` over all subscriptions of a client."""
    for channel, sub in list(client.subs.items()):
        if client.status is not Status.CONNECTED:
            return
        if not sub.committed or client.subs.get(channel) is not sub:
            continue
        if _expired(client, sub):
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
    node = client.context.node
    await node.add_presence(channel, client.client_id, client.client_info(channel))
    now = client.subs.get(channel)
    if now is not sub and (now is None or not now.presence):
        # it ended while the store was writing: what was put back must go again
        await node.remove_presence(channel, client.client_id)


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
        client.lost(channel)
        return
    sub.checked_at = now
