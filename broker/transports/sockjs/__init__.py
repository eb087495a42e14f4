"""SockJS: pages, sessions over HTTP, and the same over WebSocket."""

from broker.transports.sockjs.endpoint import SockJs

__all__ = ["SockJs"]
