"""How many workers: as many as were asked for, or as many as there are cores to use."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

from broker.config import Config

__all__ = ["usable_cores", "worker_count"]

_ROOT: Final = Path("/sys/fs/cgroup")


def worker_count(config: Config) -> int:
    """What `workers` comes to on this machine. An engine that lives in one process has one."""
    if config.workers != "auto":
        return int(config.workers)
    return usable_cores() if config.engine_is_shared else 1


def usable_cores(root: Path = _ROOT, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may run on, and no more than what its control groups (version 2) grant it."""
    cores = len(os.sched_getaffinity(0))
    for quota in _quotas(root, membership):
        cores = min(cores, max(1, math.ceil(quota)))
    return cores


def _quotas(root: Path, membership: Path) -> list[float]:
    """Cores' worth of time that each group from ours up to the root may use; without those that have no limit."""
    try:
        ours = next(line[3:] for line in membership.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    group = root / ours.lstrip("/")
    quotas = []
    for folder in (group, *group.parents):
        try:
            limit, period = (folder / "cpu.max").read_text().split()
            quotas.append(int(limit) / int(period))
        except (OSError, ValueError, ZeroDivisionError):
            pass  # there is none, or it is "max"
        if folder == root:
            break
    return quotas
