"""What a server wants of its process: descriptors, a collector that looks away, a pid file."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["StartError", "leaves", "pid_file", "raise_file_limit", "tune_collector"]


class StartError(Exception):
    """Why the server cannot start, in one line."""


@contextmanager
def pid_file(path: str) -> Iterator[None]:
    """A file with our process id, there as long as the server runs; none for an empty path.

    Raises:
        StartError: it cannot be written.
    """
    if path:
        try:
            Path(path).write_text(f"{os.getpid()}\n")
        except OSError as error:
            raise StartError(f"pid_file: cannot write {path}: {os.strerror(error.errno or 0)}") from None
    try:
        yield
    finally:
        if path:
            Path(path).unlink(missing_ok=True)


def tune_collector() -> None:
    """What lives since the start is never garbage, and connections are freed by reference counts."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 500, 50)


def raise_file_limit() -> None:
    """As many descriptors as we may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The errors in a group of groups."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
