"""What a client's life is bound by: the `client` and `rpc` sections, without their proxies (server API §1.7)."""

from __future__ import annotations

from typing import final

import attrs

from broker.auth.options import SubscriptionTokenOptions, TokenOptions
from broker.hooks.options import DisconnectOptions
from broker.values import Duration


@final
@attrs.frozen(kw_only=True)
class PersonalChannelOptions:
    """A server-side subscription of every user to a channel of the user's own."""

    enabled: bool = False
    personal_channel_namespace: str = ""
    single_connection: bool = False
    """A new connection of a user ends the older ones. Needs presence in that namespace."""


@final
@attrs.frozen(kw_only=True)
class ConnectCodeTransform:
    """An error code of connect, and the disconnect that a one-way client gets for it."""

    code: int = 0
    to: DisconnectOptions = DisconnectOptions()


@final
@attrs.frozen(kw_only=True)
class ConnectCodeOptions:
    """Errors of connect turned into disconnects, for transports on which no reply can be read."""

    enabled: bool = False
    transforms: tuple[ConnectCodeTransform, ...] = ()


@attrs.frozen(kw_only=True)
class ClientOptions:
    """Everything under `client` but its proxies."""

    allowed_origins: tuple[str, ...] = ()
    """Globs; empty refuses every browser origin, and lets in clients that send no `Origin` (server API §7.1)."""
    token: TokenOptions = TokenOptions()
    subscription_token: SubscriptionTokenOptions = SubscriptionTokenOptions()
    allow_anonymous_connect_without_token: bool = False
    disallow_anonymous_connection_tokens: bool = False

    ping_interval: Duration = Duration(25)
    pong_timeout: Duration = Duration(8)
    expired_close_delay: Duration = Duration(25)
    expired_sub_close_delay: Duration = Duration(25)
    stale_close_delay: Duration = Duration(10)
    """A connection that has not sent connect by then is closed with 3502."""

    channel_limit: int = 128
    """Subscriptions of one connection."""
    queue_max_size: int = 1_048_576
    """Bytes that may wait for a client before it is cut off with 3008."""
    presence_update_interval: Duration = Duration(27)
    concurrency: int = 0
    channel_position_check_delay: Duration = Duration(40)
    channel_position_max_time_lag: Duration = Duration(0)
    connection_limit: int = 0
    user_connection_limit: int = 0
    connection_rate_limit: int = 0
    """New connections: a burst of this many, then one per second."""
    connect_include_server_time: bool = False
    history_max_publication_limit: int = 300
    recovery_max_publication_limit: int = 300

    insecure_skip_token_signature_verify: bool = False
    user_id_http_header: str = ""
    insecure: bool = False
    """For development: no token needed, every permission given (server API §3.6)."""
    subscribe_to_user_personal_channel: PersonalChannelOptions = PersonalChannelOptions()
    connect_code_to_unidirectional_disconnect: ConnectCodeOptions = ConnectCodeOptions()


@final
@attrs.frozen(kw_only=True)
class RpcPingOptions:
    """A built-in RPC that does nothing."""

    enabled: bool = False
    method: str = "ping"


@attrs.frozen(kw_only=True)
class RpcMethodOptions:
    """Options of the RPC methods of one namespace."""

    proxy_enabled: bool = False
    proxy_name: str = "default"


@final
@attrs.frozen(kw_only=True)
class RpcNamespaceOptions(RpcMethodOptions):
    """One of `rpc.namespaces`."""

    name: str = ""


@attrs.frozen(kw_only=True)
class RpcOptions:
    """The `rpc` section, without its proxy."""

    without_namespace: RpcMethodOptions = RpcMethodOptions()
    namespaces: tuple[RpcNamespaceOptions, ...] = ()
    ping: RpcPingOptions = RpcPingOptions()
    namespace_boundary: str = ":"

    def of_method(self, method: str) -> RpcMethodOptions | None:
        """Options of a method by what stands before the first boundary of its name; None for an unknown namespace."""
        name, boundary, _ = method.partition(self.namespace_boundary) if self.namespace_boundary else ("", "", "")
        if not boundary:
            return self.without_namespace
        return next((each for each in self.namespaces if each.name == name), None)
