"""What is allowed, and its author should hear about at every start."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from broker.config.proxies import used_proxies
from broker.config.root import Config
from broker.glob import compile_glob

__all__ = ["advice", "hooks_advice"]

_ANY_PAGE: Final = "https://any-page.invalid"


def advice(config: Config) -> Iterator[str]:
    """One line for each insecure switch, and for what is likely not meant."""
    reach = "" if _on_loopback(config.http_server.address) else ", and the port is open to the network"
    if config.client.insecure:
        yield f"INSECURE: client.insecure is on: no token is asked for, everything is permitted{reach}"
    if config.http_api.insecure and not config.http_api.disabled:
        yield f"INSECURE: http_api.insecure is on: the server API asks for no key{reach}"
    if config.client.insecure_skip_token_signature_verify:
        yield f"INSECURE: client.insecure_skip_token_signature_verify is on: anybody can write a token{reach}"
    for path, token in (("token", config.client.token), ("subscription_token", config.client.subscription_token)):
        if token.insecure_skip_jwks_endpoint_safety_check:
            yield f"INSECURE: client.{path}.insecure_skip_jwks_endpoint_safety_check is on"
    for origin in config.client.allowed_origins:
        if origin == "*":
            yield 'client.allowed_origins: "*" lets pages of every site connect'
        elif origin.startswith("*") and not origin.startswith(("*.", "*://")):
            yield f'client.allowed_origins: "{origin}" also matches names that merely end so; write "*.{origin[1:]}"'
    forwarding = {path: proxy.http_headers for path, proxy in used_proxies(config).items()}
    yield from _forged(config, {f"{path}.http_headers": names for path, names in forwarding.items()})
    if config.workers == "auto" and not config.engine_is_shared:
        yield "workers: auto is one worker here: the memory engine lives in one process"
    if config.prometheus.enabled and not config.http_server.internal_port and reach:
        yield "prometheus.enabled: metrics are on the public port; http_server.internal_port takes them off it"


def hooks_advice(config: Config, http_headers: Iterable[str]) -> Iterator[str]:
    """The same for hooks in Python that want these headers of clients' requests."""
    yield from _forged(config, {"Hooks(http_headers=…)": http_headers})


def _forged(config: Config, forwarded: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """A browser sends its user's cookies whichever page asks it to connect: the list of origins is the only guard."""
    keys = [key for key, names in forwarded.items() if "cookie" in map(str.lower, names)]
    if keys and any(compile_glob(origin).fullmatch(_ANY_PAGE) for origin in config.client.allowed_origins):
        yield (
            f"INSECURE: client.allowed_origins lets every page connect, and cookies are sent on ({', '.join(keys)}): "
            "pages of every site can act as your users. List your own origins"
        )


def _on_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"
