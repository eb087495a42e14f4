"""Addresses that a process listens on, alone or beside others."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Final

__all__ = ["bind_tcp", "bind_unix", "reserve_tcp"]

_BACKLOG: Final = 4096


def bind_tcp(address: str, port: int, *, shared: bool = False) -> socket.socket:
    """Listen on `address` (empty: every interface) and `port`.

    Args:
        shared: whether other processes of ours listen there as well; the system gives each connection to one of them.

    Raises:
        OSError: the port is taken, the address is not ours.
    """
    sock = _bound(address, port, shared=shared)
    try:
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def reserve_tcp(address: str, port: int) -> socket.socket:
    """Keep `port` for processes that will listen there by `bind_tcp(…, shared=True)`, without listening. Port 0 is
    one that the system chooses.

    Raises:
        OSError: somebody listens there already, also if that one would share; the address is not ours.
    """
    sock = _bound(address, port, shared=False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # only now: to bind was to ask whether it is free
    return sock


def _bound(address: str, port: int, *, shared: bool) -> socket.socket:
    family, host = (socket.AF_INET6, address) if ":" in address else (socket.AF_INET, address)
    if not address:
        family, host = (socket.AF_INET6, "::") if _has_ipv6() else (socket.AF_INET, "0.0.0.0")
    elif family == socket.AF_INET:
        family, _, _, _, resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        host = str(resolved[0])
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if not address else 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def bind_unix(path: str) -> socket.socket:
    """Listen on a Unix socket; one that a dead process left behind is replaced.

    Raises:
        OSError: something else is there, or the folder is not writable.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not stat.S_ISSOCK(os.stat(path).st_mode) or _answers(path):
                raise
            os.unlink(path)
            sock.bind(path)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
