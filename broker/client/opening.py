"""Opening a client: the block it lives in."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal

import trio

from broker.client import wire
from broker.client.address import Address, Dial
from broker.client.backoff import DEFAULT_BACKOFF, Backoff
from broker.client.client import Client, ClientOptions, GetToken, payload
from broker.client.link import Link, alone, open_link
from broker.client.server_side import OnServerEvent

__all__ = ["connect"]


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: str = "",
    get_token: GetToken | None = None,
    data: Any = b"",
    protocol: Literal["json", "protobuf"] = "json",
    name: str = "trio",
    headers: Mapping[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    dial: Dial | None = None,
    patience: float = 5.0,
    backoff: Backoff = DEFAULT_BACKOFF,
    on_server_event: OnServerEvent | None = None,
) -> AsyncIterator[Client]:
    """Connect to a broker, and stay connected for the length of a block.

    The first attempt has to succeed. After that, the client comes back by itself whenever the connection breaks,
    unless the server says not to.

    Args:
        url: of the WebSocket endpoint: `ws://localhost:8000/connection/websocket`.
        token: a connection token (JWT).
        get_token: gives a token when there is none, when it has expired, or when it is about to.
        data: a payload for the server's connect hook.
        protocol: the codec: `json`, or `protobuf`, which also carries payloads that are no JSON.
        name: what this client calls itself in the server's metrics.
        headers: further headers of the upgrade request.
        ssl_context: what to trust with `wss`, instead of the system's authorities.
        dial: opens the stream to the server, instead of TCP.
        patience: seconds for a connection to open and for a command to be answered.
        backoff: how long to wait between attempts to connect.
        on_server_event: called, at once and without waiting, for what happens in channels that the server subscribed
            this client to, and for messages, whose channel is "".

    Raises:
        Disconnected: the server refuses the client for good.
        ConnectionLost: the server cannot be reached.
        ValueError: the URL is not one.
    """
    address = Address.parse(url)
    codec: wire.Wire = wire.ProtobufWire() if protocol == "protobuf" else wire.JsonWire()
    pairs = [(key.encode(), value.encode()) for key, value in (headers or {}).items()]
    dialling = dial or address.dial(ssl_context)

    def open_one() -> AbstractAsyncContextManager[Link]:
        return open_link(dialling, address.header, address.resource, codec, pairs, patience)

    options = ClientOptions(token, get_token, payload(data), name, patience, backoff, on_server_event)
    client = Client(open_one, options)
    error: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stay_connected)
            try:
                await client.settled.wait()
                if (failure := client.failure()) is not None:
                    raise failure
                yield client
            finally:
                client.leave()
    except BaseExceptionGroup as group:
        error = alone(group)
    if error is not None:
        raise error
