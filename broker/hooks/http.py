"""Questions over HTTP: one POST to the backend each, answered with JSON. Centrifugo calls this an HTTP proxy.

Facts: server-side §4.2 (https://centrifugal.dev/docs/server/proxy#http-proxy).
"""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Iterator, Mapping
from typing import Final, Generic, TypeVar, final
from urllib.parse import unquote, urlsplit

from broker.hooks.events import ClientEvent, ConnectResult
from broker.hooks.hook import HookFailed
from broker.hooks.http_wire import decoder, request_body
from broker.hooks.options import ProxyOptions, StatusTransform
from broker.http1 import FetchError, Pool
from broker.protocol import codes
from broker.reader import Stage
from broker.tls import client_context

__all__ = ["HttpCarrier"]

E = TypeVar("E")
R = TypeVar("R")

_ANSWER_LIMIT: Final = 1 << 20
"""Bytes of an answer's body."""
_OURS: Final = frozenset(
    {"host", "content-length", "content-type", "connection", "keep-alive", "transfer-encoding", "te", "trailer"}
    | {"upgrade", "expect", "proxy-connection", "accept-encoding"}
)
"""Headers that say how this request travels: a client's, or those of a configuration, have no place here."""
_UNFIT: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@final
class HttpCarrier(Generic[E, R]):
    """Asks one backend about one kind of event. Its pool closes with it."""

    def __init__(self, options: ProxyOptions, result: type[R], stage: Stage) -> None:
        """Nothing is connected before the first question.

        Raises:
            ValueError: the endpoint or a static header cannot be used.
            ssl.SSLError: a certificate or a key cannot be used.
        """
        self._binary = options.binary_encoding
        self._with_meta = options.include_connection_meta
        self._transforms = options.http.status_to_code_transforms
        self._decode = decoder(result)
        self._forwarded = [name.lower() for name in options.http_headers if name.lower() not in _OURS]
        self._emulated = [name.lower() for name in options.emulated_headers if name.lower() not in _OURS]
        static = {
            name.lower(): value.reveal()
            for name, value in options.http.static_headers.items()
            if name.lower() not in _OURS
        }
        # those that a client's may replace go out with each request, the others are written once
        replaceable = {*self._forwarded, *self._emulated}
        self._defaults = {name: value.encode() for name, value in static.items() if name in replaceable}
        url, credentials = _without_credentials(options.endpoint.reveal())
        fixed = {"user-agent": "trio-broker", "content-type": "application/json"} | credentials | static
        tls: ssl.SSLContext | None = None
        if options.http.tls.enabled:
            tls = client_context(options.http.tls)
        self._pool = Pool(
            url,
            stage=stage,
            timeout=options.timeout,
            newcomers=result is ConnectResult,
            headers=[(name.title(), value) for name, value in fixed.items() if name not in replaceable],
            limit=_ANSWER_LIMIT,
            connections=options.http.max_connections,
            tls=tls,
            server_name=options.http.tls.server_name,
        )

    async def ask(self, event: E) -> R | None:
        """See `Carrier`."""
        body = request_body(event, binary=self._binary, with_meta=self._with_meta)
        try:
            answer = await self._pool.post(body, self._fields(event)).wait()
        except FetchError as error:
            raise HookFailed(str(error)) from None
        if answer.status != 200:
            raise _transformed(answer.status, self._transforms)
        return self._decode(answer.body)

    def close(self) -> None:
        """Take no new questions; those under way are still answered."""
        self._pool.close()

    def _fields(self, event: E) -> bytes:
        """Headers of this question: the client's own under the names that were allowed, the later over the earlier."""
        if not self._forwarded and not self._emulated:
            return b""
        fields = dict(self._defaults)
        if isinstance(event, ClientEvent):
            fields.update(_allowed(self._emulated, event.emulated_headers, "utf-8"))
            fields.update(_allowed(self._forwarded, event.headers, "latin-1"))
        return b"".join(b"%b: %b\r\n" % (name.title().encode(), value) for name, value in fields.items())


def _allowed(names: list[str], headers: Mapping[str, str], encoding: str) -> Iterator[tuple[str, bytes]]:
    for name in names:
        value = headers.get(name)
        if value is None:
            continue
        if _UNFIT.search(value):
            raise HookFailed(f"the client's header {name} holds a control character")
        yield name, value.encode(encoding, "replace")


def _without_credentials(url: str) -> tuple[str, dict[str, str]]:
    """`http://user:password@host/` as an address, and the header that says the same."""
    parts = urlsplit(url)
    credentials, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    user, _, password = credentials.partition(":")
    text = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode("ascii")
    return parts._replace(netloc=host).geturl(), {"authorization": f"Basic {text}"}


def _transformed(status: int, transforms: tuple[StatusTransform, ...]) -> Exception:
    """What the client gets for a status that is not 200."""
    for transform in transforms:
        if transform.status_code != status:
            continue
        if transform.to_error.code:
            error = transform.to_error
            return codes.ClientError(codes.Error(error.code, error.message, error.temporary))
        if transform.to_disconnect.code:
            disconnect = transform.to_disconnect
            return codes.Disconnected(codes.Disconnect(disconnect.code, disconnect.reason))
    return HookFailed(f"the backend answered with status {status}")
