"""HTTP/1.1 over httptools."""

from broker.http1.client import FetchError, Response, fetch

__all__ = ["FetchError", "Response", "fetch"]
