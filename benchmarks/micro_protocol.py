"""`python -m benchmarks.micro_protocol`: microseconds of reading commands and of writing replies and pushes.

CPU time, best of five runs each. No sockets, no loop: what is left is the codec's own cost.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import partial

from benchmarks.micro_frames import report
from broker.protocol import (
    JSON,
    PROTOBUF,
    ClientInfo,
    Codec,
    ConnectResult,
    FilterNode,
    Publication,
    StreamPosition,
    SubscribeResult,
    compile_filter,
    fossil,
)
from broker.protocol.schema import client_pb2 as pb

CHANNEL = "chat:index"
DATA = b'{"text":"%b"}' % (b"x" * 117)
CLIENT = "0f8fad5b-d9cb-469f-a165-70867728950e"
INFO = ClientInfo("42", CLIENT)


def main() -> None:
    print(f"{'Python ' + sys.version.split()[0]:58} {'us':>9}")
    for codec, frames in ((JSON, _json_frames()), (PROTOBUF, _protobuf_frames())):
        for name, frame in frames.items():
            report(f"{codec.name}: read {name}", _reading(codec, frame))
        for name, call in _units(codec).items():
            report(f"{codec.name}: write {name}", call)
    ticker = b'{"symbol":"EURUSD","bid":1.0%d,"ask":1.0%d,"venues":["%b"],"time":1795000000%d}'
    before, after = (ticker % (n, n + 3, b"x" * 200, n) for n in (812, 815))
    report("patch of a 280 B payload, two places changed", lambda: fossil.create(before, after))
    noise = random.Random(1).randbytes(65_536)
    changed = noise[:30_000] + b"!" + noise[30_001:]
    blocks = random.Random(1).sample([noise[at : at + 16] for at in range(0, len(noise), 16)], 4096)
    shuffled = b"?".join(blocks)[: len(noise)]
    report("patch of 64 KiB, one place changed", lambda: fossil.create(noise, changed))
    report("patch of 64 KiB, nothing in common", lambda: fossil.create(noise, noise[::-1]))
    report("patch of 64 KiB, the worst there is", lambda: fossil.create(noise, shuffled))
    wanted = compile_filter(
        FilterNode("and", nodes=[FilterNode("", "kind", "eq", "goal"), FilterNode("", "xg", "gte", "0.8")])
    )
    report("tags filter: eq and gte", lambda: wanted.matches({"kind": "goal", "xg": "0.93"}))


def _reading(codec: Codec, frame: bytes) -> Callable[[], object]:
    def read() -> None:
        for _ in codec.commands(frame):
            pass

    return read


def _json_frames() -> dict[str, bytes]:
    return {
        "publish, 128 B": b'{"id":12,"publish":{"channel":"chat:index","data":%b}}' % DATA,
        "publish, lone surrogate": rb'{"id":12,"publish":{"channel":"chat:index","data":"\ud83d"}}',
        "subscribe": b'{"id":2,"subscribe":{"channel":"chat:index","flag":1}}',
        "rpc, 128 B": b'{"id":3,"rpc":{"method":"say","data":%b}}' % DATA,
        "pong": b"{}",
    }


def _protobuf_frames() -> dict[str, bytes]:
    commands = {
        "publish, 128 B": pb.Command(id=12, publish=pb.PublishRequest(channel=CHANNEL, data=DATA)),
        "subscribe": pb.Command(id=2, subscribe=pb.SubscribeRequest(channel=CHANNEL, flag=1)),
        "rpc, 128 B": pb.Command(id=3, rpc=pb.RpcRequest(method="say", data=DATA)),
        "pong": pb.Command(),
    }
    return {name: PROTOBUF.join([command.SerializeToString()]) for name, command in commands.items()}


def _units(codec: Codec) -> dict[str, Callable[[], object]]:
    bare = Publication(DATA, offset=5, is_json=True)
    by_client = Publication(DATA, INFO, offset=5, is_json=True)
    connected = ConnectResult(CLIENT, "6.9.1 OSS", ping=25, pong=True)
    subscribed = SubscribeResult(recoverable=True, epoch="qWeR", offset=7, positioned=True)
    return {
        "push of a publication, 128 B": partial(codec.push_publication, CHANNEL, bare),
        "push of a publication with info": partial(codec.push_publication, CHANNEL, by_client),
        "push of a publication, escaped": partial(codec.push_publication, CHANNEL, bare, escaped=True),
        "push of a join": partial(codec.push_join, CHANNEL, INFO),
        "connect": partial(codec.connect, 1, connected),
        "subscribe": partial(codec.subscribe, 2, subscribed),
        "publish": partial(codec.publish, 3),
        "rpc, 128 B": partial(codec.rpc, 3, DATA),
        "history, 10 publications": partial(codec.history, 4, [by_client] * 10, StreamPosition(10, "qWeR")),
        "16 pushes joined": partial(codec.join, [codec.push_publication(CHANNEL, bare)] * 16),
    }


if __name__ == "__main__":
    main()
