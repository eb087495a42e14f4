"""What clients of one-way responses send by requests of their own. Facts: client protocol §5.2."""

from __future__ import annotations

from typing import Any, Final, final

import msgspec
from msgspec import Raw, Struct

from broker.protocol.codec import MalformedFrame
from broker.protocol.json_text import BrokenJson, read_json
from broker.protocol.messages import Text
from broker.protocol.protobuf_fields import raw, read_varint, text

__all__ = ["EmulationRequest", "emulated_frame", "read_emulation", "write_emulation"]


@final
class EmulationRequest(Struct):
    """`data` for the session `session` of the node `node`. In JSON `data` is a JSON value, in Protobuf bytes."""

    node: Text = ""
    session: Text = ""
    data: Raw = Raw()


_decode: Final = msgspec.json.Decoder(EmulationRequest).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_NAMES: Final = {1: "node", 2: "session", 3: "data"}


def read_emulation(body: bytes, *, binary: bool) -> EmulationRequest:
    """The request in a body.

    Raises:
        MalformedFrame: it is none.
    """
    try:
        return _read_message(body) if binary else read_json(body, _decode)
    except (BrokenJson, IndexError, ValueError):
        raise MalformedFrame from None


def write_emulation(request: EmulationRequest) -> bytes:
    """The request as a Protobuf message."""
    return text(b"\x0a", request.node or "") + text(b"\x12", request.session or "") + raw(b"\x1a", bytes(request.data))


def emulated_frame(data: bytes, *, binary: bool) -> bytes:
    """The commands in `EmulationRequest.data`, as the session's codec reads them: for JSON the text of a string.

    Raises:
        MalformedFrame: it is no JSON string.
    """
    if binary:
        return data
    try:
        return read_json(data, _decode_text).encode()
    except BrokenJson:
        raise MalformedFrame from None


def _read_message(data: bytes) -> EmulationRequest:
    fields: dict[str, Any] = {}
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        kind = tag & 7
        if kind == 2:
            size, at = read_varint(data, at)
            value, at = data[at : at + size], at + size
            name = _NAMES.get(tag >> 3)
            if name is not None:
                fields[name] = Raw(value) if name == "data" else value.decode()
        elif kind == 0:
            _, at = read_varint(data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("a field of no known kind")
    if at > len(data):
        raise ValueError("cut short")
    return EmulationRequest(**fields)
