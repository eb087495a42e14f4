"""The load's own bytes: what it sends is well formed, what it finds is exact however it arrives."""

from __future__ import annotations

import itertools
import json
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.auth import TokenOptions, TokenVerifier
from broker.bench.api import post
from broker.bench.clients import Audience, Subscriber
from broker.bench.journal import Journal
from broker.bench.marks import KEY, MARK, data_of, find_keys, key_of, tail_of
from broker.bench.opening import ResponseStream
from broker.bench.target import Address
from broker.bench.tokens import make_token
from broker.bench.wire import JsonWire, ProtobufWire, Wire, split_frames, wire_of
from broker.protocol import PROTOBUF, FrameReader
from broker.values import Secret


@pytest.mark.parametrize("size", [1, 200, 70_000])
def test_client_frames_are_read_by_a_server(size: int) -> None:
    command = {"id": 1, "publish": {"channel": "c", "data": "x" * size}}
    reader = FrameReader(1 << 20)
    reader.feed(JsonWire().frame(command, {"id": 2}))
    message = reader.next_message()
    assert isinstance(message, bytes)
    assert [json.loads(line) for line in message.split(b"\n")] == [command, {"id": 2}]


def test_protobuf_commands_are_read_by_a_server() -> None:
    reader = FrameReader(1 << 20)
    reader.feed(ProtobufWire().frame({"id": 300, "publish": {"channel": "c", "data": {"a": 1}}}, {"id": 2, "rpc": {}}))
    message = reader.next_message()
    assert isinstance(message, bytes)
    first, second = PROTOBUF.commands(message)
    assert first.id == 300
    assert first.publish is not None
    assert bytes(first.publish.data) == b'{"a":1}'
    assert second.id == 2


@pytest.mark.parametrize("size", [48, 128, 1024, 50_000])
def test_data_has_its_size_and_one_mark(size: int) -> None:
    data = data_of(size) % key_of(3, 7)
    assert len(data) == size
    assert find_keys(data) == [b"000003000000007"]
    assert json.loads(data)["#key"] == 1_000_003_000_000_007


def test_data_too_small_for_a_mark() -> None:
    with pytest.raises(ValueError, match="at least"):
        data_of(10)


@pytest.mark.parametrize("count", [1, 100])
def test_requests_say_how_long_they_are(count: int) -> None:
    address = Address("127.0.0.1", 80, "/api")
    request = post(address, "publish", "100%", data_of(128) * count) % tuple(range(count))
    head, _, body = request.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"X-API-Key: 100%\r\n" in head


@given(st.lists(st.sampled_from([MARK, b"{", b'"#key', b'":1', b"\x81\x05", b"7" * 20, b'"'])), st.integers(0, 400))
def test_a_tail_is_all_of_a_mark_that_is_cut(parts: list[bytes], cut: int) -> None:
    stream = b"".join(parts)
    first, second = stream[:cut], stream[cut:]
    assert find_keys(first) + find_keys(tail_of(first) + second) == find_keys(stream)


@pytest.mark.parametrize("wire", [JsonWire(), ProtobufWire()])
@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=8), numbers=st.integers(0, 12))
def test_a_subscriber_finds_all_marks_wherever_the_stream_is_cut(wire: Wire, sizes: list[int], numbers: int) -> None:
    template = b'\x81\x7e\x00\x99{"push":{"channel":"c","pub":{"data":' + data_of(60) + b"}}}"
    stream = b"".join(template % number for number in range(numbers))
    journal, audience = Journal(0), Audience(wire)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        subscriber, at = Subscriber(ours, None, audience, journal), 0
        for size in itertools.cycle(sizes):
            if at >= len(stream):
                break
            theirs.sendall(stream[at : at + size])
            subscriber.readable()
            at += size
    assert audience.deliveries == numbers
    assert journal.order == b"".join(b"%015d" % number for number in range(numbers))
    assert len(journal.order) == numbers * KEY


@pytest.mark.parametrize("wire", [JsonWire(), ProtobufWire()])
def test_a_ping_among_publications_is_answered(wire: Wire) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subscriber = Subscriber(ours, None, Audience(wire), Journal(0))
        theirs.sendall(data_of(60) % 0 + wire.ping + data_of(60) % 1)
        subscriber.readable()
        assert theirs.recv(100) == wire.pong


@given(st.lists(st.binary(max_size=200)), st.integers(0, 10_000))
def test_frames_are_split_wherever_the_stream_is_cut(payloads: list[bytes], cut: int) -> None:
    stream = b"".join(
        bytes((0x81, len(p))) + p if len(p) < 126 else b"\x81\x7e\x00" + bytes((len(p),)) + p for p in payloads
    )
    first, rest = split_frames(stream[:cut])
    second, rest = split_frames(rest + stream[cut:])
    assert first + second == payloads
    assert rest == b""


def test_a_close_frame_is_an_error() -> None:
    with pytest.raises(ConnectionError, match="3501 bad request"):
        split_frames(b"\x81\x02{}\x88\x0d" + (3501).to_bytes(2, "big") + b"bad request")


def unheard(body: bytes) -> None:
    raise AssertionError("nobody speaks")


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=20), st.data())
def test_chunks_are_joined_wherever_the_stream_is_cut(chunks: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    dechunker, body, at = ResponseStream(wire_of("json"), unheard), b"", 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        body += dechunker.feed(stream[at : at + size])
        at += size
    assert body == b"".join(chunks)


def test_the_last_chunk_ends_a_stream() -> None:
    with pytest.raises(ConnectionError, match="ended"):
        ResponseStream(wire_of("json"), unheard).feed(b"1\r\nx\r\n0\r\n\r\n")


async def test_tokens_are_accepted() -> None:
    verifier = TokenVerifier(TokenOptions(hmac_secret_key=Secret("secret")), wall_clock=lambda: 0.0)
    assert (await verifier.verify_connection(make_token("u 1", "secret"))).user == "u 1"
