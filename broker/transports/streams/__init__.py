"""Sessions over responses without an end: HTTP streaming, server-sent events, and the requests that answer them."""

from broker.transports.streams.endpoints import StreamEndpoints

__all__ = ["StreamEndpoints"]
