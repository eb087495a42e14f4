"""Telling the backend that something is over. Nobody waits for it: see `broker.hooks.Notices`."""

from __future__ import annotations

import trio

from broker.hooks import DEFAULT, DisconnectEvent, UnsubscribeEvent
from broker.protocol import codes
from broker.sessions.asking import who
from broker.sessions.client import Client, ClientSubscription

__all__ = ["connection_over", "subscription_over"]


def subscription_over(client: Client, channel: str, sub: ClientSubscription, why: codes.Unsubscribe) -> None:
    """Call for a subscription that is no longer among the client's. One that never committed is nothing, and one that
    was told about may still be among those that are to be cleaned up after."""
    if not sub.committed:
        return
    sub.committed = False
    context = client.context
    backends = context.rules.backends
    if backends.state:
        context.notices.states.touch(channel)
    if not backends.unsubscribe:
        return
    resolved = context.rules.channels.resolve(channel)
    if resolved is None or not resolved.options.unsubscribe_proxy_enabled:
        return
    event = UnsubscribeEvent(
        **who(client), channel=channel, code=why.code, reason=why.reason, time_ms=int(context.wall_clock() * 1000)
    )
    context.notices.post.put(event, resolved.options.unsubscribe_proxy_name)


def connection_over(client: Client, why: codes.Disconnect) -> None:
    """Call once for a client whose connect had succeeded, after its subscriptions."""
    context = client.context
    if context.rules.backends.disconnect is None:
        return
    event = DisconnectEvent(
        **who(client),
        code=why.code,
        reason=why.reason,
        duration_ms=int((trio.current_time() - client.connected_at) * 1000),
        time_ms=int(context.wall_clock() * 1000),
    )
    context.notices.post.put(event, DEFAULT)
