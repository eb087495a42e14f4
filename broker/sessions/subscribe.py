"""The subscribe and unsubscribe commands of a client. Facts: client protocol §3.1, §3.5, §3.8."""

from __future__ import annotations

from typing import Final

import trio

from broker.auth import TokenExpired, TokenInvalid
from broker.channels import Kind, Resolved, Source, SubscribeGrant, subscribe_decided_by
from broker.eager import own_task
from broker.protocol import (
    Filter,
    StreamPosition,
    SubscribeRequest,
    SubscribeResult,
    UnsubscribeRequest,
    codes,
    compile_filter,
)
from broker.sessions import asking, subscriptions, telling
from broker.sessions.client import Client, Waiting
from broker.sessions.subscriptions import Wanted

__all__ = ["subscribe", "unsubscribe", "verify_subscription"]

_IN_FLIGHT = 5.0
"""Seconds that an unsubscribe waits for the subscribe before it."""
_BY_RULE: Final = frozenset({Source.USER_LIMITED, Source.CLIENT_ALLOWED, Source.CLIENT_INSECURE})
"""What decides without asking anybody."""
_PLAIN: Final = SubscribeResult()
_REJECT_UNRECOVERED = 2
"""The bit of a subscribe's `flag` that asks for error 112 instead of `recovered: false`."""


def subscribe(client: Client, id: int, request: SubscribeRequest) -> Waiting | None:
    """Check in the documented order, reserve, prepare, commit, answer, announce: at once, where nobody has to be asked
    and nothing is wanted but publications."""
    channel = _checked(client, request)
    resolved = client.context.rules.channels.for_client(channel)
    source = _decided_by(client, resolved, request)
    if source in _BY_RULE and not _wants_more(request) and channel not in client.leaving:
        grant = SubscribeGrant.of(resolved, source)
        if grant.plain and subscriptions.subscribe_plainly(client, channel, grant, resolved.history_meta_ttl):
            client.reply(client.wire.codec.subscribe(id, _PLAIN))
            return None
    return _subscribe(client, id, request)


def _wants_more(request: SubscribeRequest) -> bool:
    return bool(
        request.positioned
        or request.recoverable
        or request.recover
        or request.join_leave
        or request.delta
        or request.tf is not None
    )


def _checked(client: Client, request: SubscribeRequest) -> str:
    """The channel, if nothing is wrong that is refused whoever decides."""
    channel = request.channel
    if not channel:
        raise codes.Disconnected(codes.BAD_PROTOCOL)
    rules = client.context.rules
    if request.type == Kind.SHARED_POLL:
        raise codes.ClientError(codes.NOT_AVAILABLE)  # no namespace of this version takes shared polls
    if request.delta and request.delta != "fossil":
        raise codes.Disconnected(codes.BAD_PROTOCOL)
    if len(channel.encode()) > rules.channels.max_length:
        raise codes.ClientError(codes.BAD_REQUEST)
    if channel in client.subs:
        raise codes.ClientError(codes.ALREADY_SUBSCRIBED)
    if len(client.subs) >= rules.client.channel_limit:
        raise codes.ClientError(codes.LIMIT_EXCEEDED)
    return channel


async def _subscribe(client: Client, id: int, request: SubscribeRequest) -> None:
    channel = _checked(client, request)  # anew: others may have been handled before this got its turn
    sub = subscriptions.reserve(client, channel)
    try:
        resolved = client.context.rules.channels.for_client(channel)
        grant = await _granted(client, resolved, request)
        subscriptions.check_reserved(client, channel, sub)
        wanted = Wanted(
            recover=bool(request.recover),
            since=StreamPosition(request.offset or 0, request.epoch or ""),
            delta=bool(request.delta),
            filter=_filter(request, grant),
            reject_unrecovered=bool((request.flag or 0) & _REJECT_UNRECOVERED),
        )
        prepared = await subscriptions.prepare(client, channel, sub, grant, resolved.history_meta_ttl, wanted)
        # no await from here to the reply: a publication in between would come before it
        result = subscriptions.commit(prepared)
    except Exception:  # one that is cancelled is cleaned up after with its connection
        await subscriptions.abandon(client, channel, sub)
        raise
    client.reply(client.wire.codec.subscribe(id, result))
    await subscriptions.announce(client, channel, sub)


def _decided_by(client: Client, resolved: Resolved, request: SubscribeRequest) -> Source:
    rules = client.context.rules
    return subscribe_decided_by(
        rules.channels,
        resolved,
        user=client.user,
        kind=request.type or Kind.STREAM,
        token=bool(request.token),
        insecure=rules.client.insecure,
    )


async def _granted(client: Client, resolved: Resolved, request: SubscribeRequest) -> SubscribeGrant:
    """Whether, and how, this client may subscribe."""
    source = _decided_by(client, resolved, request)
    if source is Source.SUBSCRIBE_PROXY:
        return await asking.subscribe(client, resolved, bytes(request.data))
    if source is Source.SUBSCRIPTION_TOKEN:
        grant = await verify_subscription(client, resolved, request.token or "")
    else:
        grant = SubscribeGrant.of(resolved, source)
    return grant.with_wishes(
        resolved,
        user=client.user,
        insecure=client.context.rules.client.insecure,
        positioned=bool(request.positioned),
        recoverable=bool(request.recoverable),
        join_leave=bool(request.join_leave),
    )


async def verify_subscription(client: Client, resolved: Resolved, token: str) -> SubscribeGrant:
    """What a subscription token grants to this client.

    Raises:
        ClientError: 103 invalid, 109 expired; 100 while the keys cannot be had.
        Disconnected: 3500, it was made for another user, client or channel.
    """
    try:
        claims = await client.context.rules.subscription_tokens.verify_subscription(token)
    except TokenExpired:
        raise codes.ClientError(codes.TOKEN_EXPIRED) from None
    except TokenInvalid:
        raise codes.ClientError(codes.PERMISSION_DENIED) from None
    mine = claims.user == client.user and (not claims.client or claims.client == client.client_id)
    if not mine or claims.channel != resolved.channel:
        raise codes.Disconnected(codes.INVALID_TOKEN)
    return SubscribeGrant.of(
        resolved,
        Source.SUBSCRIPTION_TOKEN,
        override=claims.override,
        expire_at=claims.expire_at,
        chan_info=claims.info,
        data=claims.data,
    )


def _filter(request: SubscribeRequest, grant: SubscribeGrant) -> Filter | None:
    if request.tf is None:
        return None
    if not grant.tags_filter:
        raise codes.ClientError(codes.BAD_REQUEST)
    try:
        return compile_filter(request.tf)
    except ValueError:
        raise codes.ClientError(codes.BAD_REQUEST) from None


async def unsubscribe(client: Client, id: int, request: UnsubscribeRequest) -> None:
    """End a subscription, server-side ones too. Not being subscribed is a success; being about to be is waited for."""
    channel = request.channel
    if not channel:
        raise codes.Disconnected(codes.BAD_PROTOCOL)
    sub = client.subs.get(channel)
    if sub is not None and not sub.committed:
        await own_task()
        with trio.move_on_after(_IN_FLIGHT) as patience:
            await sub.wait_settled()
        if patience.cancelled_caught:
            raise codes.Disconnected(codes.SERVER_ERROR)
        sub = client.subs.get(channel)
    if sub is not None:
        del client.subs[channel]
        client.detach(sub)
        telling.subscription_over(client, channel, sub, codes.BY_CLIENT)
        await subscriptions.leave(client, channel, sub)
    client.reply(client.wire.codec.unsubscribe(id))
