"""The load's own bytes: what it sends is well formed, what it counts is exact however it arrives."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.frames import MARK, MarkCounter, client_frame, data_of, post, split_frames
from benchmarks.w10_storm import _token
from broker.protocol import FrameReader


@pytest.mark.parametrize("size", [1, 200, 70_000])
def test_client_frames_are_read_by_a_server(size: int) -> None:
    command = {"id": 1, "publish": {"channel": "c", "data": "x" * size}}
    reader = FrameReader(1 << 20)
    reader.feed(client_frame(command, {"id": 2}))
    message = reader.next_message()
    assert isinstance(message, bytes)
    assert [json.loads(line) for line in message.split(b"\n")] == [command, {"id": 2}]


@pytest.mark.parametrize("size", [40, 128, 1024, 50_000])
def test_data_has_its_size_and_one_mark(size: int) -> None:
    data = data_of(size) % 7
    assert len(data) == size
    assert data.count(MARK) == 1
    assert json.loads(data)["#seq"] == 10_000_007


def test_data_too_small_for_a_mark() -> None:
    with pytest.raises(ValueError, match="at least"):
        data_of(10)


@pytest.mark.parametrize("count", [1, 100])
def test_requests_say_how_long_they_are(count: int) -> None:
    request = post("127.0.0.1", 80, "/api/publish", "100%", data_of(128) * count) % tuple(range(count))
    head, _, body = request.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"X-API-Key: 100%\r\n" in head


@given(st.lists(st.sampled_from([MARK, b"{", b'"#seq', b'":1', b"\x81\x05", b"xyz"])), st.data())
def test_marks_are_counted_wherever_the_stream_is_cut(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    counter = MarkCounter()
    counted, at = 0, 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        counted += counter.feed(bytearray(stream[at : at + size] + b"what an earlier read left" + MARK), size)
        at += size
    assert counted == stream.count(MARK)


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


def test_tokens_have_three_parts() -> None:
    head, claims, signature = _token("u").split(".")
    assert head
    assert claims
    assert len(signature) == 43
