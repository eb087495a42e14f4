"""From a configuration to bound sockets: where a server listens, and what answers there."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable

from broker.config import Config
from broker.process import StartError
from broker.tls import TlsOptions, listener_context
from broker.transports import Listening, Site, bind_tcp, bind_unix, reserve_tcp

__all__ = ["addresses", "bind_path", "listen_on", "reserve"]

Address = tuple[str, int]


def addresses(config: Config) -> tuple[Address, Address]:
    """The external and the internal one; the same unless the configuration tells them apart."""
    http = config.http_server
    external = (http.address, http.port)
    internal = (http.internal_address or http.address, int(http.internal_port or http.port))
    return external, internal


def listen_on(
    config: Config, sites: tuple[Site, Site], *, shared: bool = False, lent: socket.socket | None = None
) -> list[Listening]:
    """Listen wherever the configuration says, with the external and the internal of `sites`.

    Args:
        shared: whether other processes of ours listen on the same ports.
        lent: what they all accept from in place of a Unix socket of their own.

    Raises:
        StartError: a port is taken, a certificate cannot be read.
    """
    http = config.http_server
    http2 = http.http2.enabled
    tls = _tls(http.tls, "http_server.tls", http2)
    external, internal = addresses(config)
    listening: list[Listening] = []

    def bind(address: str, port: int) -> socket.socket:
        return bind_tcp(address, port, shared=shared)

    try:
        listening.append(Listening(_bind(bind, *external), sites[0], tls, http2))
        if internal != external:
            inside = _tls(http.internal_tls, "http_server.internal_tls", http2)
            if inside is None and not http.tls_external:
                inside = tls
            listening.append(Listening(_bind(bind, *internal), sites[1], inside, http2))
        if lent is not None:
            listening.append(Listening(lent, sites[0], lent=True))
        elif http.unix_socket:
            listening.append(Listening(bind_path(http.unix_socket), sites[0]))
    except BaseException:
        for each in listening:
            each.sock.close()
        raise
    return listening


def reserve(config: Config) -> list[socket.socket]:
    """Sockets that keep the ports for processes that share them: the external one, and the internal one if there is.

    Raises:
        StartError: a port is taken.
    """
    external, internal = addresses(config)
    reserved: list[socket.socket] = []
    try:
        wanted = (external,) if external == internal else (external, internal)
        reserved.extend(_bind(reserve_tcp, *each) for each in wanted)
    except BaseException:
        for each in reserved:
            each.close()
        raise
    return reserved


def bind_path(path: str) -> socket.socket:
    """Listen on a Unix socket.

    Raises:
        StartError: that cannot be.
    """
    try:
        return bind_unix(path)
    except OSError as error:
        raise StartError(f"http_server.unix_socket: cannot listen on {path}: {error}") from None


def _bind(bind: Callable[[str, int], socket.socket], address: str, port: int) -> socket.socket:
    try:
        return bind(address, port)
    except OSError as error:
        where = f"{address or '*'}:{port}"
        raise StartError(f"http_server: cannot listen on {where}: {os.strerror(error.errno or 0)}") from None


def _tls(options: TlsOptions, path: str, http2: bool) -> ssl.SSLContext | None:
    try:
        return listener_context(options, http2=http2) if options.enabled else None
    except (ssl.SSLError, OSError) as error:
        raise StartError(f"{path}: the certificate or its key cannot be used: {error}") from None
