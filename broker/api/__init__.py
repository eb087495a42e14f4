"""The server API: its methods, the HTTP that carries them, and the handle for Python code in the same process."""

from broker.api.handle import ServerHandle
from broker.api.http import HttpApi
from broker.api.methods import Api
from broker.api.options import HttpApiOptions
from broker.hooks import ApiError, ChannelHistory, ChannelStats, NodeState

__all__ = [
    "Api",
    "ApiError",
    "ChannelHistory",
    "ChannelStats",
    "HttpApi",
    "HttpApiOptions",
    "NodeState",
    "ServerHandle",
]
