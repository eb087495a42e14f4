"""Protobuf for clients of tests: the same dictionaries as in JSON, with payloads as bytes.

Built on the library's own messages, not on the broker's codec, which is what the tests look at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import Message

from broker.protocol.schema import client_pb2 as pb

__all__ = ["commands", "length", "replies"]


def commands(units: Iterable[Mapping[str, Any]]) -> bytes:
    """Commands as the payload of one frame."""
    frame = b""
    for unit in units:
        message = pb.Command()
        _fill(message, unit)
        data = message.SerializeToString()
        frame += length(data) + data
    return frame


def replies(frame: bytes) -> list[dict[str, Any]]:
    """The replies of one frame."""
    units: list[dict[str, Any]] = []
    at = 0
    while at < len(frame):
        size = shift = 0
        while True:
            byte = frame[at]
            at += 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        units.append(_read(pb.Reply.FromString(frame[at : at + size])))
        at += size
    assert at == len(frame)
    return units


def length(data: bytes) -> bytes:
    size, out = len(data), b""
    while size >= 128:
        out += bytes((size & 127 | 128,))
        size >>= 7
    return out + bytes((size,))


def _fill(message: Message, members: Mapping[str, Any]) -> None:
    for name, value in members.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        target = getattr(message, name)
        if field.message_type is None:
            if isinstance(value, list):
                target.extend(value)
            else:
                setattr(message, name, value)
        elif field.message_type.GetOptions().map_entry:
            for key, member in value.items():
                if isinstance(member, Mapping):
                    _fill(target[key], member)
                else:
                    target[key] = member
        elif isinstance(value, list):
            for member in value:
                _fill(target.add(), member)
        else:
            target.SetInParent()
            _fill(target, value)


def _read(message: Message) -> dict[str, Any]:
    """The members that are set; as in JSON, zero values are not."""
    return {field.name: _value(value) for field, value in message.ListFields()}


def _value(value: Any) -> Any:
    if isinstance(value, Message):
        return _read(value)
    if isinstance(value, Mapping):
        return {key: _value(member) for key, member in value.items()}
    if isinstance(value, str | bytes | int):
        return value
    return [_value(member) for member in value]
