"""Questions to Python functions of the same process: no hop, the same events and answers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from time import perf_counter
from typing import Any, Final, Generic, TypeVar, final

import attrs
import structlog
import trio

from broker.eager import own_task
from broker.hooks import events as ev
from broker.hooks.app import Function, Hooks
from broker.hooks.backends import Backends, CallsBy
from broker.hooks.hook import Hook, HookFailed
from broker.observe import Calls

__all__ = ["with_python"]

E = TypeVar("E")
R = TypeVar("R")

_log = structlog.get_logger("broker.hooks")

_HEAVY: Final = 0.02
"""Seconds between two awaits beyond which everybody else notices."""
_RESULTS: Final[Mapping[str, type]] = {
    "connect": ev.ConnectResult,
    "refresh": ev.RefreshResult,
    "subscribe": ev.SubscribeResult,
    "publish": ev.PublishResult,
    "sub_refresh": ev.SubRefreshResult,
    "rpc": ev.RpcResult,
    "cache_empty": ev.CacheEmptyResult,
    "disconnect": ev.Noted,
    "unsubscribe": ev.Noted,
    "state": ev.Noted,
}
_PER_CHANNEL: Final = ("subscribe", "publish", "sub_refresh", "cache_empty", "unsubscribe", "state")


@final
class PythonCarrier(Generic[E, R]):
    """Asks one function."""

    def __init__(self, function: Function, result: type[R], calls: Calls) -> None:
        self._function = function
        self._result = result
        self._calls = calls
        self._limiter = trio.CapacityLimiter(function.concurrency)

    async def ask(self, event: E) -> R | None:
        """See `Carrier`. What the function raises beside that is for the hook's own wall."""
        await own_task()
        timeout = self._function.timeout
        with trio.CancelScope(deadline=trio.current_time() + timeout):
            return await self._ask(event)
        raise HookFailed(f"no answer within {timeout:g} s")

    async def _ask(self, event: E) -> R | None:
        call = self._function.call
        try:
            if self._function.threaded:
                # a thread that nobody waits for any more keeps its place until it ends, so there is never one too many
                answer = await trio.to_thread.run_sync(
                    partial(call, event), limiter=self._limiter, abandon_on_cancel=True
                )
            else:
                async with self._limiter:
                    answer = await _Metered(call(event), self._count)
        except SystemExit:
            raise HookFailed("it tried to end the process") from None
        if answer is not None and not isinstance(answer, self._result):
            raise HookFailed(f"it returned {type(answer).__name__} instead of {self._result.__name__}")
        return answer

    def _count(self, seconds: float) -> None:
        calls = self._calls
        calls.loop_seconds += seconds
        if seconds > calls.loop_longest:
            calls.loop_longest = seconds
            if seconds > _HEAVY:
                _log.warning("a hook held the loop", name=self._function.name, seconds=round(seconds, 3))


@final
class _Metered:
    """Awaits a coroutine, and counts each stretch of time that it has the loop to itself."""

    __slots__ = ("_count", "_work")

    def __init__(self, work: Coroutine[Any, Any, Any], count: Callable[[float], None]) -> None:
        self._work = work
        self._count = count

    def __await__(self) -> _Metered:
        return self

    def __iter__(self) -> _Metered:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        began = perf_counter()
        try:
            return self._work.send(value)
        finally:
            self._count(perf_counter() - began)

    def throw(self, *error: Any) -> Any:
        return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()


def with_python(backends: Backends, app: Hooks, calls: CallsBy) -> Backends:
    """The same backends with the functions of `app` before them."""
    by_kind: dict[str, dict[str, Hook[Any, Any]]] = {kind: {} for kind in _RESULTS}
    for function in app.functions:
        name = _name(function)
        counted = calls["python", function.kind, function.name]
        carrier: PythonCarrier[Any, Any] = PythonCarrier(function, _RESULTS[function.kind], counted)
        hook = Hook(function.kind, function.name, carrier, counted, function.concurrency)
        by_kind[function.kind].setdefault(name, hook)
    connect, refresh, disconnect = (
        next(iter(by_kind[kind].values()), None) for kind in ("connect", "refresh", "disconnect")
    )
    methods = [(function.matches, _name(function)) for function in app.functions if function.kind == "rpc"]
    channels = {
        kind: [(function.matches, _name(function)) for function in app.functions if function.kind == kind]
        for kind in _PER_CHANNEL
    }

    def channel_hooks(channel: str) -> tuple[tuple[str, str], ...]:
        found = ((kind, next((name for matches, name in of_kind if matches(channel)), "")) for kind, of_kind in known)
        return tuple((kind, name) for kind, name in found if name)

    known = [(kind, of_kind) for kind, of_kind in channels.items() if of_kind]
    return attrs.evolve(
        backends,
        connect=connect or backends.connect,
        refresh=refresh or backends.refresh,
        disconnect=disconnect or backends.disconnect,
        subscribe={**backends.subscribe, **by_kind["subscribe"]},
        publish={**backends.publish, **by_kind["publish"]},
        sub_refresh={**backends.sub_refresh, **by_kind["sub_refresh"]},
        rpc={**backends.rpc, **by_kind["rpc"]},
        cache_empty={**backends.cache_empty, **by_kind["cache_empty"]},
        unsubscribe={**backends.unsubscribe, **by_kind["unsubscribe"]},
        state={**backends.state, **by_kind["state"]},
        channel_hooks=channel_hooks if known else None,
        method_hook=lambda method: next((name for matches, name in methods if matches(method)), ""),
        http_headers=backends.http_headers | app.http_headers,
        emulated_headers=backends.emulated_headers | app.emulated_headers,
    )


def _name(function: Function) -> str:
    """A name that no proxy can have. The pattern is part of it: one function may be registered with several."""
    return f"python:{function.name}:{function.pattern}"
