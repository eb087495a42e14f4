"""`/connection/init`: an answer that says nothing, for pages that want a connection (of HTTP/2, say) before they need
it, and for balancers that ask whether somebody is there. Facts: client protocol §5.6.
"""

from __future__ import annotations

from broker.http1 import TEXT_TYPE, Head, Request, response
from broker.transports.origin import Origins
from broker.transports.site import Route

__all__ = ["init_route"]


def init_route(origins: Origins) -> Route:
    """The route; pages that are not allowed get 403, as everywhere."""

    def refuse(head: Head) -> bytes | None:
        if origins.allow(head.headers.get(b"origin")):
            return None
        return response(403, b"Forbidden", content_type=TEXT_TYPE, close=True)

    def handle(request: Request) -> bytes:
        return response(200, b"{}", content_type="application/json; charset=utf-8", headers=origins.cors(request.head))

    return Route(frozenset({"GET"}), handle, 0, refuse)
