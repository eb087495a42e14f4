"""Hooks: what is asked of the application's backend, and what carries the questions. Centrifugo calls them proxies."""

from broker.channels import Override
from broker.hooks.app import Hooks
from broker.hooks.backends import DEFAULT, NO_BACKENDS, Backends, Proxies, http_backends
from broker.hooks.events import (
    CacheEmptyEvent,
    CacheEmptyResult,
    ChannelState,
    ClientEvent,
    ConnectEvent,
    ConnectResult,
    DisconnectEvent,
    Noted,
    PublishEvent,
    PublishResult,
    RefreshEvent,
    RefreshResult,
    RpcEvent,
    RpcResult,
    StateEvent,
    SubRefreshEvent,
    SubRefreshResult,
    SubscribeEvent,
    SubscribeOptions,
    SubscribeResult,
    UnsubscribeEvent,
)
from broker.hooks.hook import Hook, HookDisconnect, HookError, HookFailed
from broker.hooks.loading import HooksError, LoadedHooks, load_hooks
from broker.hooks.notices import Notices, open_notices
from broker.hooks.python import with_python
from broker.hooks.server import ApiError, ChannelHistory, ChannelStats, NodeState, ServerApi

__all__ = [
    "DEFAULT",
    "NO_BACKENDS",
    "ApiError",
    "Backends",
    "CacheEmptyEvent",
    "CacheEmptyResult",
    "ChannelHistory",
    "ChannelState",
    "ChannelStats",
    "ClientEvent",
    "ConnectEvent",
    "ConnectResult",
    "DisconnectEvent",
    "Hook",
    "HookDisconnect",
    "HookError",
    "HookFailed",
    "Hooks",
    "HooksError",
    "LoadedHooks",
    "NodeState",
    "Noted",
    "Notices",
    "Override",
    "Proxies",
    "PublishEvent",
    "PublishResult",
    "RefreshEvent",
    "RefreshResult",
    "RpcEvent",
    "RpcResult",
    "ServerApi",
    "StateEvent",
    "SubRefreshEvent",
    "SubRefreshResult",
    "SubscribeEvent",
    "SubscribeOptions",
    "SubscribeResult",
    "UnsubscribeEvent",
    "http_backends",
    "load_hooks",
    "open_notices",
    "with_python",
]
