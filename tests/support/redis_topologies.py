"""Every way in which Redis is run: each starts real servers, and tells how the configuration names them.

    with TOPOLOGIES["cluster"]() as redis:
        redis.options                       # the section engine.redis
        redis.masters                       # whom to ask, to stop, to kill

They are started without Trio, so that a whole session can share them; `flush` empties them between tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, final

import attrs
import pytest

from broker.engines.redis.names import slot_of
from tests.support.certificates import Authority
from tests.support.patience import PATIENCE
from tests.support.ports import free_port
from tests.support.redis import REDIS_6_2, SERVER, VALKEY, RedisServer, a_folder, packaged

__all__ = [
    "ACL_RULES",
    "TOPOLOGIES",
    "RunningRedis",
    "cluster",
    "running",
    "sentinel",
    "shards",
    "single",
    "tls",
    "until",
]

Options = dict[str, Any]

ACL_RULES: Final = (
    "~{prefix}.* resetchannels &{prefix}.* +auth +ping +info +select +client|setname +script|load +eval +evalsha"
    " +subscribe +unsubscribe +publish +del +expire +time"
    " +hset +hget +hmget +hgetall +hdel +hlen +hexists +hincrby"
    " +xadd +xrange +xrevrange +zadd +zrem +zrangebyscore +zremrangebyscore"
)
"""What the broker needs of an ACL user, as the guide says."""


@final
@attrs.frozen
class RunningRedis:
    """Servers that run; who is master, as it was at the start."""

    options: Options
    masters: Sequence[RedisServer]
    replicas: Sequence[RedisServer] = ()
    sentinels: Sequence[RedisServer] = ()

    def flush(self) -> None:
        for server in self.masters:
            server.ask("FLUSHALL")
            server.ask("SCRIPT", "FLUSH")

    def master_of(self, key: bytes) -> RedisServer:
        """In a Cluster: who holds `key` now."""
        return next(server for server in (*self.masters, *self.replicas) if owns(server, slot_of(key)))


Open = Callable[[], AbstractContextManager[RunningRedis]]


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for what other processes do."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(condition)
        time.sleep(0.01)


@contextmanager
def running(*servers: RedisServer) -> Iterator[None]:
    """Servers for as long as the block lives, all of them started at once."""
    try:
        for server in servers:
            server.start()
        for server in servers:
            until(lambda server=server: server.answers)  # type: ignore[misc]
        yield
    finally:
        for server in servers:
            server.kill()


@contextmanager
def folders(count: int) -> Iterator[list[Path]]:
    with ExitStack() as stack:
        yield [stack.enter_context(a_folder()) for _ in range(count)]


@contextmanager
def single(program: str = SERVER, **options: Any) -> Iterator[RunningRedis]:
    """One server on TCP."""
    with a_folder() as folder:
        server = RedisServer(folder, program=program)
        with running(server):
            yield RunningRedis({"address": [f"redis://{server.address}"], **options}, [server])


@contextmanager
def unix() -> Iterator[RunningRedis]:
    """One server on a Unix socket, in a database of its own."""
    with a_folder() as folder:
        server = RedisServer(folder)
        with running(server):
            yield RunningRedis({"address": [f"unix://{server.socket}"], "db": 3}, [server])


@contextmanager
def shards(count: int = 2) -> Iterator[RunningRedis]:
    """Several servers that know nothing of each other."""
    with folders(count) as places:
        servers = [RedisServer(folder) for folder in places]
        with running(*servers):
            yield RunningRedis({"address": [server.address for server in servers]}, servers)


@contextmanager
def tls() -> Iterator[RunningRedis]:
    """TLS with a certificate of the client, and a user who may do only what the guide says. The CA is of this test."""
    with a_folder() as folder:
        authority = Authority(folder)
        cert, key = authority.certificate("redis", server=True)
        client_cert, client_key = authority.certificate("broker")
        port = free_port()
        server = RedisServer(
            folder,
            *("--port", "0", "--tls-port", str(port), "--tls-auth-clients", "yes"),
            *("--tls-cert-file", str(cert), "--tls-key-file", str(key), "--tls-ca-cert-file", str(authority.file)),
            port=port,
            login=("test", "all of it"),
            config='user default off\nuser test on ">all of it" ~* &* +@all\n'
            f'user broker on ">secret of the broker" {ACL_RULES.format(prefix="app")}\n',
        )
        try:
            with running(server):
                yield RunningRedis(
                    {
                        "address": [f"rediss://broker@127.0.0.1:{port}"],
                        "password": "secret of the broker",
                        "prefix": "app",
                        "client_name": "broker-of-tests",
                        "tls": {
                            "server_ca_pem": str(authority.file),
                            "cert_pem": str(client_cert),
                            "key_pem": str(client_key),
                        },
                    },
                    [server],
                )
        except RuntimeError as error:
            if "tls-port" not in str(error):
                raise
            pytest.skip(f"{SERVER} was built without TLS")


# ---- Sentinel -------------------------------------------------------------------------------------------------------

MASTER_NAME: Final = "main"


@contextmanager
def sentinel(*, down_after: float = 1.0, replicas: int = 1) -> Iterator[RunningRedis]:
    """A master with a password, replicas, and three Sentinels with a password of their own."""
    with folders(1 + replicas + 3) as places:
        secured = ("--requirepass", "data", "--masterauth", "data", "--repl-diskless-sync-delay", "0")
        master = RedisServer(places[0], *secured, login=("data",))
        followers = [
            RedisServer(folder, *secured, "--replicaof", "127.0.0.1", str(master.port), login=("data",))
            for folder in places[1 : 1 + replicas]
        ]
        sentinels = [
            RedisServer(
                folder,
                "--sentinel",
                login=("watch",),
                config=f"sentinel monitor {MASTER_NAME} 127.0.0.1 {master.port} 2\n"
                f"sentinel auth-pass {MASTER_NAME} data\n"
                f"sentinel down-after-milliseconds {MASTER_NAME} {int(down_after * 1000)}\n"
                f"sentinel failover-timeout {MASTER_NAME} 5000\n"
                "requirepass watch\nsentinel sentinel-pass watch\n",
            )
            for folder in places[1 + replicas :]
        ]
        with running(master, *followers):
            until(lambda: all(each.info("master_link_status") == "up" for each in followers))
            with running(*sentinels):
                until(lambda: all(_sees(each, followers=replicas, sentinels=2) for each in sentinels))
                yield RunningRedis(
                    {
                        "sentinel_address": [",".join(each.address for each in sentinels)],
                        "sentinel_master_name": MASTER_NAME,
                        "sentinel_password": "watch",
                        "password": "data",
                    },
                    [master],
                    followers,
                    sentinels,
                )


def _sees(server: RedisServer, *, followers: int, sentinels: int) -> bool:
    reply = server.ask("SENTINEL", "MASTER", MASTER_NAME)
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    return int(fields[b"num-slaves"]) >= followers and int(fields[b"num-other-sentinels"]) >= sentinels


# ---- Cluster --------------------------------------------------------------------------------------------------------


@contextmanager
def cluster(*, replicas: bool = False, node_timeout: float = 2.0, program: str = SERVER) -> Iterator[RunningRedis]:
    """Three masters of a Cluster, each with a replica if wanted: in the order of their masters."""
    count = 6 if replicas else 3
    with folders(count) as places:
        members = [
            RedisServer(
                folder,
                *("--cluster-enabled", "yes", "--cluster-node-timeout", str(int(node_timeout * 1000))),
                *("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"),
                program=program,
            )
            for folder in places
        ]
        with running(*members):
            _make_cluster(members)
            seeds = ",".join(each.address for each in members[:2])
            yield RunningRedis({"cluster_address": [seeds]}, members[:3], members[3:])


def _make_cluster(members: Sequence[RedisServer]) -> None:
    """What `redis-cli --cluster create` does, without its pauses."""
    masters = members[:3]
    bounds = (0, 5461, 10923, 16384)
    for number, server in enumerate(masters):
        server.ask("CLUSTER", "ADDSLOTS", *range(bounds[number], bounds[number + 1]))
    for number, server in enumerate(members):
        server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        if number:
            members[0].ask("CLUSTER", "MEET", "127.0.0.1", server.port)
    until(lambda: all(known(server) == len(members) and _cluster_ok(server) for server in members))
    for master, replica in zip(masters, members[3:], strict=False):
        replica.ask("CLUSTER", "REPLICATE", master.ask("CLUSTER", "MYID"))
    until(lambda: all(replica.info("master_link_status") == "up" for replica in members[3:]))
    until(lambda: all(_replicas(server) == len(members) - 3 for server in members))


def known(server: RedisServer) -> int:
    return sum(b"handshake" not in line for line in server.ask("CLUSTER", "NODES").splitlines())


def _replicas(server: RedisServer) -> int:
    return sum(b"slave" in line for line in server.ask("CLUSTER", "NODES").splitlines())


def _cluster_ok(server: RedisServer) -> bool:
    return b"cluster_state:ok" in server.ask("CLUSTER", "INFO")


def owns(server: RedisServer, slot: int) -> bool:
    """Whether `server` thinks that it holds `slot`."""
    mine = server.ask("CLUSTER", "MYID")
    for first, last, master, *_ in server.ask("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return bool(master[2] == mine)
    return False


# ---- all of them ----------------------------------------------------------------------------------------------------


@contextmanager
def other(package: tuple[str, str], **options: Any) -> Iterator[RunningRedis]:
    """Another server than the usual one, from a package."""
    program = packaged(*package)
    if not program:
        pytest.skip("no package with this server for this Python and machine")
    with single(program, **options) as redis:
        yield redis


TOPOLOGIES: Final[dict[str, Open]] = {
    "tcp": single,
    "users counted": partial(single, presence_user_mapping=True),
    "unix": unix,
    "tls": tls,
    "sentinel": sentinel,
    "cluster": cluster,
    "shards": shards,
    "redis 6.2": partial(other, REDIS_6_2, presence_user_mapping=True),
    "valkey": partial(other, VALKEY),
    "fields expire": partial(other, VALKEY, presence_hash_field_ttl=True, presence_user_mapping=True),
}
