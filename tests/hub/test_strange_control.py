"""Whatever comes on the control channel, well-formed or not, the node goes on and so do clients it does not name."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from google.protobuf.message import DecodeError

from broker.protocol.schema import control_pb2 as pb
from tests.support.fleet import open_fleet
from tests.support.peers import HISTORY, options

pytestmark = pytest.mark.virtual_time

TEXTS = ("", "a", "news", "nobody:news", "\0", "ü" * 300, "x" * 70_000, "$private", "#1", "user")
NUMBERS = (0, 1, -1, 2**31, 2**32 - 1, 2**63 - 1, -(2**63), 3000, 4999, 999)


TO_CLIENTS = ("subscribe", "unsubscribe", "disconnect", "refresh")


def means_others(data: bytes, client: str) -> bool:
    """Whether it is a command for others than `client`, as one is whose broken bytes were the name of its client."""
    try:
        command = pb.Command.FromString(data)
    except DecodeError:
        return False
    body = command.WhichOneof("body")
    return body in TO_CLIENTS and getattr(command, body).client != client


def filled(rng: random.Random, message: Any, depth: int = 0) -> Any:
    """A message with some of its fields set to what one would not expect."""
    oneof = [field for field in message.DESCRIPTOR.fields if field.containing_oneof]
    chosen = rng.choice(oneof) if oneof else None
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof and field is not chosen:
            continue
        if rng.random() < 0.3 and field is not chosen:
            continue
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry or depth > 3:
                continue
            target = getattr(message, field.name)
            if hasattr(target, "add"):
                filled(rng, target.add(), depth + 1)
            else:
                target.SetInParent()
                filled(rng, target, depth + 1)
            continue
        value = any_value(rng, field)
        if isinstance(getattr(message, field.name), str | bytes | int | float | bool):
            setattr(message, field.name, value)
        else:
            getattr(message, field.name).append(value)
    return message


def any_value(rng: random.Random, field: Any) -> Any:
    if field.cpp_type == field.CPPTYPE_STRING:
        text = rng.choice(TEXTS)
        return text.encode() if field.type == field.TYPE_BYTES else text
    if field.cpp_type == field.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if field.cpp_type in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return rng.choice((0.0, -1.0, float("inf"), float("nan")))
    low, high = {
        field.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
        field.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
        field.CPPTYPE_UINT32: (0, 2**32 - 1),
        field.CPPTYPE_UINT64: (0, 2**64 - 1),
    }[field.cpp_type]
    return min(max(rng.choice(NUMBERS), low), high)


@pytest.mark.parametrize("seed", range(4))
async def test_the_node_goes_on(seed: int) -> None:
    rng = random.Random(seed)
    async with open_fleet(2, options(HISTORY)) as (_, (a, b)):
        cluster = a.server.node.cluster
        spared = await a.connected()  # by a client id that is in every command
        await spared.ask(subscribe={"channel": "spared"})
        for number in range(600):
            if number % 20 == 0:
                target = await a.connected(protobuf=number % 40 == 0)
                await target.ask(subscribe={"channel": "news"})
            command = filled(rng, pb.Command())
            body = command.WhichOneof("body")
            if body in TO_CLIENTS:
                inner = getattr(command, body)
                inner.client, inner.user, inner.session = target.hello["client"], "", ""
                for name in ("label_filter", "all_users"):
                    if name in inner.DESCRIPTOR.fields_by_name:
                        inner.ClearField(name)
            command.uid = rng.choice(("other", b.server.node.uid, command.uid))
            data = command.SerializeToString()
            if rng.random() < 0.3:
                broken = bytearray(data)
                for _ in range(rng.randrange(1, 4)):
                    broken[rng.randrange(len(broken))] = rng.randrange(256)
                data = bytes(broken)
            if not means_others(data, target.hello["client"]):
                cluster.received(data)
            if number % 10 == 0:
                await trio.sleep(0.01)
        await trio.sleep(15)
        assert "result" in await a.api("publish", channel="spared", data={"n": 1})
        push: dict[str, Any] = {}
        while push.get("channel") != "spared":
            push = await spared.push()
        assert push["pub"]["data"] == {"n": 1}
        assert len((await a.api("info"))["result"]["nodes"]) >= 2
        assert "result" in await a.api("channels")
        counters = a.server.node.counters
        assert counters.server_disconnects  # it was not all left aside
        assert counters.server_unsubscribes
        assert counters.control_ignored["garbage"]
