"""Hooks as Python functions: what an application imports, and registers its functions with.

    app = Hooks()

    @app.on.subscribe("chat:*")
    async def subscribe(event: SubscribeEvent) -> SubscribeResult | None:
        if not event.user:
            raise HookError(403, "who are you?")
        return SubscribeResult(info={"role": "member"})

A coroutine function runs on Trio, in the loop of the server: what it does between two awaits holds up everybody.
A plain function runs in a thread. Patterns are globs (`*`, `?`, `[…]`, `{a,b}`) of whole channel or method names; of
several that match, the first registered counts. Where a function matches, it is asked instead of a proxy.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias, TypeVar, final

import attrs

from broker.glob import compile_glob
from broker.hooks import events as ev
from broker.hooks.server import ServerApi

__all__ = ["Function", "Hooks"]

R = TypeVar("R")
Answer: TypeAlias = Awaitable[R | None] | R | None

Connect = TypeVar("Connect", bound=Callable[[ev.ConnectEvent], Answer[ev.ConnectResult]])
Refresh = TypeVar("Refresh", bound=Callable[[ev.RefreshEvent], Answer[ev.RefreshResult]])
Subscribe = TypeVar("Subscribe", bound=Callable[[ev.SubscribeEvent], Answer[ev.SubscribeResult]])
Publish = TypeVar("Publish", bound=Callable[[ev.PublishEvent], Answer[ev.PublishResult]])
SubRefresh = TypeVar("SubRefresh", bound=Callable[[ev.SubRefreshEvent], Answer[ev.SubRefreshResult]])
Rpc = TypeVar("Rpc", bound=Callable[[ev.RpcEvent], Answer[ev.RpcResult]])
CacheEmpty = TypeVar("CacheEmpty", bound=Callable[[ev.CacheEmptyEvent], Answer[ev.CacheEmptyResult]])
Disconnect = TypeVar("Disconnect", bound=Callable[[ev.DisconnectEvent], Answer[ev.Noted]])
Unsubscribe = TypeVar("Unsubscribe", bound=Callable[[ev.UnsubscribeEvent], Answer[ev.Noted]])
State = TypeVar("State", bound=Callable[[ev.StateEvent], Answer[ev.Noted]])

_TIMEOUT: Final = 1.0
_CONCURRENCY: Final = 512
_THREADS: Final = 40


@final
@attrs.frozen
class Function:
    """One registered function. `pattern` is empty where the event has no channel or method."""

    kind: str
    pattern: str
    call: Callable[[Any], Any]
    timeout: float
    concurrency: int
    matches: Callable[[str], object] = attrs.field(repr=False)

    @property
    def name(self) -> str:
        """What metrics and logs call it."""
        return f"{self.call.__module__}:{self.call.__qualname__}"

    @property
    def threaded(self) -> bool:
        """Whether it is a plain function."""
        return not inspect.iscoroutinefunction(self.call)


@final
class Hooks:
    """The hooks of one application. `on` registers functions; `server` is there once the server runs."""

    def __init__(self, *, http_headers: Iterable[str] = (), emulated_headers: Iterable[str] = ()) -> None:
        """Nothing is asked before the server knows of it.

        Args:
            http_headers: names of headers of clients' requests that events should hold.
            emulated_headers: the same for those that clients write into their connect command.
        """
        self.http_headers = frozenset(name.lower() for name in http_headers)
        self.emulated_headers = frozenset(name.lower() for name in emulated_headers)
        self.functions: list[Function] = []
        self.on: Final = _On(self.functions)
        self._server: ServerApi | None = None

    @property
    def server(self) -> ServerApi:
        """The server API: `await app.server.publish("chat:1", {"text": "hi"})`.

        Raises:
            RuntimeError: the server does not run yet.
        """
        if self._server is None:
            raise RuntimeError("the server does not run yet: use `app.server` within a hook")
        return self._server

    def attach(self, server: ServerApi) -> None:
        """Called by the server that asks these hooks from now on."""
        self._server = server


@final
class _On:
    """Decorators, one for each event. `timeout` in seconds; `concurrency` is how many calls there may be at a time
    (of plain functions: threads)."""

    def __init__(self, functions: list[Function]) -> None:
        self._functions = functions

    def connect(self, *, timeout: float = _TIMEOUT, concurrency: int = 0) -> Callable[[Connect], Connect]:
        """A client without a token connects. None: it is nobody, which may be allowed to connect all the same."""
        return self._registering("connect", "", timeout, concurrency)

    def refresh(self, *, timeout: float = _TIMEOUT, concurrency: int = 0) -> Callable[[Refresh], Refresh]:
        """A connection is about to expire. None: let it."""
        return self._registering("refresh", "", timeout, concurrency)

    def subscribe(
        self, channels: str, *, timeout: float = _TIMEOUT, concurrency: int = 0
    ) -> Callable[[Subscribe], Subscribe]:
        """A client subscribes to a channel. None: it may, with the options of the namespace."""
        return self._registering("subscribe", channels, timeout, concurrency)

    def publish(
        self, channels: str, *, timeout: float = _TIMEOUT, concurrency: int = 0
    ) -> Callable[[Publish], Publish]:
        """A client publishes into a channel. None: it may, what it sent."""
        return self._registering("publish", channels, timeout, concurrency)

    def sub_refresh(
        self, channels: str, *, timeout: float = _TIMEOUT, concurrency: int = 0
    ) -> Callable[[SubRefresh], SubRefresh]:
        """A subscription is about to expire. None: let it."""
        return self._registering("sub_refresh", channels, timeout, concurrency)

    def rpc(self, methods: str, *, timeout: float = _TIMEOUT, concurrency: int = 0) -> Callable[[Rpc], Rpc]:
        """A client calls a method. None: an answer without data."""
        return self._registering("rpc", methods, timeout, concurrency)

    def cache_empty(
        self, channels: str, *, timeout: float = _TIMEOUT, concurrency: int = 0
    ) -> Callable[[CacheEmpty], CacheEmpty]:
        """A client wants the latest publication of a channel that has none: this may publish one."""
        return self._registering("cache_empty", channels, timeout, concurrency)

    def disconnect(self, *, timeout: float = _TIMEOUT, concurrency: int = 0) -> Callable[[Disconnect], Disconnect]:
        """A connection is over, and its subscriptions before it. Told at most once."""
        return self._registering("disconnect", "", timeout, concurrency)

    def unsubscribe(
        self, channels: str, *, timeout: float = _TIMEOUT, concurrency: int = 0
    ) -> Callable[[Unsubscribe], Unsubscribe]:
        """A subscription is over. Told at most once."""
        return self._registering("unsubscribe", channels, timeout, concurrency)

    def state(self, channels: str, *, timeout: float = _TIMEOUT, concurrency: int = 0) -> Callable[[State], State]:
        """Channels were occupied or vacated. Told again until the function returns."""
        return self._registering("state", channels, timeout, concurrency)

    def _registering(self, kind: str, pattern: str, timeout: float, concurrency: int) -> Callable[[Any], Any]:
        matches = compile_glob(pattern or "*").fullmatch

        def register(call: Any) -> Any:
            if not callable(call):
                raise TypeError(f"not a function: {call!r}")
            function = Function(kind, pattern, call, timeout, concurrency, matches)
            default = _THREADS if function.threaded else _CONCURRENCY
            self._functions.append(attrs.evolve(function, concurrency=concurrency or default))
            return call

        return register
