"""HTTP/1.1 over httptools. The server's side is sans-I/O: strict requests in, responses out. The client's: `fetch` asks
once, a `Pool` asks one backend again and again."""

from broker.http1.answer import FetchError, Response
from broker.http1.client import fetch
from broker.http1.pool import Pool
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
    "Pool",
    "Request",
    "RequestReader",
    "Response",
    "chunk",
    "fetch",
    "response",
    "stream_head",
]
