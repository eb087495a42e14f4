"""Structured logs: for people on a terminal, JSON lines for machines. User text is escaped and cut.

Facts: https://centrifugal.dev/docs/server/observability (levels, fields `level`, `time`, `message`).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

from broker.observe.options import LogOptions

__all__ = ["set_up_logs"]

_LEVELS: Final = {
    "none": logging.CRITICAL + 10,
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
_LONGEST = 256


def set_up_logs(options: LogOptions, **fields: object) -> None:
    """Send the logs of `broker.*` to stderr (JSON unless stdout is a terminal) or append them to a file as JSON.

    `fields` are in every line.
    """
    logging.raiseExceptions = False  # a full disk must not fill stderr as well
    handler: logging.Handler
    console = not options.file and sys.stdout.isatty()
    handler = logging.FileHandler(options.file, delay=False) if options.file else logging.StreamHandler(sys.stderr)
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()

    def add_fields(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.update(fields)
        return event

    shared: list[Any] = [
        add_fields,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _cut,
    ]
    final: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if not console:
        final += [structlog.processors.format_exc_info, structlog.processors.EventRenamer("message")]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*final, renderer]))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    logger = logging.getLogger("broker")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(_LEVELS.get(options.level, logging.INFO))


def _cut(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str) and len(value) > _LONGEST and key != "exception":
            event[key] = value[:_LONGEST] + "…"
    return event
