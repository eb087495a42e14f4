"""Facts: https://github.com/sockjs/sockjs-protocol, chapters Protocol and framing, and JSON Unicode Encoding."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol import JSON, codes, sockjs
from broker.protocol.sockjs import BrokenMessages, SockJsItems, SockJsWire, close_array, message_array, quoted
from tests.protocol.test_wire import frames

BY_SERVER = re.compile("[\x00-\x1f\u200c-\u200f\u2028-\u202f\u2060-\u206f\ufff0-\uffff]")
"""What a server has to escape, by the protocol's own table."""

MESSAGES = st.text(st.characters(codec="utf-8"))


@given(MESSAGES)
def test_a_quoted_message_is_json_without_anything_that_gets_mangled(text: str) -> None:
    given = quoted(text.encode()).decode()
    assert json.loads(given) == text
    assert not BY_SERVER.search(given)


def test_every_character_of_the_table_is_escaped() -> None:
    every = "".join(chr(code) for code in range(0x10000) if BY_SERVER.match(chr(code)))
    given = quoted(every.encode())
    assert given.isascii()
    assert json.loads(given) == every


def test_the_escapes_are_the_ones_that_javascript_reads() -> None:
    assert quoted('a\u2028b\uffff"\\\n\x00'.encode()) == rb'"a\u2028b\uffff\"\\\n\u0000"'


def test_other_characters_go_as_they_are() -> None:
    assert quoted("ж€🚀\x7f%".encode()) == '"ж€🚀\x7f%"'.encode()


@given(st.lists(MESSAGES.map(lambda text: text.replace("\n", "")), min_size=1))
def test_messages_of_a_body_are_lines_of_a_frame_without_the_empty_ones(texts: list[str]) -> None:
    for ascii_only in (True, False):
        body = json.dumps(texts, ensure_ascii=ascii_only).encode()
        assert sockjs.read_frame(body) == "\n".join([text for text in texts if text]).encode()


def test_what_says_nothing_is_empty() -> None:
    for body in (b"[]", b' ["",""] ', b'""'):
        assert sockjs.read_frame(body) == b""


def test_a_single_string_is_one_message() -> None:
    assert sockjs.read_frame(b' "a" ') == b"a"


def test_a_line_feed_at_the_end_of_a_message_begins_no_empty_line() -> None:
    assert sockjs.read_frame(rb'["a\nb\n","c\n"]') == b"a\nb\nc"
    assert sockjs.read_frame(rb'["a\n\n","c"]') == b"a\n\nc"  # that is the client's own


def test_a_lone_surrogate_is_replaced_and_one_within_a_message_stays() -> None:
    assert sockjs.read_frame(rb'["\ud800"]') == "\N{REPLACEMENT CHARACTER}".encode()
    assert sockjs.read_frame(rb'["{\"a\":\"\\ud800\"}"]') == rb'{"a":"\ud800"}'


@pytest.mark.parametrize(
    "body", [b"", b" ", b'["a', b"[1]", b'["a",null]', b"{}", b"null", b"1", b'["a"]x', b'["\xff"]', b"[" * 100_000]
)
def test_what_is_no_array_of_strings_is_broken(body: bytes) -> None:
    with pytest.raises(BrokenMessages):
        sockjs.read_frame(body)


def test_close() -> None:
    assert close_array(sockjs.CONNECTION_OPEN) == b'c[2010,"Another connection still open"]'
    assert close_array(codes.SHUTDOWN) == b'c[3001,"shutdown"]'


UNITS = st.lists(st.builds(lambda value: json.dumps(value).encode(), MESSAGES), min_size=1)


@given(UNITS)
def test_the_wire_carries_units_as_one_message_in_one_text_frame(units: list[bytes]) -> None:
    ((opcode, payload),) = frames(SockJsWire(JSON).pack(units))
    assert opcode == 1
    assert payload[:1] == b"a"
    assert [json.loads(payload[1:])] == [[b"\n".join(units).decode()]]


@given(st.lists(UNITS, min_size=1))
def test_packed_items_may_be_joined(packs: list[list[bytes]]) -> None:
    wire = SockJsItems(JSON)
    frame = message_array(b"".join([wire.pack(units) for units in packs]))
    assert frame[:1] == b"a"
    assert json.loads(frame[1:]) == [b"\n".join(units).decode() for units in packs]


def test_one_unit_is_packed_as_many_are() -> None:
    for wire in (SockJsWire(JSON), SockJsItems(JSON)):
        assert wire.pack_one(b'{"id":1}') == wire.pack([b'{"id":1}'])
        assert wire.ping == wire.pack([b"{}"])
