"""The doors for clients: listeners, connections, HTTP, WebSocket, streams."""

from broker.transports.admission import Admission
from broker.transports.asgi import ASGIApp, host
from broker.transports.binding import bind_tcp, bind_unix, reserve_tcp
from broker.transports.door import Doors, Drain, Listening, open_doors
from broker.transports.endpoint import WebSocketEndpoint
from broker.transports.init import init_route
from broker.transports.options import EmulationOptions, HttpServerOptions, SockJsOptions, WebSocketOptions
from broker.transports.origin import Origins
from broker.transports.proxies import TrustedProxies, parse_network
from broker.transports.site import Route, Site
from broker.transports.sockjs import SockJs
from broker.transports.streams import StreamEndpoints
from broker.transports.uni_websocket import UniWebSocketEndpoint

__all__ = [
    "ASGIApp",
    "Admission",
    "Doors",
    "Drain",
    "EmulationOptions",
    "HttpServerOptions",
    "Listening",
    "Origins",
    "Route",
    "Site",
    "SockJs",
    "SockJsOptions",
    "StreamEndpoints",
    "TrustedProxies",
    "UniWebSocketEndpoint",
    "WebSocketEndpoint",
    "WebSocketOptions",
    "bind_tcp",
    "bind_unix",
    "host",
    "init_route",
    "open_doors",
    "parse_network",
    "reserve_tcp",
]
