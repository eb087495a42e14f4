"""Dialling: a TCP connection or a Unix socket, TLS, the login, and what kind of server it is."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Final, final

import attrs
import trio

from broker.engines.redis.address import Login, Server, Shard
from broker.engines.redis.link import Link, OnMessage, ReplyError, Together
from broker.hub import EngineUnavailable
from broker.reader import Stage
from broker.tls import client_context, secure

__all__ = ["About", "Refused", "host_of", "open_link", "open_master", "read_slots"]

_OLDEST: Final = (6, 2)


class Refused(EngineUnavailable):
    """The server is there and will not do, whenever it is asked: a wrong password, a replica, too old."""


@final
@attrs.frozen
class About:
    """What a server says of itself (`INFO`)."""

    version: str
    run_id: str
    role: str
    cluster: bool
    loading: bool

    @classmethod
    def parse(cls, text: bytes) -> About:
        fields = dict(line.split(":", 1) for line in text.decode(errors="replace").split("\r\n") if ":" in line)
        return cls(
            fields.get("redis_version", ""),
            fields.get("run_id", ""),
            fields.get("role", "master"),
            fields.get("cluster_enabled") == "1",
            fields.get("loading") == "1",
        )


@asynccontextmanager
async def open_link(
    server: Server,
    login: Login,
    *,
    connect_timeout: float,
    io_timeout: float,
    stage: Stage,
    on_message: OnMessage | None = None,
    together: Together = nullcontext,
) -> AsyncIterator[Link]:
    """A link on which the login was accepted, read in `stage` for as long as the block lives.

    The block learns from `link.gone` that the link has ended; nothing is raised into it.

    Raises:
        Refused: the login is not accepted.
        EngineUnavailable: nobody answers.
    """
    sock = await _connect(server, login, connect_timeout)
    async with trio.open_nursery() as nursery:
        link = Link(sock, str(server), io_timeout, stage, nursery, on_message, together)
        failure: EngineUnavailable | None = None
        try:
            await _log_in(link, login)
            yield link
        except EngineUnavailable as error:
            failure = error  # raised outside of the nursery, which would wrap it
        finally:
            link.close("the link was closed")
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _connect(server: Server, login: Login, within: float) -> socket.socket:
    try:
        with trio.fail_after(within):
            stream: trio.SocketStream = (
                await trio.open_unix_socket(server.path)
                if server.path
                else await trio.open_tcp_stream(server.host, server.port)
            )
            sock = socket.socket(fileno=stream.socket.detach())
            sock.setblocking(False)
            if login.tls is None:
                return sock
            return await secure(sock, client_context(login.tls), login.tls.server_name or server.host)
    except trio.TooSlowError:
        raise EngineUnavailable(f"{server}: no connection within {within:g} s") from None
    except ssl.SSLError as error:
        raise Refused(f"{server}: TLS: {error}") from None
    except OSError as error:
        raise EngineUnavailable(f"{server}: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    """Trio tries every address of a name, and groups what went wrong."""
    cause: BaseException | None = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, OSError):
        error = cause
    return os.strerror(error.errno) if error.errno else str(error)


async def _log_in(link: Link, login: Login) -> None:
    password = login.password.reveal()
    if password:
        user = (login.user,) if login.user else ()
        _accepted(link, await link.call("AUTH", *user, password), "the password is not accepted")
    if login.client_name:
        _accepted(link, await link.call("CLIENT", "SETNAME", login.client_name), "the client name is not accepted")
    if login.db:
        _accepted(link, await link.call("SELECT", login.db), f"there is no database {login.db}")
    if not password:
        _accepted(link, await link.call("PING"), "it asks for a password")


def _accepted(link: Link, reply: object, problem: str) -> None:
    if isinstance(reply, ReplyError):
        text = str(reply)
        if text.startswith(("LOADING", "MASTERDOWN", "BUSY")):
            raise EngineUnavailable(f"{link.server}: {text}")
        raise Refused(f"{link.server}: {problem} ({text})")


# ---- which server ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_master(
    shard: Shard, server: Server, stage: Stage, on_message: OnMessage | None = None, together: Together = nullcontext
) -> AsyncIterator[tuple[Link, About]]:
    """A link to `server`, a master of `shard`, once it has said that it is one.

    Raises:
        Refused: it is a replica, too old, or does not accept the login.
        EngineUnavailable: nobody answers.
    """
    async with open_link(
        server,
        shard.login,
        connect_timeout=shard.connect_timeout,
        io_timeout=shard.io_timeout,
        stage=stage,
        on_message=on_message,
        together=together,
    ) as link:
        yield link, await _about(link)


async def _about(link: Link) -> About:
    reply = await link.call("INFO")
    if isinstance(reply, ReplyError):
        if str(reply).startswith(("NOPERM", "NOAUTH")):
            raise Refused(f"{link.server}: {reply}")
        raise EngineUnavailable(f"{link.server}: {reply}")
    about = About.parse(reply)
    if about.loading:
        raise EngineUnavailable(f"{link.server}: it is still loading its data")
    if about.role != "master":
        raise Refused(f"{link.server}: it is a replica, which cannot be written to")
    version = tuple(int(part) for part in about.version.split(".")[:2] if part.isdecimal())
    if version < _OLDEST:
        raise Refused(f"{link.server}: version {about.version or 'unknown'}; 6.2 or later is needed")
    link.identity = about.run_id.encode()
    return about


async def read_slots(shard: Shard, servers: Sequence[Server], stage: Stage) -> list[tuple[int, int, Server]]:
    """First slot, last slot and master of each range, from the first server that answers.

    Raises:
        EngineUnavailable: none does, or the Cluster has no slots.
    """
    problems: list[str] = []
    for server in servers:
        try:
            async with open_link(
                server,
                shard.login,
                connect_timeout=shard.connect_timeout,
                io_timeout=shard.connect_timeout,
                stage=stage,
            ) as link:
                reply = await link.call("CLUSTER", "SLOTS")
        except EngineUnavailable as error:
            problems.append(str(error))
            continue
        if isinstance(reply, list) and reply:
            return [
                (first, last, Server(host_of(master[0] or b"", server.host), int(master[1])))
                for first, last, master, *_ in reply
            ]
        problems.append(f"{server}: {reply if isinstance(reply, ReplyError) else 'it holds no slots'}")
    raise EngineUnavailable("Cluster: " + "; ".join(problems))


def host_of(name: bytes, asked: str) -> str:
    """A host as a member of a Cluster names it. One that does not know its own means the one that was asked."""
    return asked if name in (b"", b"?") else name.decode()
