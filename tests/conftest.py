"""Rules for every test: an error that the broker logs and the test did not announce fails the test."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import re
import signal
from collections.abc import Callable, Generator, Iterator
from typing import Any, final

import hypothesis
import pytest
import structlog

from tests.support.clock import run_in_real_time, run_in_virtual_time
from tests.support.time_limit import SECONDS, SECONDS_IF_LONG, cancel_running, time_limit

pytest.register_assert_rewrite("tests.e2e.daemon", "tests.e2e.http", "tests.e2e.sdk")

# Neither a slow machine nor luck decides: the same code gets the same examples; `--hypothesis-profile=default` looks
# for others.
hypothesis.settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("steady")


@final
class ErrorLog(logging.Handler):
    """Collects what the broker logs at ERROR or above; a test announces what it expects."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._expected: list[re.Pattern[str]] = []
        self._records: list[logging.LogRecord] = []
        self._formatter = logging.Formatter("%(name)s: %(message)s")

    def expect(self, pattern: str) -> None:
        """Allow records whose text matches `pattern` (searched, not anchored)."""
        self._expected.append(re.compile(pattern))

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)

    def unexpected(self) -> list[str]:
        """The texts, with tracebacks, that no `expect` covers."""
        texts = (self._formatter.format(record) for record in self._records)
        return [text for text in texts if not any(pattern.search(text) for pattern in self._expected)]


@pytest.fixture(autouse=True)
def error_log() -> Iterator[ErrorLog]:
    """Fails the test on an ERROR record that it did not `expect`. Leaves logging as it found it."""
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.processors.KeyValueRenderer(key_order=["event"])],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = ErrorLog()
    logger = logging.getLogger("broker")
    before = (logger.handlers[:], logger.level, logger.propagate)
    logger.addHandler(handler)
    yield handler
    logger.handlers[:], logger.level, logger.propagate = before
    assert handler.unexpected() == []


@pytest.fixture(scope="session")
def backend() -> Iterator[Any]:
    """An application's backend, a process of its own; every test scripts the answers it needs."""
    from tests.support.backend import open_backend

    with open_backend() as process:
        yield process


@pytest.fixture(scope="session")
def redis_topology() -> Iterator[Callable[[str], Any]]:
    """Gives the servers of a topology (tests/support/redis_topologies.py), empty. They run until the session ends."""
    from tests.support.redis_topologies import TOPOLOGIES, RunningRedis

    with contextlib.ExitStack() as stack:
        started: dict[str, RunningRedis] = {}

        def get(name: str) -> RunningRedis:
            if name not in started:
                started[name] = stack.enter_context(TOPOLOGIES[name]())
            started[name].flush()
            return started[name]

        yield get


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `virtual_time` run on a clock that jumps; the runner named first counts."""
    for item in items:
        if not isinstance(item, pytest.Function) or not inspect.iscoroutinefunction(item.function):
            continue
        marker = item.get_closest_marker("virtual_time")
        run = run_in_real_time if marker is None else functools.partial(run_in_virtual_time, **marker.kwargs)
        item.add_marker(pytest.mark.trio(run=run), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with time_limit(SECONDS_IF_LONG if item.get_closest_marker("long") else SECONDS):
        return (yield)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Whoever is told to end does so in good order: the test is interrupted, servers are stopped, folders removed."""

    def end(*_: object) -> None:
        session.shouldstop = "told to end"
        if not cancel_running():
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
