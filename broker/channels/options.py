"""Options of channels: what a channel keeps, and who may do what in it (server API §1.8)."""

from __future__ import annotations

from typing import final

import attrs

from broker.values import Duration


@final
@attrs.frozen(kw_only=True)
class MapOptions:
    """`map.*` of a namespace: known, so that it can be refused. Map subscriptions are not in this version."""

    mode: str = ""
    key_ttl: Duration = Duration(0)
    stream_size: int = 0
    stream_ttl: Duration = Duration(0)
    meta_ttl: Duration = Duration(0)
    remove_client_on_unsubscribe: bool = False
    client_key: str = ""
    allow_publish_for_client: bool = False
    allow_publish_for_subscriber: bool = False
    allow_publish_for_anonymous: bool = False
    allow_remove_for_client: bool = False
    allow_remove_for_subscriber: bool = False
    allow_remove_for_anonymous: bool = False
    publish_proxy_enabled: bool = False
    publish_proxy_name: str = "default"
    remove_proxy_enabled: bool = False
    remove_proxy_name: str = "default"
    default_page_size: int = 0
    min_page_size: int = 0
    max_page_size: int = 0
    live_transition_max_publication_limit: int = 0
    subscribe_catch_up_timeout: Duration = Duration(0)


@final
@attrs.frozen(kw_only=True)
class SharedPollOptions:
    """`shared_poll.*` of a namespace: known, so that it can be refused. Shared poll is not in this version."""

    proxy_name: str = ""
    refresh_interval: Duration = Duration(0)
    refresh_batch_size: int = 0
    max_keys_per_connection: int = 0
    mode: str = ""
    channel_shutdown_delay: Duration = Duration(0)
    track_expired_extra_delay: Duration = Duration(0)
    publish_enabled: bool = False


@attrs.frozen(kw_only=True)
class ChannelOptions:
    """What holds for the channels of one namespace, or for those without one. Everything is off by default."""

    presence: bool = False
    join_leave: bool = False
    force_push_join_leave: bool = False
    map_clients_presence_channel_prefix: str = ""
    map_users_presence_channel_prefix: str = ""

    history_size: int = 0
    """Publications kept. History is on when both this and `history_ttl` are set."""
    history_ttl: Duration = Duration(0)
    history_meta_ttl: Duration = Duration(0)
    """How long offset and epoch outlive the publications; 0 takes `channel.history_meta_ttl`."""

    force_positioning: bool = False
    allow_positioning: bool = False
    force_recovery: bool = False
    allow_recovery: bool = False
    force_recovery_mode: str = ""
    """`stream` (also when empty): all missed publications. `cache`: the latest one."""
    auto_cache_recover: bool = False
    allowed_delta_types: tuple[str, ...] = ()
    delta_publish: bool = False
    allow_tags_filter: bool = False

    allow_subscribe_for_client: bool = False
    allow_subscribe_for_anonymous: bool = False
    allow_publish_for_client: bool = False
    allow_publish_for_subscriber: bool = False
    allow_publish_for_anonymous: bool = False
    allow_presence_for_client: bool = False
    allow_presence_for_subscriber: bool = False
    allow_presence_for_anonymous: bool = False
    allow_history_for_client: bool = False
    allow_history_for_subscriber: bool = False
    allow_history_for_anonymous: bool = False
    allow_user_limited_channels: bool = False

    channel_regex: str = ""
    """Searched in the part of the name after the namespace boundary."""
    publication_data_format: str = ""
    """`json`, `json_object`, `binary`; empty takes `channel.publication_data_format`."""

    subscribe_proxy_enabled: bool = False
    subscribe_proxy_name: str = "default"
    publish_proxy_enabled: bool = False
    publish_proxy_name: str = "default"
    sub_refresh_proxy_enabled: bool = False
    sub_refresh_proxy_name: str = "default"
    cache_empty_proxy_enabled: bool = False
    cache_empty_proxy_name: str = "default"
    """These two are our own (Centrifugo PRO has them)."""
    unsubscribe_proxy_enabled: bool = False
    unsubscribe_proxy_name: str = "default"
    """These two are our own."""
    state_proxy_enabled: bool = False
    state_proxy_name: str = "default"
    """These two are our own (Centrifugo PRO has them)."""
    subscribe_stream_proxy_enabled: bool = False
    subscribe_stream_proxy_name: str = "default"
    subscribe_stream_proxy_bidirectional: bool = False

    subscription_type: str = ""
    """`stream` (also when empty). `map`, `map_clients`, `map_users`, `shared_poll` are not in this version."""
    map: MapOptions = MapOptions()
    shared_poll: SharedPollOptions = SharedPollOptions()


@final
@attrs.frozen(kw_only=True)
class NamespaceOptions(ChannelOptions):
    """One of `channel.namespaces`: the options of all channels named `<name>:…`."""

    name: str = ""


@attrs.frozen(kw_only=True)
class ChannelsOptions:
    """The `channel` section, without its proxies."""

    without_namespace: ChannelOptions = ChannelOptions()
    namespaces: tuple[NamespaceOptions, ...] = ()
    history_meta_ttl: Duration = Duration(720 * 3600)
    publication_data_format: str = ""
    """Empty: any payload that is not empty. `json`, `json_object`, `binary` (empty payloads, too)."""
    max_length: int = 255
    """Bytes of a channel name."""
    private_prefix: str = "$"
    namespace_boundary: str = ":"
    user_boundary: str = "#"
    user_separator: str = ","
