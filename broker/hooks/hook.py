"""A hook: one question to one backend, with a deadline, counted. What carries it is behind `Carrier`."""

from __future__ import annotations

from time import perf_counter
from typing import Generic, Protocol, TypeVar, final

import structlog
import trio

from broker.observe import Calls
from broker.protocol import codes

__all__ = ["Carrier", "Hook", "HookDisconnect", "HookError", "HookFailed"]

E = TypeVar("E")
R = TypeVar("R")
E_contra = TypeVar("E_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

_log = structlog.get_logger("broker.hooks")

_QUIET = 1.0
"""Seconds between two log lines about the same hook: a backend that is down fails every client."""


class HookFailed(Exception):
    """There is no answer that could be used, and why. Clients are told nothing of it but error 100."""


@final
class HookError(codes.ClientError):
    """Raised by a Python hook to answer the client with an error; codes 400 to 1999 are the application's own."""

    def __init__(self, code: int, message: str, *, temporary: bool = False) -> None:
        super().__init__(codes.Error(code, message, temporary))


@final
class HookDisconnect(codes.Disconnected):
    """Raised by a Python hook to close the connection. The client comes back after 4000 to 4499, and does not after
    4500 to 4999."""

    def __init__(self, code: int, reason: str) -> None:
        if not 3000 <= code <= 4999:
            raise ValueError(f"no code that a connection can be closed with: {code}")
        super().__init__(codes.Disconnect(code, reason))


class Carrier(Protocol[E_contra, R_co]):
    """Takes a question to a backend and brings the answer. This is where a session begins to wait: without a task, if
    the carrier can, else it says `own_task`."""

    async def ask(self, event: E_contra) -> R_co | None:
        """None is an answer, too: a backend that has nothing to say. Cancelling gives the call up.

        Raises:
            ClientError: the backend wants the client to get this error.
            Disconnected: the backend wants the connection closed.
            HookFailed: no answer, or none in time.
        """
        ...


@final
class Hook(Generic[E, R]):
    """Call it with an event. `name` is the proxy's or the function's. `places` are those at its carrier, for who would
    rather wait for one before the deadline runs."""

    __slots__ = ("_calls", "_carrier", "_quiet_until", "kind", "name", "places")

    def __init__(self, kind: str, name: str, carrier: Carrier[E, R], calls: Calls, places: int) -> None:
        self.kind = kind
        self.name = name
        self.places = trio.CapacityLimiter(places)
        self._carrier = carrier
        self._calls = calls
        self._quiet_until = 0.0

    async def __call__(self, event: E) -> R | None:
        """Ask; see `Carrier.ask` for the answer.

        Raises:
            HookFailed: no answer that could be used, or none in time.
        """
        calls = self._calls
        calls.inflight += 1
        started = perf_counter()
        try:
            answer = await self._carrier.ask(event)
            calls.durations.add(perf_counter() - started)
            return answer
        except HookFailed as failure:
            calls.durations.add(perf_counter() - started)
            calls.errors += 1
            self._complain(failure)
            raise
        except (codes.ClientError, codes.Disconnected):
            calls.durations.add(perf_counter() - started)
            raise
        except Exception as error:
            # The wall around the application's code. A bug of a function, in a group or not, is its client's error 100.
            calls.durations.add(perf_counter() - started)
            calls.errors += 1
            bug = HookFailed(f"it raised {type(error).__name__}")
            bug.__cause__ = error
            self._complain(bug)
            raise bug from error
        finally:
            calls.inflight -= 1

    def _complain(self, failure: HookFailed) -> None:
        now = trio.current_time()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET
            _log.error("a hook failed", hook=self.kind, name=self.name, error=str(failure), exc_info=failure.__cause__)
