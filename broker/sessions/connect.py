"""The connect command: who this is, what it is subscribed to from the start. Facts: client protocol §3.2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import attrs
import trio

from broker.auth import ConnectToken, TokenExpired, TokenInvalid
from broker.channels import Resolved, Source, SubscribeGrant, may_subscribe_on_connect
from broker.hooks import ConnectResult as HookResult
from broker.hooks import SubscribeOptions
from broker.hub import DisconnectUser, Target
from broker.protocol import ConnectRequest, ConnectResult, StreamPosition, codes
from broker.sessions import asking, subscriptions
from broker.sessions.client import Client, Status, Waiting
from broker.sessions.options import ClientOptions
from broker.sessions.subscriptions import Prepared, Wanted

__all__ = ["connect", "ping_interval", "pong_timeout"]

_PLAIN = SubscribeOptions()


@final
@attrs.define
class _Credentials:
    """Who connects, and the server-side subscriptions that come with it. `chooses`: channels of its own choice."""

    user: str
    expire_at: int = 0
    info: bytes = b""
    data: bytes = b""
    meta: bytes = b""
    chooses: bool = True
    grants: dict[str, tuple[Resolved, SubscribeGrant]] = attrs.field(factory=dict)


def connect(client: Client, id: int, request: ConnectRequest) -> Waiting | None:
    """Authenticate, subscribe to what comes with the connection, answer, announce: at once, where there is nobody to
    ask and nothing to subscribe to."""
    if client.status is not Status.NEW:
        raise codes.Disconnected(codes.BAD_PROTOCOL)
    _keep_emulated_headers(client, request)
    rules = client.context.rules
    if (
        request.token
        or request.subs
        or rules.backends.connect is not None
        or rules.client.subscribe_to_user_personal_channel.enabled
    ):
        return _connect(client, id, request)
    who = _unknown(client)
    _admit(client, who)
    _answer(client, id, request, who, ())
    return None


async def _connect(client: Client, id: int, request: ConnectRequest) -> None:
    who = await _authenticate(client, request)
    _admit(client, who)
    prepared = await _prepare_all(client, request, who) if who.grants else ()
    if _answer(client, id, request, who, prepared):
        for each in prepared:
            await subscriptions.announce(client, each.channel, each.sub)


def _admit(client: Client, who: _Credentials) -> None:
    """Take the client into the registry, if there is room for it and it is still there."""
    options = client.context.rules.client
    if len(who.grants) > options.channel_limit:
        raise codes.Disconnected(codes.CHANNEL_LIMIT)
    node = client.context.node
    limit = options.user_connection_limit
    if limit and who.user and node.registry.connections(who.user) >= limit:
        raise codes.Disconnected(codes.CONNECTION_LIMIT)
    if client.status is not Status.NEW:
        raise codes.Disconnected(codes.CONNECTION_CLOSED)  # it went while its token was verified
    if who.expire_at and client.seconds_left(who.expire_at) < 0:
        raise codes.ClientError(codes.EXPIRED)

    client.info, client.meta = who.info, who.meta
    client.client_side_refresh = client.context.rules.backends.refresh is None
    client.admit(who.user)


def _answer(client: Client, id: int, request: ConnectRequest, who: _Credentials, prepared: Sequence[Prepared]) -> bool:
    """Go live and say so: there is no await in here, since nothing may be pushed before the reply. False if the reply
    alone was more than may wait for a client."""
    options = client.context.rules.client
    node = client.context.node
    interval = ping_interval(client)
    pings_itself = client.one_way or not client.peer.native_ping
    left = client.set_expiry(who.expire_at, grace=client.client_side_refresh)
    expires = who.expire_at > 0 and client.client_side_refresh
    result = ConnectResult(
        client=client.client_id,
        version=client.context.version,
        expires=expires,
        ttl=left if expires else 0,
        data=who.data,
        subs={each.channel: subscriptions.commit(each) for each in prepared} or None,
        ping=int(max(options.ping_interval, 0.0)) if pings_itself else 0,
        pong=pings_itself and not client.one_way and bool(pong_timeout(client)),
        session=client.session_id,
        node=node.uid if client.emulated else "",
        time=int(client.context.wall_clock() * 1000) if options.connect_include_server_time else 0,
    )
    unit = client.wire.codec.connect(id, result)
    client.peer.welcome()
    client.reply(unit)
    if client.status is not Status.NEW:
        return False
    _begin_life(client, interval)
    client.note("client connection established", user=who.user)
    node.counters.accepted[client.peer.transport, bool(request.name), bool(request.version)] += 1
    return True


def ping_interval(client: Client) -> float:
    """Seconds between pings, 0 for none; pings of the transport itself cannot be off."""
    options = client.context.rules.client
    if client.peer.native_ping and options.ping_interval <= 0:
        return 25.0
    return max(options.ping_interval, 0.0)


def tick_interval(options: ClientOptions) -> float:
    """Seconds between presence ticks; they cannot be off, so 0 means the default."""
    return options.presence_update_interval if options.presence_update_interval > 0 else 27.0


def pong_timeout(client: Client) -> float:
    """Seconds that a pong may take, 0 where none is expected."""
    options = client.context.rules.client
    if client.peer.native_ping:
        return options.pong_timeout if options.pong_timeout > 0 else 10.0
    if client.one_way or options.ping_interval <= 0:
        return 0.0
    return max(options.pong_timeout, 0.0)


def _begin_life(client: Client, interval: float) -> None:
    """Pings, presence ticks and expiry begin; the first ones at random, so that clients that came together part."""
    context = client.context
    now = trio.current_time()
    client.status = Status.CONNECTED
    client.connected_at = now
    client.next_tick = now + tick_interval(context.rules.client) * (0.5 + context.random() / 2)
    if interval:
        client.next_ping = now + interval * (0.5 + context.random() / 2)
    client.arm()


# ---- who is it ----------------------------------------------------------------------------------------------------


async def _authenticate(client: Client, request: ConnectRequest) -> _Credentials:
    rules = client.context.rules
    options = rules.client
    who: _Credentials | None = None
    if request.token:
        who = await _by_token(client, request.token)
    elif rules.backends.connect is not None:
        result = await asking.connect(client, rules.backends.connect, request)
        if result is not None:
            who = _by_hook(client, result)
    if who is None:
        who = _unknown(client)
        if not who.chooses:
            return who

    personal = options.subscribe_to_user_personal_channel
    if personal.enabled and who.user:
        channel = rules.channels.personal_channel(who.user, personal.personal_channel_namespace)
        resolved = rules.channels.resolve(channel)
        if resolved is None:
            raise codes.ClientError(codes.UNKNOWN_CHANNEL)
        if personal.single_connection:
            await _end_other_connections(client, channel, who.user)
        who.grants[channel] = (resolved, SubscribeGrant.of(resolved, Source.USER_PERSONAL))

    for channel in (request.subs or ()) if who.chooses else ():
        if len(who.grants) > options.channel_limit:
            break  # refused whatever follows, and thousands may
        resolved = rules.channels.resolve(channel)
        if resolved is None or not channel:
            raise codes.Disconnected(codes.BAD_PROTOCOL)
        if channel not in who.grants and may_subscribe_on_connect(
            rules.channels, resolved, user=who.user, insecure=options.insecure
        ):
            who.grants[channel] = (resolved, SubscribeGrant.of(resolved, Source.UNI_CONNECT))
    return who


def _unknown(client: Client) -> _Credentials:
    """Nobody vouches for it: it is anonymous, where it may be, or whom a trusted header names, and no more."""
    options = client.context.rules.client
    if options.allow_anonymous_connect_without_token or options.insecure:
        return _Credentials("")
    if client.peer.header_user is not None:
        return _Credentials(client.peer.header_user, chooses=False)
    raise codes.Disconnected(codes.BAD_PROTOCOL)


async def _by_token(client: Client, token: str) -> _Credentials:
    rules = client.context.rules
    claims = await verify_connection(client, token)
    if not claims.user and rules.client.disallow_anonymous_connection_tokens:
        raise codes.Disconnected(codes.ANONYMOUS_DENIED)
    who = _Credentials(claims.user, 0 if rules.client.insecure else claims.expire_at, claims.info, meta=claims.meta)
    for channel, sub in claims.subs.items():
        resolved = rules.channels.resolve(channel)
        if resolved is None:
            raise codes.ClientError(codes.UNKNOWN_CHANNEL)
        who.grants[channel] = (
            resolved,
            SubscribeGrant.of(
                resolved, Source.CONNECTION_TOKEN, override=sub.override, chan_info=sub.info, data=sub.data
            ),
        )
    return who


def _by_hook(client: Client, result: HookResult) -> _Credentials:
    """Who it is, as the backend says."""
    channels = client.context.rules.channels
    who = _Credentials(result.user, max(result.expire_at, 0), result.info, result.data, meta=result.meta, chooses=False)
    for channel in [*result.channels, *result.subs]:
        resolved = channels.resolve(channel)
        if resolved is None:
            raise codes.ClientError(codes.UNKNOWN_CHANNEL)
        sub = result.subs.get(channel, _PLAIN)
        grant = SubscribeGrant.of(
            resolved, Source.CONNECT_PROXY, override=sub.override, chan_info=sub.info, data=sub.data
        )
        if sub.cache_recover:
            grant = attrs.evolve(grant, auto_cache_recover=True)
        who.grants[channel] = (resolved, grant)
    return who


def _keep_emulated_headers(client: Client, request: ConnectRequest) -> None:
    """Those that some hook wants, for as long as the connection lives."""
    wanted = client.context.rules.backends.emulated_headers
    if wanted and request.headers:
        named = {name.lower(): value for name, value in request.headers.items()}
        client.emulated_headers = {name: named[name] for name in wanted if name in named}


async def verify_connection(client: Client, token: str) -> ConnectToken:
    """The claims of a connection token.

    Raises:
        ClientError: 109 expired; 100 while the keys cannot be had.
        Disconnected: 3500 invalid.
    """
    try:
        return await client.context.rules.connection_tokens.verify_connection(token)
    except TokenExpired:
        raise codes.ClientError(codes.TOKEN_EXPIRED) from None
    except TokenInvalid:
        raise codes.Disconnected(codes.INVALID_TOKEN) from None


async def _end_other_connections(client: Client, channel: str, user: str) -> None:
    """`single_connection`: the newest connection of a user wins."""
    node = client.context.node
    if (await node.presence_stats(channel)).clients:
        await node.control(DisconnectUser(Target(user), codes.CONNECTION_LIMIT, frozenset((client.client_id,))))


# ---- server-side subscriptions ------------------------------------------------------------------------------------


async def _prepare_all(client: Client, request: ConnectRequest, who: _Credentials) -> list[Prepared]:
    """Prepare everything that comes with the connection; if one fails, the connect fails and nothing remains."""
    reserved = {channel: subscriptions.reserve(client, channel, server_side=True) for channel in who.grants}
    try:
        return [
            await subscriptions.prepare(
                client, channel, sub, grant, resolved.history_meta_ttl, _wanted(request, channel)
            )
            for (channel, sub), (resolved, grant) in zip(reserved.items(), who.grants.values(), strict=True)
        ]
    except Exception:  # one that is cancelled is cleaned up after with its connection
        client.context.node.registry.remove(client)
        for channel, sub in reserved.items():
            await subscriptions.abandon(client, channel, sub)
        raise


def _wanted(request: ConnectRequest, channel: str) -> Wanted:
    asked = (request.subs or {}).get(channel)
    if asked is None:
        return Wanted()
    return Wanted(
        recover=bool(asked.recover),
        since=StreamPosition(asked.offset or 0, asked.epoch or ""),
        delta=asked.delta == "fossil",
    )
