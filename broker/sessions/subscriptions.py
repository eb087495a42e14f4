"""The life of one subscription, whoever asked for it: reserve, prepare, commit, announce, forget.

`prepare` may wait: hub, presence, history. From its first step on, what is published is noted for the subscription,
so nothing falls between. `commit` does not wait: it merges what was read with what was noted, goes live, and gives
the result, which the caller sends in the same breath. Facts: client protocol §3.5, §3.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import structlog
import trio
from msgspec import Struct

from broker.channels import SubscribeGrant
from broker.eager import Gate, begin, go_on, own_task
from broker.hub import DeltaMode, EngineUnavailable, GroupKey, HistoryPage, HistoryQuery, UnrecoverablePosition
from broker.protocol import Filter, Publication, StreamPosition, SubscribeResult, codes
from broker.sessions import asking, recovery, telling
from broker.sessions.client import Client, ClientSubscription, Status

__all__ = [
    "Prepared",
    "Wanted",
    "abandon",
    "announce",
    "check_reserved",
    "commit",
    "forget",
    "leave",
    "prepare",
    "reserve",
    "subscribe_plainly",
]

_log = structlog.get_logger("broker.sessions")

_START = StreamPosition()


@final
class Wanted(Struct, frozen=True):
    """What a client asked for: where it was, patches, a filter, an error rather than `recovered: false`."""

    recover: bool = False
    since: StreamPosition = _START
    delta: bool = False
    filter: Filter | None = None
    reject_unrecovered: bool = False


_NOTHING = Wanted()


@final
class Prepared(Struct, frozen=True):
    """A subscription that is ready to go live. `top` is None where it has no position; `read` where nothing was
    to be recovered."""

    client: Client
    channel: str
    sub: ClientSubscription
    grant: SubscribeGrant
    wanted: Wanted
    top: StreamPosition | None
    read: recovery.Recovered | None


def reserve(client: Client, channel: str, *, server_side: bool = False) -> ClientSubscription:
    """Take the channel's place among the client's subscriptions; until it commits, nobody else gets it."""
    sub = client.subs[channel] = ClientSubscription(client, server_side=server_side)
    return sub


def subscribe_plainly(client: Client, channel: str, grant: SubscribeGrant, meta_ttl: float) -> bool:
    """`reserve`, `prepare` and `commit` for a grant that is plain and a client that wants no more. False, and nothing
    was done, where the channel has to be waited for."""
    node = client.context.node
    local = node.open_channel_nowait(channel)
    if local is None:
        return False
    sub = reserve(client, channel)
    sub.source, sub.client_side_refresh = grant.source, grant.client_side_refresh
    sub.meta_ttl = meta_ttl
    sub.channel = local
    local.collect(sub)
    local.go_live(sub, None)
    _committed(client, channel, sub)
    return True


async def prepare(
    client: Client,
    channel: str,
    sub: ClientSubscription,
    grant: SubscribeGrant,
    meta_ttl: float,
    wanted: Wanted = _NOTHING,
) -> Prepared:
    """Do everything that may wait. The caller undoes the reservation (`abandon`) if it fails.

    Raises:
        ClientError: 110 if the grant has expired; 112 where the client wants that rather than to start over.
    """
    if grant.expire_at and client.seconds_left(grant.expire_at) <= 0:
        raise codes.ClientError(codes.EXPIRED)
    sub.presence, sub.join_leave = grant.emit_presence, grant.emit_join_leave
    sub.recoverable = grant.recoverable
    sub.positioned = grant.positioned or grant.recoverable
    sub.info, sub.expire_at, sub.source = grant.chan_info, grant.expire_at, grant.source
    sub.client_side_refresh = grant.client_side_refresh
    sub.meta_ttl = meta_ttl
    # a filter would break the chain of patches, so it rules them out
    delta = DeltaMode.FIRST if wanted.delta and grant.delta and wanted.filter is None else DeltaMode.OFF
    if delta is not DeltaMode.OFF or grant.push_join_leave or wanted.filter is not None:
        sub.key = GroupKey(client.wire, delta, grant.push_join_leave, wanted.filter)

    if channel in client.leaving:
        await _wait_left(client, channel)
        check_reserved(client, channel, sub)
    node = client.context.node
    local = await node.open_channel(channel)
    check_reserved(client, channel, sub)
    local.collect(sub)
    sub.channel = local
    if sub.presence:
        await node.add_presence(channel, client.client_id, client.client_info(channel))
        check_reserved(client, channel, sub)
    if not sub.positioned:
        return Prepared(client, channel, sub, grant, wanted, None, None)
    top, read = await _read(client, channel, sub, grant, wanted)
    check_reserved(client, channel, sub)
    if read is not None and not read.recovered and wanted.reject_unrecovered and not grant.recovery_mode_cache:
        raise codes.ClientError(codes.UNRECOVERABLE_POSITION)
    return Prepared(client, channel, sub, grant, wanted, top, read)


async def _read(
    client: Client, channel: str, sub: ClientSubscription, grant: SubscribeGrant, wanted: Wanted
) -> tuple[StreamPosition, recovery.Recovered | None]:
    """The channel's top and, where the client recovers, what it missed."""

    async def history(query: HistoryQuery) -> HistoryPage:
        return await client.context.node.history(channel, query, sub.meta_ttl)

    if not sub.recoverable or not (wanted.recover or grant.auto_cache_recover):
        return (await history(HistoryQuery())).top, None
    limit = client.context.rules.client.recovery_max_publication_limit
    if grant.recovery_mode_cache:
        latest = HistoryQuery(limit if wanted.filter is not None else 1, reverse=True)
        page = await history(latest)
        if not page.publications and await asking.cache_empty(client, channel):
            page = await history(latest)
        return page.top, recovery.recover_cache(page, wanted.since, wanted.filter)
    try:
        page = await history(HistoryQuery(limit, since=wanted.since))
    except UnrecoverablePosition:
        return (await history(HistoryQuery())).top, recovery.Recovered(False, ())
    return page.top, recovery.recover_stream(page, wanted.since)


def commit(prepared: Prepared) -> SubscribeResult:
    """Go live. Send the result before anything else can be published: do not wait in between.

    Raises:
        Disconnected: 3010, what was read and what was published meanwhile do not join.
    """
    client, sub, grant, wanted = prepared.client, prepared.sub, prepared.grant, prepared.wanted
    local = sub.channel
    assert local is not None, "prepare opened it, and whoever closes it ends the client"
    expires = grant.expire_at > 0 and sub.client_side_refresh
    result = SubscribeResult(
        expires=expires,
        ttl=max(client.seconds_left(grant.expire_at), 0) if expires else 0,
        data=grant.data,
        recoverable=sub.recoverable,
        positioned=sub.positioned,
        delta=sub.key.delta is not DeltaMode.OFF,
        was_recovering=wanted.recover or prepared.read is not None,
    )
    if prepared.top is None:
        local.go_live(sub, None)
    else:
        position = _merge(prepared, result, local.collected(sub))
        local.go_live(sub, position)
        sub.checked_at = trio.current_time()
    _committed(client, prepared.channel, sub)
    return result


def _committed(client: Client, channel: str, sub: ClientSubscription) -> None:
    sub.committed = True
    context = client.context
    if context.rules.backends.state:
        context.notices.states.touch(channel)
    context.node.counters.subscribed += 1
    sub.settle()


def _merge(prepared: Prepared, result: SubscribeResult, collected: Sequence[tuple[Publication, str]]) -> StreamPosition:
    """Fill the recovery members of `result`; returns the position that the client has with it."""
    client, sub, wanted, read, top = (
        prepared.client,
        prepared.sub,
        prepared.wanted,
        prepared.read,
        prepared.top,
    )
    assert top is not None
    recovered = read is not None and read.recovered
    missed = read.publications if read is not None and recovered else ()
    try:
        if any(epoch != top.epoch for _, epoch in collected):
            raise recovery.Gap  # the channel was lost and begun anew: its offsets say nothing to those that were read
        pubs, position = recovery.merge(missed, top, [pub for pub, _ in collected])
    except recovery.Gap:
        raise codes.Disconnected(codes.INSUFFICIENT_STATE) from None
    if read is not None:
        client.context.node.counters.recovered[recovered, bool(missed)] += 1
    result.epoch = top.epoch
    result.offset = position.offset
    result.recovered = recovered
    if not recovered:
        return position  # it begins at the top: what was published before this answer is behind it
    if wanted.filter is not None:
        pubs = [pub for pub in pubs if wanted.filter.matches(pub.tags)]
    if prepared.grant.recovery_mode_cache:
        pubs = pubs[-1:]
    result.offset = wanted.since.offset  # the client advances by what it applies
    if result.delta:
        pubs = recovery.with_patches(pubs, text=not client.wire.codec.binary)
        if pubs:
            sub.key = sub.key._replace(delta=DeltaMode.PATCHES)
    result.publications = pubs
    return position


def check_reserved(client: Client, channel: str, sub: ClientSubscription) -> None:
    """After a wait: somebody may have ended the reservation, or the client.

    Raises:
        ClientError: 100, so it was.
    """
    if client.status is Status.CLOSED or client.subs.get(channel) is not sub:
        raise codes.ClientError(codes.INTERNAL)


async def announce(client: Client, channel: str, sub: ClientSubscription) -> None:
    """After the answer: the others hear that this client joined, and so does it."""
    if not sub.join_leave or client.subs.get(channel) is not sub:
        return
    sub.joined = True
    work = _tell_joined(client, channel)
    done, promise = begin(work)
    if done:
        return
    sub.telling = Gate()
    try:
        if promise is None:
            await own_task()
        await go_on(work)
    finally:
        sub.telling.open()


async def _tell_joined(client: Client, channel: str) -> None:
    try:
        await client.context.node.publish_join(channel, client.client_info(channel))
    except EngineUnavailable as error:
        _log.warning("nobody was told that a client joined", channel=channel, error=str(error))


async def forget(client: Client, channel: str, sub: ClientSubscription) -> None:
    """After `detach`: presence goes, the others hear that this client left.

    An engine that fails here fails nobody: entries of clients that are gone expire by themselves.
    """
    node = client.context.node
    try:
        if sub.presence:
            await node.remove_presence(channel, client.client_id)
        if sub.joined:
            if sub.telling is not None:  # the server may end it while the engine still hears of the join
                await sub.telling.wait()
            sub.joined = False  # told once: if this is cancelled, the engine may have got it already
            info = client.client_info()
            info.chan_info = sub.info
            await node.publish_leave(channel, info)
    except EngineUnavailable as error:
        _log.warning("a client that left is still seen in a channel", channel=channel, error=str(error))


async def leave(client: Client, channel: str, sub: ClientSubscription) -> None:
    """`forget` for a subscription that is no longer among the client's. If the client goes meanwhile, its clean-up
    does it again, and a new subscription to the channel waits, so that it is not the new one who is forgotten."""
    if channel in client.leaving:
        await _wait_left(client, channel)
    work = forget(client, channel, sub)
    done, promise = begin(work)
    if done:
        return
    left = Gate()
    client.leaving[channel] = (sub, left)
    if promise is None:
        await own_task()
    await go_on(work)
    del client.leaving[channel]
    left.open()


async def _wait_left(client: Client, channel: str) -> None:
    while channel in client.leaving:
        await client.leaving[channel][1].wait()


async def abandon(client: Client, channel: str, sub: ClientSubscription) -> None:
    """Undo a reservation, and whatever of it had been done."""
    if client.subs.get(channel) is sub:
        del client.subs[channel]
    client.detach(sub)
    telling.subscription_over(client, channel, sub, codes.BY_DISCONNECT)  # if it had committed, its client goes
    await leave(client, channel, sub)
