"""The client protocol as far as a load speaks it: commands made beforehand, and just enough of what comes back."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Protocol, final

from google.protobuf.json_format import MessageToDict
from msgspec import Raw

from broker.protocol import EmulationRequest, write_emulation
from broker.protocol.schema import client_pb2

__all__ = ["Command", "JsonWire", "ProtobufWire", "Wire", "split_frames", "wire_of"]

Command = dict[str, Any]
"""One command, as JSON has it."""

_MASK = b"\x37\xfa\x21\x3d"
_ID = re.compile(rb'"id": ?(\d+)')


class Wire(Protocol):
    """One codec."""

    ping: bytes
    """The server's ping as a whole frame (client protocol, "Ping Pong")."""
    pong: bytes
    """The client's answer, masked."""
    stream_ping: bytes
    """What only a ping holds in a response that does not end; publications of a load have no such bytes."""

    def emulated_pong(self, node: str, session: str) -> bytes:
        """The body of a request to `/emulation` that answers a ping."""
        ...

    def payload(self, commands: Sequence[Command]) -> bytes:
        """Several commands as one message."""
        ...

    def frame(self, *commands: Command) -> bytes:
        """A masked WebSocket frame that carries `commands`."""
        ...

    def publish_frame(self, channel: str, data: bytes) -> bytes:
        """A frame with one publish command, quickly made."""
        ...

    def replies(self, payload: bytes) -> list[dict[str, Any]]:
        """All replies and pushes in a message, read with care and without hurry."""
        ...

    def answers(self, payload: bytes) -> list[int]:
        """The ids of the replies in a message, quickly; -1 for an error."""
        ...


@final
class JsonWire:
    ping = b"\x81\x02{}"
    pong = b"\x81\x82\x00\x00\x00\x00{}"
    stream_ping = b"{}\n"

    def emulated_pong(self, node: str, session: str) -> bytes:
        return json.dumps({"node": node, "session": session, "data": "{}"}).encode()

    def payload(self, commands: Sequence[Command]) -> bytes:
        return b"\n".join(json.dumps(command, separators=(",", ":")).encode() for command in commands)

    def frame(self, *commands: Command) -> bytes:
        return masked(self.payload(commands), 0x81)

    def publish_frame(self, channel: str, data: bytes) -> bytes:
        return masked(b'{"id":9,"publish":{"channel":%s,"data":%s}}' % (json.dumps(channel).encode(), data), 0x81)

    def replies(self, payload: bytes) -> list[dict[str, Any]]:
        return [json.loads(line) for line in payload.split(b"\n") if line]

    def answers(self, payload: bytes) -> list[int]:
        if b'"error"' in payload:
            return [-1]
        return [int(number) for number in _ID.findall(payload)]


@final
class ProtobufWire:
    ping = b"\x82\x01\x00"
    pong = b"\x82\x81\x00\x00\x00\x00\x00"
    stream_ping = b"\x00"

    def emulated_pong(self, node: str, session: str) -> bytes:
        return write_emulation(EmulationRequest(node, session, Raw(b"\x00")))

    def payload(self, commands: Sequence[Command]) -> bytes:
        return b"".join(_delimited(_message(command).SerializeToString()) for command in commands)

    def frame(self, *commands: Command) -> bytes:
        return masked(self.payload(commands), 0x82)

    def publish_frame(self, channel: str, data: bytes) -> bytes:
        publish = client_pb2.PublishRequest(channel=channel, data=data)
        return masked(_delimited(client_pb2.Command(id=9, publish=publish).SerializeToString()), 0x82)

    def replies(self, payload: bytes) -> list[dict[str, Any]]:
        return [
            MessageToDict(client_pb2.Reply.FromString(part), preserving_proto_field_name=True)
            for part in _undelimited(payload)
        ]

    def answers(self, payload: bytes) -> list[int]:
        ids = []
        for part in _undelimited(payload):
            reply = client_pb2.Reply.FromString(part)
            if reply.HasField("error"):
                return [-1]
            if reply.id:
                ids.append(reply.id)
        return ids


def wire_of(codec: str) -> Wire:
    return ProtobufWire() if codec == "protobuf" else JsonWire()


def masked(payload: bytes, first: int) -> bytes:
    """A client's frame."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    key = int.from_bytes((_MASK * (size // 4 + 1))[:size], "big")
    return head + _MASK + (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")


def split_frames(data: bytes) -> tuple[list[bytes], bytes]:
    """The payloads of the whole text and binary frames in `data`, and the bytes that are left over.

    Raises:
        ConnectionError: a Close frame, with its code and reason.
    """
    payloads = []
    at = 0
    while len(data) - at >= 2:
        size, begin = data[at + 1] & 127, at + 2
        if size == 126:
            size, begin = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
        elif size == 127:
            size, begin = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
        if begin + size > len(data):
            break
        payload = data[begin : begin + size]
        kind = data[at] & 15
        if kind == 8:
            code, reason = int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace")
            raise ConnectionError(f"the server closed the connection: {code} {reason}")
        if kind < 8:
            payloads.append(payload)
        at = begin + size
    return payloads, data[at:]


def _message(command: Command) -> Any:
    fields = {}
    for name, value in command.items():
        if isinstance(value, dict) and "data" in value:
            value = value | {"data": json.dumps(value["data"], separators=(",", ":")).encode()}
        fields[name] = value
    return client_pb2.Command(**fields)


def _delimited(message: bytes) -> bytes:
    size, head = len(message), bytearray()
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head) + message


def _undelimited(data: bytes) -> list[bytes]:
    parts, at = [], 0
    while at < len(data):
        size = shift = 0
        while True:
            byte = data[at]
            at += 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        parts.append(data[at : at + size])
        at += size
    return parts
