from __future__ import annotations

import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.deflate import (
    CorruptMessage,
    Inflater,
    MessageTooBig,
    accepts_deflate,
    compress_payload,
)

MiB = 1 << 20


@given(st.binary(max_size=3000), st.integers(-2, 9))
def test_what_is_compressed_inflates_to_itself(payload: bytes, level: int) -> None:
    assert Inflater(3000).inflate(compress_payload(payload, level)) == payload


def test_a_compressed_payload_depends_on_nothing_before_it() -> None:
    first = compress_payload(b"payload " * 50, 1)
    assert compress_payload(b"payload " * 50, 1) == first
    assert Inflater(1000).inflate(first) == Inflater(1000).inflate(first)


@given(st.binary(max_size=200))
def test_any_bytes_inflate_or_are_refused(data: bytes) -> None:
    try:
        message = Inflater(100).inflate(data)
    except (CorruptMessage, MessageTooBig):
        return
    assert len(message) <= 100


@pytest.mark.parametrize("size", [0, 1, 999, 1000])
def test_up_to_the_limit(size: int) -> None:
    assert len(Inflater(1000).inflate(compress_payload(b"x" * size, 1))) == size


@pytest.mark.parametrize("size", [1001, 100_000])
def test_above_the_limit(size: int) -> None:
    with pytest.raises(MessageTooBig):
        Inflater(1000).inflate(compress_payload(b"x" * size, 1))


def test_a_bomb_is_never_inflated() -> None:
    bomb = compress_payload(bytes(64 * MiB), 9)
    assert len(bomb) < 70_000
    tracemalloc.start()
    try:
        with pytest.raises(MessageTooBig):
            Inflater(MiB).inflate(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * MiB


@pytest.mark.parametrize("bits", range(9, 16))
def test_every_window_of_a_client_is_read(bits: int) -> None:
    stream = zlib.compressobj(9, zlib.DEFLATED, -bits)
    data = stream.compress(b"abcdefgh" * 1000) + stream.flush(zlib.Z_SYNC_FLUSH)
    assert Inflater(10_000).inflate(data[:-4]) == b"abcdefgh" * 1000


def test_a_final_block_may_end_the_message() -> None:
    stream = zlib.compressobj(1, zlib.DEFLATED, -15)
    data = stream.compress(b"hello") + stream.flush(zlib.Z_FINISH)
    assert Inflater(10).inflate(data) == b"hello"
    assert Inflater(10).inflate(data + b"\x00") == b"hello"  # as RFC 7692 §7.2.3.4 has it
    with pytest.raises(CorruptMessage):
        Inflater(10).inflate(data + b"and more")


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_stream_that_is_cut_short_is_refused(cut: int) -> None:
    data = compress_payload(bytes(range(256)), 9)
    with pytest.raises(CorruptMessage):
        Inflater(1000).inflate(data[:-cut])


ACCEPTED = [
    b"permessage-deflate",
    b"permessage-deflate; client_max_window_bits",
    b"permessage-deflate; client_max_window_bits=8",
    b"permessage-deflate; client_max_window_bits=15",
    b'permessage-deflate; client_max_window_bits="10"',
    b"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    b"permessage-deflate ;client_no_context_takeover",
    b"x-webkit-deflate-frame, permessage-deflate",
    b"permessage-deflate; server_max_window_bits=10, permessage-deflate",
    b"permessage-deflate; client_max_window_bits=abc, permessage-deflate; client_max_window_bits",
]
REFUSED = [
    b"",
    b",",
    b";",
    b"x-webkit-deflate-frame",
    b"permessage-deflate2",
    b"permessage-deflate=1",
    b"permessage-deflate; client_max_window_bits=abc",
    b"permessage-deflate; client_max_window_bits=7",
    b"permessage-deflate; client_max_window_bits=16",
    b"permessage-deflate; client_max_window_bits=08",
    b"permessage-deflate; client_max_window_bits=",
    b"permessage-deflate; client_max_window_bits=-9",
    "permessage-deflate; client_max_window_bits=١٠".encode(),
    b"permessage-deflate; client_max_window_bits; client_max_window_bits",
    b"permessage-deflate; server_no_context_takeover=1",
    b"permessage-deflate; server_max_window_bits",
    b"permessage-deflate; server_max_window_bits=10",
    b"permessage-deflate; server_max_window_bits=15",
    b"permessage-deflate; mux",
    b"permessage-deflate;",
    b"permessage-deflate; =",
    b"\xff\xfe; \x80",
]


@pytest.mark.parametrize("offers", ACCEPTED)
def test_an_offer_that_is_met_by_our_answer(offers: bytes) -> None:
    assert accepts_deflate(offers)


@pytest.mark.parametrize("offers", REFUSED)
def test_an_offer_that_is_declined(offers: bytes) -> None:
    assert not accepts_deflate(offers)


@given(st.binary(max_size=100).map(lambda junk: b"permessage-deflate; " + junk))
def test_junk_parameters_never_raise(offers: bytes) -> None:
    accepts_deflate(offers)
