"""The client protocol: messages, codes, codecs, frames. Quiet: data in, data out."""

from typing import Final

from broker.protocol import codes, fossil, sockjs
from broker.protocol.codec import Codec, MalformedFrame, NotJson
from broker.protocol.deflate import Inflater
from broker.protocol.emulation import EmulationRequest, emulated_frame, read_emulation, write_emulation
from broker.protocol.handshake import Handshake, HandshakeError, accept_key, handshake, wants_protobuf
from broker.protocol.json_codec import JsonCodec
from broker.protocol.json_keys import respelled
from broker.protocol.json_text import BrokenJson, is_json, read_json
from broker.protocol.messages import (
    ClientInfo,
    Command,
    ConnectRequest,
    ConnectResult,
    FilterNode,
    HistoryRequest,
    PresenceRequest,
    Publication,
    PublishRequest,
    RefreshRequest,
    RpcRequest,
    SendRequest,
    StreamPosition,
    SubRefreshRequest,
    SubscribeRequest,
    SubscribeResult,
    UnsubscribeRequest,
    payload,
)
from broker.protocol.one_way import OneWayJsonCodec, read_connect
from broker.protocol.protobuf_codec import ProtobufCodec
from broker.protocol.tagfilter import Filter, compile_filter
from broker.protocol.websocket import (
    Close,
    FrameReader,
    Message,
    Ping,
    Pong,
    WebSocketError,
    close_frame,
    pong_frame,
)

JSON: Final = JsonCodec()
PROTOBUF: Final = ProtobufCodec()
ONE_WAY_JSON: Final = OneWayJsonCodec()

__all__ = [
    "JSON",
    "ONE_WAY_JSON",
    "PROTOBUF",
    "BrokenJson",
    "ClientInfo",
    "Close",
    "Codec",
    "Command",
    "ConnectRequest",
    "ConnectResult",
    "EmulationRequest",
    "Filter",
    "FilterNode",
    "FrameReader",
    "Handshake",
    "HandshakeError",
    "HistoryRequest",
    "Inflater",
    "MalformedFrame",
    "Message",
    "NotJson",
    "Ping",
    "Pong",
    "PresenceRequest",
    "Publication",
    "PublishRequest",
    "RefreshRequest",
    "RpcRequest",
    "SendRequest",
    "StreamPosition",
    "SubRefreshRequest",
    "SubscribeRequest",
    "SubscribeResult",
    "UnsubscribeRequest",
    "WebSocketError",
    "accept_key",
    "close_frame",
    "codes",
    "compile_filter",
    "emulated_frame",
    "fossil",
    "handshake",
    "is_json",
    "payload",
    "pong_frame",
    "read_connect",
    "read_emulation",
    "read_json",
    "respelled",
    "sockjs",
    "wants_protobuf",
    "write_emulation",
]
