"""HTTP/1.1 over httptools. The server's side is sans-I/O: strict requests in, responses out. The client asks once."""

from broker.http1.client import FetchError, Response, fetch
from broker.http1.reader import RequestReader
from broker.http1.request import MAX_HEAD, Head, HttpError, Request
from broker.http1.response import CONTINUE, JSON_TYPE, LAST_CHUNK, TEXT_TYPE, chunk, response, stream_head

__all__ = [
    "CONTINUE",
    "JSON_TYPE",
    "LAST_CHUNK",
    "MAX_HEAD",
    "TEXT_TYPE",
    "FetchError",
    "Head",
    "HttpError",
    "Request",
    "RequestReader",
    "Response",
    "chunk",
    "fetch",
    "response",
    "stream_head",
]
