"""What a server's processes have used, as the operating system counts it; and what this process may use."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["cpu_seconds", "kernel_socket_bytes", "pin", "raise_file_limit", "resident"]


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time; the sum of the processes' CPU clocks, in steps of nanoseconds."""
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def resident(pids: Sequence[int]) -> int:
    """Resident bytes."""
    page = resource.getpagesize()
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids)


def kernel_socket_bytes() -> int:
    """What the kernel holds for TCP buffers on this machine, both ends of a loopback connection together."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * resource.getpagesize()
    return 0


def raise_file_limit() -> int:
    """Open as many files as the system lets us; processes that are started afterwards inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (1 << 20, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
            return wanted
        except (ValueError, OSError):
            continue
    return soft


def pin(core: int | None) -> None:
    """Stay on one core; None leaves the choice to the system."""
    if core is not None:
        os.sched_setaffinity(0, {core})
