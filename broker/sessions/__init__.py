"""Sessions: one client's life, whatever transport carries it."""

from broker.sessions.context import Context, Peer, Rules
from broker.sessions.one_way import ConnectFailure, EmulatedSession, HearingPeer, OneWaySession
from broker.sessions.options import ClientOptions, RpcOptions
from broker.sessions.session import Session

__all__ = [
    "ClientOptions",
    "ConnectFailure",
    "Context",
    "EmulatedSession",
    "HearingPeer",
    "OneWaySession",
    "Peer",
    "RpcOptions",
    "Rules",
    "Session",
]
