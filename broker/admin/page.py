"""The page for newcomers: type in one tab, read in another, and see every frame that passes.

One HTML file of our own with its script and style inside, allowed by their hashes and by nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Awaitable, Callable, Iterable
from importlib.resources import files
from typing import Any

__all__ = ["ASGIApp", "dev_page"]

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

_TEXT = b"text/plain; charset=utf-8"
_PLACEHOLDER = "WEBSOCKET_PATH"


def dev_page(websocket_path: str) -> ASGIApp:
    """An ASGI application that answers GET and HEAD of `/` with the page.

    Args:
        websocket_path: where the page finds the WebSocket endpoint, on the host that served it.
    """
    page = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    policy = _policy(page)
    body = page.replace(_PLACEHOLDER, html.escape(websocket_path, quote=True)).encode()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})  # before it was accepted: answers 403
        elif scope["path"] != "/":
            await _answer(scope, send, 404, b"404 page not found\n", [(b"content-type", _TEXT)])
        elif scope["method"] not in ("GET", "HEAD"):
            headers = [(b"content-type", _TEXT), (b"allow", b"GET, HEAD")]
            await _answer(scope, send, 405, b"405 method not allowed\n", headers)
        else:
            headers = [
                (b"content-type", b"text/html; charset=utf-8"),
                (b"content-security-policy", policy),
                (b"referrer-policy", b"no-referrer"),
                (b"cache-control", b"no-cache"),
            ]
            await _answer(scope, send, 200, body, headers)

    return app


async def _answer(scope: Any, send: Any, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    common = [(b"content-length", str(len(body)).encode()), (b"x-content-type-options", b"nosniff")]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *common]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _policy(page: str) -> bytes:
    """What the page may do: run its own script, wear its own style, connect to its own host."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash(page, 'script')}",
            f"style-src {_hash(page, 'style')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    ).encode()


def _hash(page: str, element: str) -> str:
    """The source expression that allows the one inline `element` of the page."""
    (text,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
