"""Channels: what their names say, their options, and who may do what in them. QUIET: data in, data out."""

from broker.channels.data_format import acceptable
from broker.channels.names import Channels, Kind, Resolved
from broker.channels.options import ChannelOptions, ChannelsOptions, NamespaceOptions
from broker.channels.patterns import compile_re2
from broker.channels.permissions import (
    Override,
    PublishBy,
    Source,
    SubscribeGrant,
    check_history,
    check_presence,
    may_subscribe_on_connect,
    publish_decided_by,
    subscribe_decided_by,
)

__all__ = [
    "ChannelOptions",
    "Channels",
    "ChannelsOptions",
    "Kind",
    "NamespaceOptions",
    "Override",
    "PublishBy",
    "Resolved",
    "Source",
    "SubscribeGrant",
    "acceptable",
    "check_history",
    "check_presence",
    "compile_re2",
    "may_subscribe_on_connect",
    "publish_decided_by",
    "subscribe_decided_by",
]
