"""What systemd wants to hear of a service of `Type=notify`. Says nothing where nobody listens.

Facts: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import trio

__all__ = ["VARIABLES", "keep_watchdog", "ready", "reloading", "stopping"]

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Not for processes that we start: systemd listens to one."""


def ready() -> None:
    """The service does its work."""
    _tell("READY=1")


def stopping() -> None:
    """The service is leaving."""
    _tell("STOPPING=1")


@contextmanager
def reloading() -> Iterator[None]:
    """The service reads its configuration, and does its work again afterwards, with the old one or the new one."""
    _tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
    try:
        yield
    finally:
        ready()


async def keep_watchdog() -> None:
    """Say that we are alive, as often as `WatchdogSec` asks for; ends at once where it does not."""
    seconds = _watchdog_seconds(os.environ)
    while seconds:
        _tell("WATCHDOG=1")
        await trio.sleep(seconds / 2)


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return int(environ.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return 0.0


def _tell(state: str) -> None:
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] in ("/", "@"):
        address = path.replace("@", "\0", 1) if path.startswith("@") else path
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(state.encode(), address)
