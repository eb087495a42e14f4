"""What a channel's name says: its namespace, the options that follow, whether it is private or for listed users.

Facts: server-side §1.8 (https://centrifugal.dev/docs/server/channels).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, final

import attrs
import msgspec
from msgspec import Struct

from broker.channels.options import ChannelOptions, ChannelsOptions
from broker.channels.patterns import compile_re2
from broker.protocol import codes

__all__ = ["Channels", "Kind", "Resolved"]

_CACHE_SIZE: Final = 16_384
"""Names remembered, about 5 MiB when full."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


ChannelHooks = Callable[[str], tuple[tuple[str, str], ...]]
"""Pairs of event and proxy name, for a channel."""


@final
class Kind:
    """What a subscription to a channel is, by the numbers of client protocol §2.5."""

    STREAM: Final = 0
    MAP: Final = 1
    MAP_CLIENTS: Final = 2
    MAP_USERS: Final = 3
    SHARED_POLL: Final = 4


_KINDS: Final = {
    "": Kind.STREAM,
    "stream": Kind.STREAM,
    "map": Kind.MAP,
    "map_clients": Kind.MAP_CLIENTS,
    "map_users": Kind.MAP_USERS,
    "shared_poll": Kind.SHARED_POLL,
}


@final
class Resolved(Struct, frozen=True):
    """All that follows from a channel's name alone.

    Attributes:
        channel: the whole name.
        namespace: "" for channels without one.
        rest: the name without private prefix and namespace; the whole name where there is no namespace.
        options: of the namespace, with the fallbacks of all channels filled in (`history_meta_ttl`,
            `publication_data_format`).
        kind: which subscriptions the namespace takes, a number of `Kind`.
        valid: whether clients may use the name at all.
        private: subscribing needs a token.
        user_limited: only users named in it may subscribe, others need a token.
        remembered: for what else follows from the options alone; the same for all channels with these options.
    """

    channel: str
    namespace: str
    rest: str
    options: ChannelOptions
    kind: int
    valid: bool
    private: bool
    user_limited: bool
    remembered: dict[object, Any] = msgspec.field(default_factory=dict)

    @property
    def history_meta_ttl(self) -> float:
        """Seconds of silence after which the channel's position is forgotten."""
        return self.options.history_meta_ttl

    @property
    def keeps_history(self) -> bool:
        """Whether the channel has a history."""
        return self.options.history_size > 0 and self.options.history_ttl > 0


@final
@attrs.frozen
class _Namespace:
    options: ChannelOptions
    kind: int
    pattern: re.Pattern[str] | None
    remembered: dict[object, Any] = attrs.field(factory=dict)


@final
class Channels:
    """The namespaces of one configuration. A reload makes a new one."""

    __slots__ = ("_backed", "_hooks", "_namespaces", "_options", "_resolved")

    def __init__(self, options: ChannelsOptions, hooks: ChannelHooks | None = None) -> None:
        """Compile the namespaces.

        Args:
            hooks: who is asked about a channel, over what its namespace says.

        Raises:
            ValueError: a `channel_regex` or `subscription_type` is wrong.
        """
        self._options = options
        self._hooks = hooks
        self._backed: dict[tuple[str, tuple[tuple[str, str], ...]], _Namespace] = {}
        self._resolved: dict[str, Resolved] = {}
        self._namespaces = {"": self._namespace(options.without_namespace)}
        for namespace in options.namespaces:
            self._namespaces[namespace.name] = self._namespace(namespace)

    @property
    def max_length(self) -> int:
        """Bytes of the longest name that clients may subscribe to."""
        return self._options.max_length

    def resolve(self, channel: str) -> Resolved | None:
        """Everything that follows from the name; None if its namespace does not exist."""
        return self._resolved.get(channel) or self._resolve(channel)

    def for_client(self, channel: str) -> Resolved:
        """As `resolve`, for a name that a client wants to use.

        Raises:
            ClientError: 102 unknown namespace, 107 invalid name.
        """
        resolved = self.resolve(channel)
        if resolved is None:
            raise codes.ClientError(codes.UNKNOWN_CHANNEL)
        if not resolved.valid:
            raise codes.ClientError(codes.BAD_REQUEST)
        return resolved

    def user_listed(self, channel: str, user: str) -> bool:
        """Whether a user-limited channel names `user` after its last boundary.

        A list with an empty entry (`news#`) names the anonymous user.
        """
        users = channel.rpartition(self._options.user_boundary)[2]
        separator = self._options.user_separator
        return user in users.split(separator) if separator else user == users

    def personal_channel(self, user: str, namespace: str) -> str:
        """The channel of one user, in `namespace` or, if that is empty, in none."""
        prefix = namespace + self._options.namespace_boundary if namespace else ""
        return f"{prefix}{self._options.user_boundary}{user}"

    def _namespace(self, options: ChannelOptions) -> _Namespace:
        pattern = compile_re2(options.channel_regex) if options.channel_regex else None
        options = attrs.evolve(
            options,
            history_meta_ttl=options.history_meta_ttl or self._options.history_meta_ttl,
            publication_data_format=options.publication_data_format or self._options.publication_data_format,
        )
        kind = _KINDS.get(options.subscription_type)
        if kind is None:
            raise ValueError(f"unknown subscription_type {options.subscription_type!r}")
        return _Namespace(options, kind, pattern)

    def _resolve(self, channel: str) -> Resolved | None:
        options = self._options
        prefix = options.private_prefix
        private = bool(prefix) and channel.startswith(prefix)
        name, found, rest = "", "", ""
        if options.namespace_boundary:
            bare = channel[len(prefix) :] if private else channel
            name, found, rest = bare.partition(options.namespace_boundary)
        if not found:
            name, rest = "", channel
        namespace = self._namespaces.get(name)
        if namespace is None:
            return None
        boundary = options.user_boundary
        if self._hooks is not None and (hooks := self._hooks(channel)):
            namespace = self._with_hooks(name, namespace, hooks)
        resolved = Resolved(  # by position: names would cost as much as the rest
            channel,
            name,
            rest,
            namespace.options,
            namespace.kind,
            self._valid(channel, rest, namespace.pattern),
            private,
            namespace.options.allow_user_limited_channels and bool(boundary) and boundary in channel,
            namespace.remembered,
        )
        if len(channel) <= options.max_length:  # longer names come from nobody honest, and would fill the memory
            if len(self._resolved) >= _CACHE_SIZE:
                self._resolved.clear()
            self._resolved[channel] = resolved
        return resolved

    def _with_hooks(self, name: str, namespace: _Namespace, hooks: tuple[tuple[str, str], ...]) -> _Namespace:
        """As if the namespace named these proxies. There are only a few different ones."""
        backed = self._backed.get((name, hooks))
        if backed is None:
            named: dict[str, Any] = {}
            for kind, proxy in hooks:
                named |= {f"{kind}_proxy_enabled": True, f"{kind}_proxy_name": proxy}
            options = attrs.evolve(namespace.options, **named)
            backed = self._backed[name, hooks] = _Namespace(options, namespace.kind, namespace.pattern)
        return backed

    def _valid(self, channel: str, rest: str, pattern: re.Pattern[str] | None) -> bool:
        # Control characters are refused where Centrifugo lets them pass: in a subject, a key or a log line of
        # another system a name with a line break is an injection.
        if _CONTROL.search(channel) is not None:
            return False
        if pattern is None:
            return channel.isascii()
        # `re` backtracks and RE2 does not, so it never sees more than a name that could be subscribed to.
        return len(channel) <= self._options.max_length and pattern.search(rest) is not None
