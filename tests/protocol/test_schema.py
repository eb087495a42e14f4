"""The schema, the code generated from it, and what the SDK of Centrifugo speaks say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from centrifuge.protocol import client_pb2 as sdk  # type: ignore[import-untyped]
from google.protobuf.descriptor import Descriptor

from broker.protocol import schema
from broker.protocol.schema import client_pb2 as pb

TEXT = (Path(schema.__file__).parent / "client.proto").read_text(encoding="utf-8")
MESSAGES = sorted(pb.DESCRIPTOR.message_types_by_name)
OTHER_NAMES = {"RpcRequest": "RPCRequest", "RpcResult": "RPCResult"}


def numbers(message: Descriptor) -> dict[str, int]:
    return {field.name: field.number for field in message.fields}


def test_the_generated_code_is_of_this_schema() -> None:
    written = {
        name: {field: int(number) for field, number in re.findall(r"(\w+) = (\d+);", body)}
        for name, body in re.findall(r"^message (\w+) \{(.*?)\}", TEXT, re.MULTILINE | re.DOTALL)
    }
    assert written == {name: numbers(pb.DESCRIPTOR.message_types_by_name[name]) for name in MESSAGES}


@pytest.mark.parametrize("name", MESSAGES)
def test_fields_have_the_numbers_and_types_of_the_sdk(name: str) -> None:
    ours = pb.DESCRIPTOR.message_types_by_name[name]
    theirs = sdk.DESCRIPTOR.message_types_by_name.get(OTHER_NAMES.get(name, name))
    if theirs is None:
        assert name in ("Empty", "KeyedItem", "TrackBatch")  # newer than this SDK, or several messages in one
        return
    for field in theirs.fields:
        same = ours.fields_by_name[field.name]
        assert (same.number, same.type, same.is_repeated) == (field.number, field.type, field.is_repeated)
