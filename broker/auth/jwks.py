"""Key sets that are fetched: remembered, asked for once at a time, and never because a stranger says so.

Each address has its own keys, so that one issuer's `kid` never stands for another's (GHSA-g6vg-wj8f-48cj).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, final

import structlog
import trio

from broker.auth.errors import KeysUnavailable, TokenInvalid
from broker.auth.keys import KeySet, PublicKey
from broker.eager import own_task
from broker.http1 import FetchError, fetch

__all__ = ["Fetch", "KeySets", "fetch_key_set"]

_log = structlog.get_logger("broker.auth")

LIFETIME: Final = 3600.0
"""Seconds for which a fetched set counts. Centrifugo begins them anew at every use, so that a key in use never goes."""
STALE_LIFETIME: Final = 2 * LIFETIME
"""Seconds for which it counts while nothing newer can be had."""
REFRESH_INTERVAL: Final = 30.0
"""Seconds between two fetches for keys that the set does not have: tokens with invented key ids are cheap to make."""
RETRY_INTERVAL: Final = 3.0
"""Seconds without another fetch after one that failed."""
_TRIES: Final = 2
_TIMEOUT: Final = 1.0
_MOST_BYTES: Final = 256 * 1024
_MOST_ADDRESSES: Final = 1024

Fetch = Callable[[str, float], Awaitable[bytes]]
"""Gives the body behind a URL before a deadline on Trio's clock, or raises `FetchError`."""


async def fetch_key_set(url: str, deadline: float) -> bytes:
    """The usual `Fetch`."""
    response = await fetch(url, deadline=deadline, limit=_MOST_BYTES, headers=(("Accept", "application/json"),))
    if response.status != 200:
        raise FetchError(f"status {response.status}")
    return response.body


@final
class KeySets:
    """The key sets of one verifier, by address."""

    def __init__(self, fetch: Fetch = fetch_key_set) -> None:
        self._fetch = fetch
        self._sets: dict[str, _FetchedSet] = {}

    async def key(self, url: str, key_id: str) -> tuple[PublicKey, float]:
        """The key, and for how many seconds it may be relied on.

        Raises:
            TokenInvalid: the set has no such key.
            KeysUnavailable: the set cannot be fetched.
        """
        fetched = self._sets.get(url)
        if fetched is None:
            if len(self._sets) >= _MOST_ADDRESSES:  # only where the safety check of addresses is off
                self._sets.clear()
            fetched = self._sets[url] = _FetchedSet(url, self._fetch)
        return await fetched.key(key_id)


@final
class _FetchedSet:
    """One set. `_fetched_at` is when it was last fetched, `_retry_at` when it may be tried again after a failure."""

    def __init__(self, url: str, fetch: Fetch) -> None:
        self._url = url
        self._fetch = fetch
        self._keys: KeySet | None = None
        self._fetched_at = 0.0
        self._retry_at = 0.0
        self._fetching = trio.Lock()

    async def key(self, key_id: str) -> tuple[PublicKey, float]:
        known = self._known(key_id)
        if known is None:
            await own_task()
            async with self._fetching:
                # whoever held the lock before may have fetched it
                while (known := self._known(key_id)) is None:
                    await self._refresh()
        return known

    def _known(self, key_id: str) -> tuple[PublicKey, float] | None:
        """The key, or None if the set has to be fetched first."""
        now = trio.current_time()
        key = self._keys.get(key_id) if self._keys is not None else None
        age = now - self._fetched_at
        if key is not None:
            if age < LIFETIME:
                return key, LIFETIME - age
            if age < STALE_LIFETIME and now < self._retry_at:
                return key, self._retry_at - now
        elif self._keys is not None and age < REFRESH_INTERVAL:
            raise TokenInvalid("unknown key")
        if now < self._retry_at:
            raise KeysUnavailable
        return None

    async def _refresh(self) -> None:
        # Once begun it is finished, in at most two seconds: whoever began it is not the only one who waits for it, and
        # clients that hang up in the middle must not be able to make it begin again and again.
        failure = "no answer in time"
        with trio.move_on_after(_TRIES * _TIMEOUT, shield=True):
            for _ in range(_TRIES):
                try:
                    self._keys = KeySet(await self._fetch(self._url, trio.current_time() + _TIMEOUT))
                except (FetchError, ValueError) as error:
                    failure = str(error)
                else:
                    self._fetched_at = trio.current_time()
                    self._retry_at = 0.0
                    return
        self._retry_at = trio.current_time() + RETRY_INTERVAL
        _log.warning("key set not fetched", url=self._url.partition("?")[0], error=failure)
