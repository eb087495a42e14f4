"""trio-broker: a real-time messaging server on Trio, wire-compatible with Centrifugo 6.9.

In a Trio program:

    async with broker.open_server({"http_server": {"port": 9000}, "client": {"insecure": True}}) as server:
        await server.api.publish("news", {"text": "hi"})
"""

from typing import Any

__version__ = "0.1.0"
PROTOCOL_VERSION = "6.9.1 OSS"
"""What the server answers as its version on the wire: the Centrifugo release whose contract it keeps."""


def __getattr__(name: str) -> Any:
    """`open_server` and `Server`, when they are asked for: the client, and `broker version`, need no server."""
    if name in ("Server", "open_server"):
        from broker import app

        return getattr(app, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
