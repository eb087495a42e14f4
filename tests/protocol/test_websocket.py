from __future__ import annotations

import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.deflate import Inflater, compress_payload
from broker.protocol.websocket import (
    Close,
    FrameReader,
    Message,
    Ping,
    Pong,
    WebSocketError,
    binary_frame,
    close_frame,
    compressed_frame,
    ping_frame,
    pong_frame,
    text_frame,
)
from tests.protocol.frames import BINARY, BROKEN, CLOSE, CONTINUATION, LIMIT, PING, PONG, TEXT, frame

RSV1 = 0x40

Outcome = tuple[list[Message], tuple[int, str] | None]


def read(*pieces: bytes, reader: FrameReader | None = None) -> Outcome:
    """Feed one piece after another, pull all there is after each: the messages, and how it failed."""
    reader = reader or FrameReader(LIMIT)
    messages: list[Message] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (message := reader.next_message()) is not None:
                messages.append(message)
    except WebSocketError as error:
        return messages, (error.code, error.reason)
    return messages, None


def failure(*pieces: bytes, reader: FrameReader | None = None) -> int:
    """The close code that these bytes earn."""
    _, error = read(*pieces, reader=reader)
    assert error is not None
    return error[0]


# ---- what goes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_lengths_take_their_shortest_form(size: int, head: bytes) -> None:
    payload = b"x" * size
    assert text_frame(payload) == head + payload
    assert binary_frame(payload) == b"\x82" + head[1:] + payload
    assert compressed_frame(payload, binary=False) == b"\xc1" + head[1:] + payload
    assert compressed_frame(payload, binary=True) == b"\xc2" + head[1:] + payload


def test_control_frames() -> None:
    assert ping_frame(b"") == b"\x89\x00"
    assert pong_frame(b"abc") == b"\x8a\x03abc"
    assert close_frame(3001, "shutdown") == b"\x88\x0a\x0b\xb9shutdown"
    assert close_frame(1005, "never on the wire") == b"\x88\x00"


@pytest.mark.parametrize("reason", ["x" * 124, "é" * 62, "x" + "é" * 61 + "é", "🐙" * 40, "\ud800" * 200])
def test_a_long_close_reason_is_cut_between_characters(reason: str) -> None:
    payload = close_frame(3000, reason)[2:]
    assert 125 - 4 < len(payload) <= 125
    assert reason.encode(errors="replace").decode().startswith(payload[2:].decode())


# ---- what comes in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 125, 126, 127, 255, 256, 65_535, 65_536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_in_one_frame(size: int, opcode: int) -> None:
    payload = b"x" * size
    reader = FrameReader(LIMIT)
    assert read(frame(opcode, payload), reader=reader) == ([payload], None)
    assert not reader.closed


def test_text_and_binary_are_the_same_to_us() -> None:
    assert read(frame(TEXT, b"{}"), frame(BINARY, b"\xff\x00")) == ([b"{}", b"\xff\x00"], None)


def test_several_messages_in_one_read_come_one_by_one() -> None:
    reader = FrameReader(LIMIT)
    reader.feed(frame(TEXT, b"one") + frame(PING, b"two") + frame(BINARY, b"three") + frame(TEXT, b"four")[:5])
    assert [reader.next_message() for _ in range(4)] == [b"one", Ping(b"two"), b"three", None]
    reader.feed(frame(TEXT, b"four")[5:])
    assert reader.next_message() == b"four"
    assert reader.next_message() is None


def test_a_caller_may_leave_off_and_go_on() -> None:
    reader = FrameReader(LIMIT)
    reader.feed(frame(TEXT, b"one") + frame(TEXT, b"two"))
    assert reader.next_message() == b"one"
    reader.feed(frame(TEXT, b"three"))
    assert [reader.next_message() for _ in range(3)] == [b"two", b"three", None]


def test_control_frames_between_fragments_come_at_once() -> None:
    data = (
        frame(TEXT, b"a", fin=False) + frame(PING, b"p") + frame(CONTINUATION, b"b", fin=False)
        + frame(PONG) + frame(CONTINUATION, b"c")
    )  # fmt: skip
    assert read(data) == ([Ping(b"p"), Pong(b""), b"abc"], None)


@pytest.mark.parametrize(
    ("payload", "close"),
    [
        (b"", Close(1005, "")),
        (b"\x03\xe8", Close(1000, "")),
        (b"\x03\xf6", Close(1014, "")),
        (b"\x13\x87bye \xc3\xa9", Close(4999, "bye é")),
    ],
)
def test_nothing_is_read_after_a_close_frame(payload: bytes, close: Close) -> None:
    reader = FrameReader(LIMIT)
    assert read(frame(CLOSE, payload) + b"\xff\xff\xff", b"anything", reader=reader) == ([close], None)
    assert reader.closed


@pytest.mark.parametrize("name", BROKEN)
def test_a_violation_has_its_close_code_and_ends_reading(name: str) -> None:
    data, code = BROKEN[name]
    reader = FrameReader(LIMIT)
    assert failure(frame(TEXT, b"good before"), data, reader=reader) == code
    assert reader.closed
    assert read(frame(TEXT, b"good after"), reader=reader) == ([], None)


def test_a_violation_keeps_what_came_before_it() -> None:
    messages, error = read(frame(TEXT, b"one") + frame(BINARY, b"two") + frame(3))
    assert messages == [b"one", b"two"]
    assert error is not None


def test_a_message_above_the_limit_closes_without_a_reason() -> None:
    assert read(frame(TEXT, size=LIMIT + 1)) == ([], (1009, ""))


def test_the_limit_holds_for_short_messages_too() -> None:
    assert read(frame(TEXT, b"x" * 10), reader=FrameReader(10)) == ([b"x" * 10], None)
    assert failure(frame(TEXT, b"x" * 11), reader=FrameReader(10)) == 1009


def test_the_first_two_bytes_are_enough_to_refuse() -> None:
    assert failure(b"\x81\x05") == 1002
    assert failure(b"\x89\xfe") == 1002


def test_a_character_may_be_cut_between_fragments() -> None:
    euro = "€".encode()
    data = frame(TEXT, euro[:1], fin=False) + frame(CONTINUATION, euro[1:2], fin=False) + frame(CONTINUATION, euro[2:])
    assert read(data) == ([euro], None)


def test_1024_fragments_are_still_a_message() -> None:
    data = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", fin=False) * 1022 + frame(CONTINUATION, b"c")
    assert read(data) == ([b"a" + b"b" * 1022 + b"c"], None)
    more = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", fin=False) * 1023 + frame(CONTINUATION, b"c")
    assert failure(more) == 1009


def test_idle_readers_keep_nothing() -> None:
    reader = FrameReader(LIMIT)
    read(frame(TEXT, b"x" * 5000)[:4000], frame(TEXT, b"x" * 5000)[4000:], reader=reader)
    assert sys.getsizeof(reader) <= 120
    assert not hasattr(reader, "__dict__")
    assert reader.waiting == b""
    assert isinstance(reader.waiting, bytes)


# ---- compressed ------------------------------------------------------------------------------------------------------


def deflating(limit: int = 10 * LIMIT) -> FrameReader:
    return FrameReader(LIMIT, Inflater(limit))


def test_a_compressed_message() -> None:
    data = compress_payload(b"hello " * 100, 1)
    assert read(frame(TEXT, data, rsv=RSV1), reader=deflating()) == ([b"hello " * 100], None)


def test_a_compressed_message_in_fragments() -> None:
    data = compress_payload("€uro ".encode() * 100, 9)
    pieces = [
        frame(TEXT, data[:3], fin=False, rsv=RSV1), frame(PING), frame(CONTINUATION, data[3:9], fin=False),
        frame(CONTINUATION, data[9:]),
    ]  # fmt: skip
    assert read(*pieces, reader=deflating()) == ([Ping(b""), "€uro ".encode() * 100], None)


def test_plain_messages_between_compressed_ones() -> None:
    data = compress_payload(b"one", 1)
    pieces = [frame(TEXT, data, rsv=RSV1), frame(TEXT, b"two"), frame(BINARY, data, rsv=RSV1)]
    assert read(*pieces, reader=deflating()) == ([b"one", b"two", b"one"], None)


def test_inflated_messages_have_a_limit_of_their_own() -> None:
    data = compress_payload(b"x" * 1000, 1)
    assert read(frame(TEXT, data, rsv=RSV1), reader=deflating(1000)) == ([b"x" * 1000], None)
    messages, error = read(frame(TEXT, data, rsv=RSV1), reader=deflating(999))
    assert messages == []
    assert error == (1009, "decompressed message is too big")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(CONTINUATION, b"", rsv=RSV1), 1002),
        (frame(TEXT, b"", fin=False, rsv=RSV1) + frame(CONTINUATION, b"", rsv=RSV1), 1002),
        (frame(PING, rsv=RSV1), 1002),
        (frame(TEXT, b"x", rsv=0x60), 1002),
        (frame(TEXT, b"\xff\xff\xff", rsv=RSV1), 1002),
        (frame(TEXT, compress_payload(b"hello" * 50, 1)[:-3], rsv=RSV1), 1002),
        (frame(TEXT, compress_payload(b"\xff", 1), rsv=RSV1), 1007),
        (frame(TEXT, compress_payload(b"\xff", 1), fin=False, rsv=RSV1) + frame(CONTINUATION), 1007),
        (frame(TEXT, size=LIMIT + 1, rsv=RSV1), 1009),
    ],
)
def test_violations_with_deflate(data: bytes, code: int) -> None:
    assert failure(data, reader=deflating()) == code


def test_a_compressed_binary_message_need_not_be_text() -> None:
    assert read(frame(BINARY, compress_payload(b"\xff", 1), rsv=RSV1), reader=deflating()) == ([b"\xff"], None)


# ---- cuts ------------------------------------------------------------------------------------------------------------

FRAMES = st.builds(
    frame,
    st.sampled_from([TEXT, TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG, 3]),
    st.one_of(st.text(max_size=40).map(str.encode), st.binary(max_size=300)),
    fin=st.sampled_from([True, True, False]),
    rsv=st.sampled_from([0, 0, 0, 0, 0, RSV1]),
    mask=st.one_of(st.binary(min_size=4, max_size=4), st.just(b"\0\0\0\0")),
)
STREAMS = st.one_of(
    st.lists(FRAMES, max_size=8).map(b"".join),
    st.lists(FRAMES, max_size=4).map(b"".join).flatmap(lambda good: st.binary(max_size=30).map(lambda end: good + end)),
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(STREAMS, st.lists(st.integers(0, 2**16), max_size=12), st.booleans())
def test_where_the_bytes_are_cut_changes_nothing(data: bytes, places: list[int], deflate: bool) -> None:
    def reader() -> FrameReader:
        return FrameReader(200, Inflater(500) if deflate else None)

    whole = read(data, reader=reader())
    assert read(*cut(data, places), reader=reader()) == whole
    assert read(*(data[at : at + 1] for at in range(len(data))), reader=reader()) == whole


@given(st.binary(max_size=400), st.integers(1, 70_000))
def test_what_we_send_is_what_a_masked_client_would_send(payload: bytes, repeat: int) -> None:
    payload = (payload * repeat)[:LIMIT]
    sent = binary_frame(payload)
    size = len(sent) - len(payload)
    assert read(frame(BINARY, payload)) == ([payload], None)
    assert frame(BINARY, payload, mask=None) == sent
    assert size in (2, 4, 10)
