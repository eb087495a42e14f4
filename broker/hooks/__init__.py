"""Hooks: what is asked of the application's backend, and what carries the questions. Centrifugo calls them proxies."""

from broker.channels import Override
from broker.hooks.app import Hooks
from broker.hooks.backends import DEFAULT, NO_BACKENDS, Backends, Proxies, http_backends
from broker.hooks.events import (
    CacheEmptyEvent,
    CacheEmptyResult,
    ClientEvent,
    ConnectEvent,
    ConnectResult,
    PublishEvent,
    PublishResult,
    RefreshEvent,
    RefreshResult,
    RpcEvent,
    RpcResult,
    SubRefreshEvent,
    SubRefreshResult,
    SubscribeEvent,
    SubscribeOptions,
    SubscribeResult,
)
from broker.hooks.hook import Hook, HookDisconnect, HookError, HookFailed
from broker.hooks.loading import HooksError, LoadedHooks, load_hooks
from broker.hooks.python import with_python

__all__ = [
    "DEFAULT",
    "NO_BACKENDS",
    "Backends",
    "CacheEmptyEvent",
    "CacheEmptyResult",
    "ClientEvent",
    "ConnectEvent",
    "ConnectResult",
    "Hook",
    "HookDisconnect",
    "HookError",
    "HookFailed",
    "Hooks",
    "HooksError",
    "LoadedHooks",
    "Override",
    "Proxies",
    "PublishEvent",
    "PublishResult",
    "RefreshEvent",
    "RefreshResult",
    "RpcEvent",
    "RpcResult",
    "SubRefreshEvent",
    "SubRefreshResult",
    "SubscribeEvent",
    "SubscribeOptions",
    "SubscribeResult",
    "http_backends",
    "load_hooks",
    "with_python",
]
