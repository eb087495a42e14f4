"""A server under load: where it is, and what it takes to be let in."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Sequence
from typing import Any, final
from urllib.parse import urlsplit

import attrs

from broker.bench.redis import Redis

__all__ = ["CODECS", "TRANSPORTS", "Address", "Target"]

TRANSPORTS = {
    "websocket": "/connection/websocket",
    "http_stream": "/connection/http_stream",
    "sse": "/connection/sse",
}
"""Name -> path of its endpoint."""
CODECS = ("json", "protobuf")

_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


@final
@attrs.frozen
class Address:
    """An endpoint. `host` is an IP address, `name` what the URL called it."""

    host: str
    port: int
    path: str
    name: str = ""
    tls: bool = False

    @classmethod
    def at(cls, url: str) -> Address:
        """
        Raises:
            ValueError: the URL is none of HTTP or WebSocket, or its host is not known.
        """
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"{url!r} is no ws://, wss://, http:// or https:// address")
        try:
            host = socket.getaddrinfo(parts.hostname, None, socket.AF_INET)[0][4][0]
        except OSError as error:
            raise ValueError(f"{url}: {error.strerror}") from None
        port = parts.port or _PORTS[parts.scheme]
        return cls(str(host), port, parts.path.rstrip("/"), parts.hostname, parts.scheme in ("https", "wss"))

    @property
    def local(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def authority(self) -> str:
        """For the `Host` header."""
        return f"{self.name or self.host}:{self.port}"


@final
@attrs.frozen
class Target:
    """A server that runs. `pids` are its processes; without them CPU and memory are unknown."""

    link: Address
    """Where clients connect."""
    api: Address
    """The prefix of the HTTP API's methods."""
    name: str = "server"
    pids: tuple[int, ...] = ()
    api_key: str = ""
    token_secret: str = ""
    """For HMAC tokens of clients; empty: none can be made."""
    codec: str = "json"
    transport: str = "websocket"
    ca: str = ""
    """A file of certificates to trust; empty: those of the system."""
    verify: bool = True
    """Whether the server has to have a certificate that we trust."""
    redis: Redis | None = None
    """Where it keeps its channels, if that may be killed (W8)."""

    @classmethod
    def at(
        cls,
        url: str,
        api_url: str = "",
        *,
        transport: str = "websocket",
        codec: str = "json",
        pids: Sequence[int] = (),
        **others: Any,
    ) -> Target:
        """The server at `url`: the endpoint itself, or what stands in front of `/connection/…` and `/api`.

        Raises:
            ValueError: one of the URLs is not one that can be loaded; no such codec on this transport.
        """
        if transport == "sse" and codec != "json":
            raise ValueError("SSE carries JSON only")
        link = Address.at(url)
        endpoint = TRANSPORTS[transport]
        prefix = link.path
        for known in TRANSPORTS.values():
            prefix = prefix.removesuffix(known)
        if link.path == prefix or not link.path.endswith(endpoint):
            link = attrs.evolve(link, path=prefix + endpoint)
        api = Address.at(api_url) if api_url else attrs.evolve(link, path=f"{prefix}/api")
        name = others.pop("name", "") or f"{link.name}:{link.port}"
        return cls(link, api, name, tuple(pids), codec=codec, transport=transport, **others)

    @property
    def emulation(self) -> Address:
        """Where clients of a response without an end speak."""
        return attrs.evolve(self.link, path=self.link.path.removesuffix(TRANSPORTS[self.transport]) + "/emulation")

    @property
    def content_type(self) -> str:
        """Of what clients send by requests."""
        return "application/octet-stream" if self.codec == "protobuf" else "application/json"

    @property
    def local(self) -> bool:
        return self.link.local and self.api.local

    def tls(self) -> ssl.SSLContext:
        """How its certificate is looked at."""
        context = ssl.create_default_context(cafile=self.ca or None)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def as_json(self) -> dict[str, Any]:
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Target:
        link, api = Address(**values["link"]), Address(**values["api"])
        redis = Redis(**(given | {"argv": tuple(given["argv"])})) if (given := values["redis"]) else None
        return cls(**(values | {"link": link, "api": api, "pids": tuple(values["pids"]), "redis": redis}))
