"""From a configuration to the rules that sessions and the API read at each use."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from broker.auth import TokenVerifier
from broker.channels import Channels
from broker.config import Config, hooks_advice
from broker.hooks import Hooks, Proxies, http_backends, with_python
from broker.observe import Counters
from broker.reader import Stage
from broker.sessions import Rules

__all__ = ["Clock", "make_rules"]

_log = structlog.get_logger("broker")

Clock = Callable[[], float]
"""Unix seconds."""


def make_rules(
    config: Config,
    counters: Counters,
    stage: Stage,
    wall_clock: Clock = time.time,  # noqa: TID251 (handed out from here)
    hooks: Hooks | None = None,
) -> Rules:
    """Everything that a reload can change: of a configuration, and of the application's hooks.

    Raises:
        ValueError: a backend cannot be asked as the configuration says.
    """
    connection_tokens = TokenVerifier(
        config.client.token,
        wall_clock=wall_clock,
        skip_signature=config.client.insecure_skip_token_signature_verify,
    )
    subscription_tokens = connection_tokens
    if config.client.subscription_token.enabled:
        subscription_tokens = TokenVerifier(
            config.client.subscription_token,
            wall_clock=wall_clock,
            skip_signature=config.client.insecure_skip_token_signature_verify,
        )
    methods = (config.rpc.without_namespace, *config.rpc.namespaces)
    proxies = Proxies(
        client=config.client.proxy,
        channel=config.channel.proxy,
        rpc=config.rpc.proxy,
        named=config.proxies,
        channels=config.channel,
        rpc_names=frozenset(each.proxy_name for each in methods if each.proxy_enabled),
    )
    backends = http_backends(proxies, counters.hooks, stage)
    if hooks is not None:
        backends = with_python(backends, hooks, counters.hooks)
        for line in hooks_advice(config, hooks.http_headers):
            _log.warning(line)
    return Rules(
        client=config.client,
        channels=Channels(config.channel, backends.channel_hooks),
        rpc=config.rpc,
        connection_tokens=connection_tokens,
        subscription_tokens=subscription_tokens,
        backends=backends,
        state=config.channel.state,
    )
