"""Where a Redis is, from the options: every form of address that Centrifugo takes (server API §5.3). Pure.

Facts: https://centrifugal.dev/docs/server/engines#redis-engine.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any, Final, final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import attrs

from broker.durations import parse_duration
from broker.engines.redis.options import RedisOptions
from broker.tls import TlsOptions
from broker.values import Secret

__all__ = ["Kind", "Login", "Server", "Shard", "shards_of"]

_DEFAULT_PORT: Final = 6379


@final
class Kind(enum.Enum):
    """How the server that holds a shard's data is found."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@final
@attrs.frozen
class Server:
    """A TCP address, or the path of a Unix socket."""

    host: str = ""
    port: int = _DEFAULT_PORT
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"


@final
@attrs.frozen
class Login:
    """What is said first on a link. `tls` is None for a link in the clear; its `enabled` is not looked at."""

    user: str = ""
    password: Secret = Secret()
    db: int = 0
    client_name: str = ""
    tls: TlsOptions | None = None


@final
@attrs.frozen
class Shard:
    """One Redis, one master behind Sentinels, or one Cluster.

    `servers` are the Redis itself, the Sentinels, or the seeds of the Cluster. Timeouts are in seconds.
    """

    kind: Kind
    servers: tuple[Server, ...]
    login: Login
    sentinel_login: Login = Login()
    master_name: str = ""
    connect_timeout: float = 1.0
    io_timeout: float = 4.0

    def __str__(self) -> str:
        where = ",".join(map(str, self.servers))
        return {
            Kind.SINGLE: where,
            Kind.SENTINEL: f"{self.master_name} behind Sentinels {where}",
            Kind.CLUSTER: f"Cluster {where}",
        }[self.kind]


def shards_of(options: RedisOptions) -> list[Shard]:
    """The shards in their order: which channel is on which depends on it.

    Raises:
        ValueError: an address cannot be read; the text begins with the option's name and holds no password.
    """
    base = _base(options)
    if options.cluster_address:
        return list(_seeds(options.cluster_address, "cluster_address", attrs.evolve(base, kind=Kind.CLUSTER)))
    if options.sentinel_address:
        if not options.sentinel_master_name:
            raise ValueError("sentinel_master_name: is needed where Sentinels are given")
        return list(_seeds(options.sentinel_address, "sentinel_address", attrs.evolve(base, kind=Kind.SENTINEL)))
    addresses = options.address or (Secret(f"127.0.0.1:{_DEFAULT_PORT}"),)
    return [_address(secret.reveal(), number, base, options) for number, secret in enumerate(addresses)]


def _base(options: RedisOptions) -> Shard:
    return Shard(
        Kind.SINGLE,
        (),
        Login(
            options.user,
            options.password,
            options.db,
            options.client_name,
            options.tls if options.tls.enabled else None,
        ),
        Login(
            options.sentinel_user,
            options.sentinel_password,
            client_name=options.sentinel_client_name,
            tls=options.sentinel_tls if options.sentinel_tls.enabled else None,
        ),
        options.sentinel_master_name,
        options.connect_timeout,
        options.io_timeout,
    )


def _seeds(addresses: tuple[Secret, ...], option: str, base: Shard) -> Iterator[Shard]:
    for number, secret in enumerate(addresses):
        seeds = tuple(_server(text.strip(), f"{option}[{number}]") for text in secret.reveal().split(","))
        yield attrs.evolve(base, servers=seeds)


def _server(text: str, place: str) -> Server:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{place}: not host:port")
    return Server(host.strip("[]"), int(port))


_SCHEMES: Final = ("tcp", "redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "unix")


def _address(text: str, number: int, base: Shard, options: RedisOptions) -> Shard:
    place = f"address[{number}]"
    if "://" not in text:
        return attrs.evolve(base, servers=(_server(text, place),))
    try:
        url = urlsplit(text)
        query = {name: values[-1] for name, values in parse_qs(url.query, strict_parsing=bool(url.query)).items()}
        more = parse_qs(url.query).get("addr", [])
        port = url.port or _DEFAULT_PORT
    except ValueError:
        raise ValueError(f"{place}: not a URL") from None  # its text might hold the password
    if url.scheme not in _SCHEMES:
        raise ValueError(f"{place}: unknown scheme {url.scheme!r} (one of {', '.join(_SCHEMES)})")
    shard = _with_query(base, query, place, options)
    login = _login(shard.login, url, place)
    sentinel_login = shard.sentinel_login
    if url.scheme.startswith("rediss"):
        login = attrs.evolve(login, tls=options.tls)
        sentinel_login = attrs.evolve(sentinel_login, tls=options.sentinel_tls)
    if url.scheme == "unix":
        if not url.path:
            raise ValueError(f"{place}: no path of a socket")
        first = Server(path=unquote(url.path))
    elif not url.hostname:
        raise ValueError(f"{place}: no host")
    else:
        first = Server(url.hostname, port)
    servers = (first, *(_server(each, place) for each in more))
    kind = Kind.CLUSTER if "cluster" in url.scheme else Kind.SENTINEL if shard.master_name else Kind.SINGLE
    if "sentinel" in url.scheme and not shard.master_name:
        raise ValueError(f"{place}: sentinel_master_name is needed for Sentinel")
    return attrs.evolve(shard, kind=kind, servers=servers, login=login, sentinel_login=sentinel_login)


def _login(login: Login, url: SplitResult, place: str) -> Login:
    changed: dict[str, Any] = {}
    if url.username:
        changed["user"] = unquote(url.username)
    if url.password is not None:
        changed["password"] = Secret(unquote(url.password))
    if url.scheme != "unix" and url.path not in ("", "/"):
        if not url.path[1:].isdecimal():
            raise ValueError(f"{place}: the database after the last / is not a number")
        changed["db"] = int(url.path[1:])
    return attrs.evolve(login, **changed)


def _with_query(shard: Shard, query: dict[str, str], place: str, options: RedisOptions) -> Shard:
    changed: dict[str, Any] = {}
    login: dict[str, Any] = {}
    sentinel: dict[str, Any] = {}
    for name, value in query.items():
        match name:
            case "addr" | "force_resp2" | "replica_client_enabled":
                pass
            case "connect_timeout" | "io_timeout":
                try:
                    changed[name] = parse_duration(value)
                except ValueError as error:
                    raise ValueError(f"{place}: {name}: {error}") from None
            case "sentinel_master_name":
                changed["master_name"] = value
            case "sentinel_user":
                sentinel["user"] = value
            case "sentinel_password":
                sentinel["password"] = Secret(value)
            case "tls_enabled":
                login["tls"] = options.tls if _truth(value, name, place) else shard.login.tls
            case "sentinel_tls_enabled":
                sentinel["tls"] = options.sentinel_tls if _truth(value, name, place) else shard.sentinel_login.tls
            case _:
                raise ValueError(f"{place}: unknown parameter {name!r}")
    return attrs.evolve(
        shard,
        login=attrs.evolve(shard.login, **login),
        sentinel_login=attrs.evolve(shard.sentinel_login, **sentinel),
        **changed,
    )


def _truth(value: str, name: str, place: str) -> bool:
    if value.lower() not in ("1", "t", "true", "0", "f", "false"):
        raise ValueError(f"{place}: {name}: not true or false")
    return value.lower() in ("1", "t", "true")
