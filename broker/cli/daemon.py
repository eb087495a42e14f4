"""The root command: from sources to a daemon that serves."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from broker import daemon, workers
from broker.config import ConfigError, Sources, load, reloader
from broker.workers import worker_count

__all__ = ["serve"]


def serve(file: Path, flags: Mapping[str, str], *, development: bool) -> int:
    """Serve what file, environment and flags say until a signal ends it; returns the exit status."""
    sources = Sources(file=file, flags=flags, development=development)
    try:
        loaded = load(sources)
    except ConfigError as error:
        print("broker: bad configuration:", *error.problems, sep="\n  ", file=sys.stderr)
        return 1
    reload = reloader(sources, loaded)
    if (count := worker_count(loaded.config)) > 1:
        return workers.serve(loaded, count, reload)
    return daemon.serve(loaded.config, reload=lambda: reload().config, warnings=loaded.warnings)
