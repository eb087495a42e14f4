"""Micro-benchmarks of reading commands and writing pushes: `make bench-micro`."""

from __future__ import annotations

from typing import Any

import pytest

from broker.protocol import JSON, PROTOBUF, ClientInfo, Codec, FrameReader, Publication
from broker.protocol.schema import client_pb2 as pb
from broker.protocol.websocket import text_frame

DATA = b'{"text":"%b"}' % (b"x" * 117)
CHANNEL = "chat:index"
PUBLISH = {
    "json": b'{"id":12,"publish":{"channel":"chat:index","data":%b}}' % DATA,
    "protobuf": PROTOBUF.join(
        [pb.Command(id=12, publish=pb.PublishRequest(channel=CHANNEL, data=DATA)).SerializeToString()]
    ),
}
CODECS = pytest.mark.parametrize("codec", [JSON, PROTOBUF], ids=["json", "protobuf"])


@CODECS
def test_read_a_publish_command(codec: Codec, benchmark: Any) -> None:
    commands = benchmark(lambda: list(codec.commands(PUBLISH[codec.name])))
    assert commands[0].publish.channel == CHANNEL


@CODECS
def test_push_of_a_publication(codec: Codec, benchmark: Any) -> None:
    publication = Publication(DATA, offset=5, is_json=True)
    assert DATA in benchmark(codec.push_publication, CHANNEL, publication)


@CODECS
def test_push_of_a_publication_with_info(codec: Codec, benchmark: Any) -> None:
    publication = Publication(DATA, ClientInfo("42", "0f8fad5b"), offset=5, is_json=True)
    assert DATA in benchmark(codec.push_publication, CHANNEL, publication)


@CODECS
def test_join_sixteen_pushes(codec: Codec, benchmark: Any) -> None:
    push = codec.push_publication(CHANNEL, Publication(DATA, offset=5, is_json=True))
    assert benchmark(codec.join, [push] * 16).count(DATA) == 16


def test_read_a_frame(benchmark: Any) -> None:
    reader = FrameReader(1 << 20)
    frame = b"\x81\xe4" + bytes(4) + b"x" * 100

    def read() -> object:
        reader.feed(frame)
        return reader.next_message()

    assert benchmark(read) == b"x" * 100


def test_write_a_frame(benchmark: Any) -> None:
    assert benchmark(text_frame, DATA).endswith(DATA)
