"""The server API: its methods, and the HTTP that carries them."""

from broker.api.http import HttpApi
from broker.api.methods import Api
from broker.api.options import HttpApiOptions

__all__ = ["Api", "HttpApi", "HttpApiOptions"]
