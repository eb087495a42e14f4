"""Who may do what in a channel, in the documented order, and what a subscription is granted.

Nothing here waits: where a token or a backend decides, the answer says so, and the caller goes on from there.
`user` is "" for an anonymous client; `insecure` is the option `client.insecure`.

Facts: client protocol §3.1, §3.5 (https://centrifugal.dev/docs/server/channel_permissions).
"""

from __future__ import annotations

import enum
from typing import final

import attrs

from broker.channels.names import Channels, Resolved
from broker.channels.options import ChannelOptions
from broker.protocol import codes

__all__ = [
    "Override",
    "PublishBy",
    "Source",
    "SubscribeGrant",
    "check_history",
    "check_presence",
    "may_subscribe_on_connect",
    "publish_decided_by",
    "subscribe_decided_by",
]


@final
class Source(enum.IntEnum):
    """Where a subscription comes from, by the numbers of server-side §3.6."""

    CONNECTION_TOKEN = 1
    CONNECT_PROXY = 2
    SUBSCRIPTION_TOKEN = 3
    SUBSCRIBE_PROXY = 4
    USER_LIMITED = 5
    CLIENT_ALLOWED = 6
    CLIENT_INSECURE = 7
    UNI_CONNECT = 8
    USER_PERSONAL = 9
    SERVER_API = 10
    STREAM_PROXY = 13


@final
class PublishBy(enum.Enum):
    """Who takes a client's publication."""

    SERVER = enum.auto()
    PROXY = enum.auto()
    STREAM = enum.auto()


# ---- may this client? ---------------------------------------------------------------------------------------------


def subscribe_decided_by(
    channels: Channels, resolved: Resolved, *, user: str, kind: int, token: bool, insecure: bool
) -> Source:
    """Find what decides about a subscribe command.

    `USER_LIMITED`, `CLIENT_ALLOWED` and `CLIENT_INSECURE` mean: allowed. `SUBSCRIPTION_TOKEN`: the token decides.
    `SUBSCRIBE_PROXY` and `STREAM_PROXY`: the backend decides (108 if there is none).

    Args:
        resolved: from `channels.for_client`.
        kind: the `type` of the command.
        token: whether the command carries a token.

    Raises:
        ClientError: 103 permission denied.
    """
    options = resolved.options
    if kind != resolved.kind or (resolved.private and not token):
        raise codes.ClientError(codes.PERMISSION_DENIED)
    if token:
        return Source.SUBSCRIPTION_TOKEN
    if resolved.user_limited:
        if channels.user_listed(resolved.channel, user):
            return Source.USER_LIMITED
    elif options.subscribe_proxy_enabled:
        return Source.SUBSCRIBE_PROXY
    elif options.subscribe_stream_proxy_enabled:
        return Source.STREAM_PROXY
    elif options.allow_subscribe_for_client and (user or options.allow_subscribe_for_anonymous):
        return Source.CLIENT_ALLOWED
    if insecure:
        return Source.CLIENT_INSECURE
    raise codes.ClientError(codes.PERMISSION_DENIED)


def may_subscribe_on_connect(channels: Channels, resolved: Resolved, *, user: str, insecure: bool) -> bool:
    """Whether a channel that a client named in its connect command becomes a server-side subscription.

    Differs from a subscribe command in that nobody is asked, and that the anonymous user is never a listed one.
    """
    options = resolved.options
    if resolved.private or options.subscribe_proxy_enabled or not resolved.valid:
        return False
    if resolved.user_limited:
        allowed = bool(user) and channels.user_listed(resolved.channel, user)
    else:
        allowed = options.allow_subscribe_for_client and bool(user or options.allow_subscribe_for_anonymous)
    return allowed or insecure


def publish_decided_by(resolved: Resolved, *, user: str, subscribed: bool, insecure: bool) -> PublishBy:
    """Find who takes a publication of a client.

    Raises:
        ClientError: 103 permission denied, 108 the channel is a backend's one-way stream.
    """
    options = resolved.options
    if options.publish_proxy_enabled:
        return PublishBy.PROXY
    if options.subscribe_stream_proxy_enabled:
        if not options.subscribe_stream_proxy_bidirectional:
            raise codes.ClientError(codes.NOT_AVAILABLE)
        return PublishBy.STREAM
    by_rule = options.allow_publish_for_client or (options.allow_publish_for_subscriber and subscribed)
    if (by_rule and (user or options.allow_publish_for_anonymous)) or insecure:
        return PublishBy.SERVER
    raise codes.ClientError(codes.PERMISSION_DENIED)


def check_presence(resolved: Resolved, *, user: str, subscribed: bool, insecure: bool) -> None:
    """Let a client ask who is in the channel.

    Raises:
        ClientError: 108 the channel keeps no presence, 103 permission denied.
    """
    if not resolved.options.presence:
        raise codes.ClientError(codes.NOT_AVAILABLE)
    if not _sees_presence(resolved.options, user=user, subscribed=subscribed, insecure=insecure):
        raise codes.ClientError(codes.PERMISSION_DENIED)


def check_history(resolved: Resolved, *, user: str, subscribed: bool, insecure: bool) -> None:
    """Let a client read the channel's history.

    Raises:
        ClientError: 108 the channel keeps no history, 103 permission denied.
    """
    if not resolved.keeps_history:
        raise codes.ClientError(codes.NOT_AVAILABLE)
    if not _sees_history(resolved.options, user=user, subscribed=subscribed, insecure=insecure):
        raise codes.ClientError(codes.PERMISSION_DENIED)


def _sees_presence(options: ChannelOptions, *, user: str, subscribed: bool, insecure: bool) -> bool:
    by_rule = options.allow_presence_for_client or (options.allow_presence_for_subscriber and subscribed)
    return insecure or (by_rule and bool(user or options.allow_presence_for_anonymous))


def _sees_history(options: ChannelOptions, *, user: str, subscribed: bool, insecure: bool) -> bool:
    by_rule = options.allow_history_for_client or (options.allow_history_for_subscriber and subscribed)
    return insecure or (by_rule and bool(user or options.allow_history_for_anonymous))


# ---- what a subscription is granted -------------------------------------------------------------------------------


@final
@attrs.frozen
class Override:
    """Options of a channel that a token or a backend replaces for one subscription; None leaves one as it is."""

    presence: bool | None = None
    join_leave: bool | None = None
    force_push_join_leave: bool | None = None
    force_positioning: bool | None = None
    force_recovery: bool | None = None


NO_OVERRIDE = Override()


@final
@attrs.frozen(kw_only=True)
class SubscribeGrant:
    """How a subscription that is allowed is made.

    Attributes:
        source: what allowed it.
        positioned: its position is checked, gaps are told.
        recoverable: it may recover what it missed; implies a position.
        recovery_mode_cache: recovery gives the latest publication instead of all missed ones.
        auto_cache_recover: the latest publication is delivered without being asked for.
        push_join_leave: it is told who comes and goes.
        emit_presence: it is seen in the channel's presence.
        emit_join_leave: others are told when it comes and goes.
        delta: patches may be negotiated.
        tags_filter: a tags filter may be given.
        client_side_refresh: whether the client itself has to refresh it before it expires.
        expire_at: Unix seconds, 0 for never.
        chan_info: what others see of the client in this channel.
        data: what the client gets with the subscription.
        plain: it gives publications, and nothing else follows from it.
    """

    source: Source
    positioned: bool
    recoverable: bool
    recovery_mode_cache: bool
    auto_cache_recover: bool
    push_join_leave: bool
    emit_presence: bool
    emit_join_leave: bool
    delta: bool
    tags_filter: bool
    client_side_refresh: bool
    expire_at: int = 0
    chan_info: bytes = b""
    data: bytes = b""
    plain: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        more = self.positioned or self.recoverable or self.push_join_leave or self.emit_presence or self.emit_join_leave
        object.__setattr__(self, "plain", not (more or self.expire_at or self.chan_info or self.data))

    @classmethod
    def of(
        cls,
        resolved: Resolved,
        source: Source,
        *,
        override: Override = NO_OVERRIDE,
        expire_at: int = 0,
        chan_info: bytes = b"",
        data: bytes = b"",
    ) -> SubscribeGrant:
        """What the namespace gives to everybody, with what a token or a backend replaces."""
        if override is not NO_OVERRIDE or expire_at or chan_info or data:
            return cls._of(resolved.options, source, override, expire_at, chan_info, data)
        grant: SubscribeGrant | None = resolved.remembered.get(source)
        if grant is None:
            grant = resolved.remembered[source] = cls._of(resolved.options, source, override, 0, b"", b"")
        return grant

    @classmethod
    def _of(
        cls, options: ChannelOptions, source: Source, override: Override, expire_at: int, chan_info: bytes, data: bytes
    ) -> SubscribeGrant:
        recoverable = _either(override.force_recovery, options.force_recovery)
        cache = options.force_recovery_mode == "cache"
        return cls(
            source=source,
            positioned=_either(override.force_positioning, options.force_positioning),
            recoverable=recoverable,
            recovery_mode_cache=cache,
            auto_cache_recover=options.auto_cache_recover and cache and recoverable,
            push_join_leave=_either(override.force_push_join_leave, options.force_push_join_leave),
            emit_presence=_either(override.presence, options.presence),
            emit_join_leave=_either(override.join_leave, options.join_leave),
            delta="fossil" in options.allowed_delta_types,
            tags_filter=options.allow_tags_filter,
            client_side_refresh=not options.sub_refresh_proxy_enabled,
            expire_at=expire_at,
            chan_info=chan_info,
            data=data,
        )

    def with_wishes(
        self,
        resolved: Resolved,
        *,
        user: str,
        insecure: bool,
        positioned: bool,
        recoverable: bool,
        join_leave: bool,
    ) -> SubscribeGrant:
        """Add what the client asked for and may have; not for subscriptions that a backend decided about.

        Access to history and presence counts as if the client were subscribed already.
        """
        if not (positioned or recoverable or join_leave):
            return self
        options = resolved.options
        history = _sees_history(options, user=user, subscribed=True, insecure=insecure)
        recoverable = self.recoverable or (recoverable and (options.allow_recovery or history))
        return attrs.evolve(
            self,
            positioned=self.positioned or (positioned and (options.allow_positioning or history)),
            recoverable=recoverable,
            auto_cache_recover=options.auto_cache_recover and self.recovery_mode_cache and recoverable,
            push_join_leave=self.push_join_leave
            or (
                join_leave
                and options.join_leave
                and _sees_presence(options, user=user, subscribed=True, insecure=insecure)
            ),
        )


def _either(override: bool | None, option: bool) -> bool:
    return option if override is None else override
