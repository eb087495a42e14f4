"""What SockJS answers without a session: greeting, info, the page for iframes; and headers that all of it shares.

Facts: https://github.com/sockjs/sockjs-protocol (Greeting url, IFrame page, Info test).
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Callable
from typing import Final, final

import msgspec

from broker.http1 import Head, Request, response
from broker.transports.origin import Headers, Origins

__all__ = ["NOT_CACHED", "Pages"]

_YEAR: Final = 365 * 24 * 3600
_CACHED: Final = [
    ("Cache-Control", f"public, max-age={_YEAR}"),
    # a date of its own would have to move with the clock: caches follow max-age, this is for those that only look
    ("Expires", "Fri, 31 Dec 9999 23:59:59 GMT"),
    ("Access-Control-Max-Age", str(_YEAR)),
]
NOT_CACHED: Final = [("Cache-Control", "no-store, no-cache, no-transform, must-revalidate, max-age=0")]

_IFRAME: Final = """<!DOCTYPE html>
<html>
<head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
  <script src="{url}"></script>
  <script>
    document.domain = document.domain;
    SockJS.bootstrap_iframe();
  </script>
</head>
<body>
  <h2>Don't panic!</h2>
  <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>
</body>
</html>
"""


@final
class Pages:
    """The answers to GET of each page, and to preflights.

    Args:
        url: where an iframe gets the client library.
        origins: which web pages may read the answers.
        random: a number in [0, 1), for clients without good random numbers of their own.
    """

    def __init__(self, url: str, origins: Origins, random: Callable[[], float]) -> None:
        self._origins = origins
        self._random = random
        self._iframe = _IFRAME.format(url=html.escape(url)).encode()
        self._etag = f'"{hashlib.sha256(self._iframe).hexdigest()[:32]}"'

    def cors(self, head: Head) -> Headers:
        """Headers that let the page which asks read the answer, if it may."""
        if b"origin" not in head.headers:
            return [("Access-Control-Allow-Origin", "*")]
        return self._origins.cors(head)

    async def greeting(self, request: Request) -> bytes:
        return response(200, b"Welcome to SockJS!\n", content_type="text/plain; charset=UTF-8")

    async def info(self, request: Request) -> bytes:
        info = {
            "websocket": True,
            "cookie_needed": False,
            "origins": ["*:*"],
            "entropy": int(self._random() * 2**32),
        }
        return response(
            200,
            msgspec.json.encode(info),
            content_type="application/json; charset=UTF-8",
            headers=[*self.cors(request.head), *NOT_CACHED],
        )

    async def iframe(self, request: Request) -> bytes:
        cached = [*_CACHED, ("ETag", self._etag)]
        if request.head.headers.get(b"if-none-match") == self._etag.encode():
            return response(304, content_type="", headers=cached)
        return response(200, self._iframe, content_type="text/html; charset=UTF-8", headers=cached)

    def preflight(self, method: str, head: Head) -> bytes:
        allowed = ("Access-Control-Allow-Methods", f"OPTIONS, {method}")
        return response(204, content_type="", headers=[*self.cors(head), *_CACHED, allowed])
