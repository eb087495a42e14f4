from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol import JSON, PROTOBUF, Codec, Publication, codes
from broker.protocol.wire import DeflateWire, FrameWire, Wire

MOST = 65_536

WIRES: list[Wire] = [
    FrameWire(JSON),
    FrameWire(PROTOBUF),
    DeflateWire(JSON, 1, 0),
    DeflateWire(JSON, 9, 200),
    DeflateWire(PROTOBUF, -2, 0),
    DeflateWire(PROTOBUF, 1, 1 << 20),
]


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Opcode (with the first reserved bit) and payload, inflated, of unmasked frames."""
    found = []
    while data:
        first, size, data = data[0], data[1], data[2:]
        if size > 125:
            width = 2 if size == 126 else 8
            size, data = int.from_bytes(data[:width], "big"), data[width:]
        assert len(data) >= size
        payload, data = data[:size], data[size:]
        assert first & 0x80, "no fragments"
        found.append((first & 0x4F, zlib.decompressobj(-15).decompress(payload) if first & 0x40 else payload))
    return found


def units_of(codec: Codec, payload: bytes) -> list[bytes]:
    """What a client makes of a frame."""
    if not codec.binary:
        return payload.split(b"\n")
    found = []
    while payload:
        size = shift = 0
        while True:
            byte, payload = payload[0], payload[1:]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        found.append(payload[:size])
        payload = payload[size:]
    return found


payloads = st.binary(max_size=300) | st.builds(lambda n: bytes(n), st.integers(0, 100_000))


@pytest.mark.parametrize("wire", WIRES)
@given(st.lists(payloads.map(lambda data: data.replace(b"\n", b" ")), min_size=1, max_size=50))
def test_units_come_out_as_they_went_in(wire: Wire, units: list[bytes]) -> None:
    received = []
    for opcode, payload in frames(wire.pack(units)):
        assert opcode & 0x0F == (2 if wire.codec.binary else 1)
        inside = units_of(wire.codec, payload)
        assert len(inside) <= 16
        assert len(inside) == 1 or sum(map(len, inside)) <= MOST
        received += inside
    assert received == units


@pytest.mark.parametrize("wire", WIRES)
def test_frames_are_filled(wire: Wire) -> None:
    def counts(sizes: list[int]) -> list[int]:
        return [len(units_of(wire.codec, payload)) for _, payload in frames(wire.pack([b"x" * size for size in sizes]))]

    assert counts([100]) == [1]
    assert counts([100] * 16) == [16]
    assert counts([100] * 17) == [16, 1]
    assert counts([100] * 40) == [16, 16, 8]
    assert counts([MOST // 2] * 4) == [2, 2]
    assert counts([10, MOST + 1, 10, 10]) == [1, 1, 2]
    assert counts([MOST * 3] * 2) == [1, 1]


@pytest.mark.parametrize("wire", WIRES)
def test_packs_may_be_joined(wire: Wire) -> None:
    one, other = wire.codec.publish(1), wire.codec.error(2, codes.NOT_AVAILABLE)
    assert [
        unit for _, payload in frames(wire.pack([one]) + wire.pack([other])) for unit in units_of(wire.codec, payload)
    ] == [one, other]


def test_pings() -> None:
    for wire in WIRES:
        assert wire.ping == (b"\x82\x01\0" if wire.codec.binary else b"\x81\x02{}")
        assert wire.native_ping == b"\x89\0"


def test_json_frames_are_text_and_have_no_line_feed_at_their_end() -> None:
    assert FrameWire(JSON).pack([b"{}", b"{}"]) == b"\x81\x05{}\n{}"


def test_protobuf_frames_are_binary_and_every_unit_has_its_length() -> None:
    assert FrameWire(PROTOBUF).pack([b"ab"]) == b"\x82\x03\x02ab"
    assert FrameWire(PROTOBUF).pack([b"ab", b"", b"c"]) == b"\x82\x06\x02ab\x00\x01c"
    assert frames(FrameWire(PROTOBUF).pack([b"x" * 300])) == [(2, b"\xac\x02" + b"x" * 300)]


def test_what_is_longer_than_the_least_size_is_compressed() -> None:
    wire = DeflateWire(JSON, 1, 50)
    assert frames(wire.pack([b"x" * 50])) == [(1, b"x" * 50)]
    assert frames(wire.pack([b"x" * 51])) == [(0x41, b"x" * 51)]
    assert frames(wire.pack([b"x" * 25] * 2)) == [(0x41, b"x" * 25 + b"\n" + b"x" * 25)]
    assert len(wire.pack([b"x" * 5000])) < 50
    assert frames(DeflateWire(PROTOBUF, 1, 0).pack([b"x"])) == [(0x42, b"\1x")]


def test_frames_of_a_compressed_pack_stand_alone() -> None:
    unit = JSON.push_publication("news", Publication(b'"%b"' % (b"x" * 200)))
    wire = DeflateWire(JSON, 1, 0)
    assert wire.pack([unit] * 40) == wire.pack([unit] * 16) * 2 + wire.pack([unit] * 8)
