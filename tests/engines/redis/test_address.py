"""Every form of address, what the options say beside it, and sentences for those that cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

from broker.engines.redis.address import Kind, Login, Server, Shard, shards_of
from broker.engines.redis.options import RedisOptions
from broker.tls import TlsOptions
from broker.values import Secret


def options(*addresses: str, **more: Any) -> RedisOptions:
    return RedisOptions(address=tuple(map(Secret, addresses)), **more)


def only(*addresses: str, **more: Any) -> Shard:
    (shard,) = shards_of(options(*addresses, **more))
    return shard


@pytest.mark.parametrize(
    ("address", "server"),
    [
        ("127.0.0.1:6380", Server("127.0.0.1", 6380)),
        ("[::1]:6380", Server("::1", 6380)),
        ("redis://example.com", Server("example.com", 6379)),
        ("tcp://example.com:1", Server("example.com", 1)),
        ("rediss://[::1]:6380/", Server("::1", 6380)),
        ("unix:///run/redis%20main.sock", Server(path="/run/redis main.sock")),
    ],
)
def test_one_server(address: str, server: Server) -> None:
    shard = only(address)
    assert (shard.kind, shard.servers) == (Kind.SINGLE, (server,))
    assert (shard.connect_timeout, shard.io_timeout) == (1, 4)


def test_a_url_wins_over_the_options_beside_it() -> None:
    shard = only(
        "redis://ann:p%40ss@host:1/3?connect_timeout=2s&io_timeout=100ms&tls_enabled=true&force_resp2=true",
        user="bob",
        password=Secret("other"),
        db=1,
        client_name="me",
    )
    assert shard.login == Login("ann", Secret("p@ss"), 3, "me", TlsOptions())
    assert (shard.connect_timeout, shard.io_timeout) == (2, 0.1)
    assert only("redis://:pw@host", user="bob").login == Login("bob", Secret("pw"))


def test_tls_by_scheme_keeps_the_certificates_of_the_options() -> None:
    tls = TlsOptions(server_name="redis.example")
    assert only("rediss://host", tls=tls).login.tls is tls
    assert only("redis://host?tls_enabled=true", tls=tls).login.tls is tls
    assert only("rediss+sentinel://host?sentinel_master_name=m", sentinel_tls=tls).sentinel_login.tls is tls
    assert only("rediss://host").login.tls == TlsOptions()
    on = TlsOptions(enabled=True)
    assert only("redis://host", tls=on).login.tls is on
    assert only("redis://host?tls_enabled=false", tls=on).login.tls is on
    assert only("redis://host", tls=TlsOptions(server_name="unused")).login.tls is None


def test_several_addresses_are_shards_in_their_order() -> None:
    shards = shards_of(options("a:1", "redis://b:2", "c:3"))
    assert [str(shard) for shard in shards] == ["a:1", "b:2", "c:3"]
    assert [str(shard) for shard in shards_of(RedisOptions(address=()))] == ["127.0.0.1:6379"]


def test_sentinel() -> None:
    by_options = shards_of(
        RedisOptions(
            sentinel_address=(Secret("a:1,b:2"), Secret("c:3")),
            sentinel_master_name="main",
            sentinel_user="watch",
            sentinel_password=Secret("pw"),
            sentinel_client_name="me",
            password=Secret("data"),
        )
    )
    assert [shard.kind for shard in by_options] == [Kind.SENTINEL] * 2
    assert by_options[0].servers == (Server("a", 1), Server("b", 2))
    assert by_options[0].sentinel_login == Login("watch", Secret("pw"), client_name="me")
    assert by_options[0].login == Login(password=Secret("data"))
    assert str(by_options[0]) == "main behind Sentinels a:1,b:2"
    by_url = only("rediss+sentinel://a:1?sentinel_master_name=main&addr=b:2&sentinel_user=w&sentinel_password=p")
    assert (by_url.kind, by_url.master_name, by_url.servers) == (
        Kind.SENTINEL,
        "main",
        (Server("a", 1), Server("b", 2)),
    )
    assert by_url.sentinel_login == Login("w", Secret("p"), tls=TlsOptions())
    assert only("redis://a:1?sentinel_master_name=main&sentinel_tls_enabled=1").kind is Kind.SENTINEL


def test_cluster() -> None:
    (shard,) = shards_of(RedisOptions(cluster_address=(Secret("a:1, b:2"),)))
    assert (shard.kind, shard.servers) == (Kind.CLUSTER, (Server("a", 1), Server("b", 2)))
    by_url = only("redis+cluster://a:1?addr=b:2&addr=c:3")
    assert (by_url.kind, len(by_url.servers)) == (Kind.CLUSTER, 3)
    assert str(by_url) == "Cluster a:1,b:2,c:3"


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("host", "address[0]: not host:port"),
        ("host:99999", "address[0]: not host:port"),
        ("http://host", "address[0]: unknown scheme 'http' (one of "),
        ("redis://host:secret-port", "address[0]: not a URL"),
        ("redis://:1", "address[0]: no host"),
        ("redis://host/secret", "address[0]: the database after the last / is not a number"),
        ("redis://host?io_timeout=soon", "address[0]: io_timeout: "),
        ("redis://host?tls_enabled=perhaps", "address[0]: tls_enabled: not true or false"),
        ("redis://host?colour=red", "address[0]: unknown parameter 'colour'"),
        ("redis+sentinel://host", "address[0]: sentinel_master_name is needed for Sentinel"),
        ("redis://host?addr=secret", "address[0]: not host:port"),
        ("unix://", "address[0]: no path of a socket"),
    ],
)
def test_what_cannot_be_read(address: str, problem: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (its text is compared)
        shards_of(options(address))
    assert str(raised.value).startswith(problem)
    assert "secret" not in str(raised.value)


def test_sentinels_without_a_name() -> None:
    with pytest.raises(ValueError, match="sentinel_master_name: is needed"):
        shards_of(RedisOptions(sentinel_address=(Secret("a:1"),)))


def test_nothing_shows_a_password() -> None:
    shard = only("redis://ann:hunter2@host?sentinel_master_name=m&sentinel_password=hunter3")
    assert "hunter" not in repr(shard) + str(shard)
