from __future__ import annotations

import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.http1 import MAX_HEAD, HttpError, Request, RequestReader
from tests.http1.smuggling import CHUNKED, SECOND, SMUGGLING, post

LIMIT = 65_536
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

Outcome = tuple[list[tuple[str, bytes]], int | None]


def read(*pieces: bytes, reader: RequestReader | None = None, limit: int = LIMIT) -> Outcome:
    """Feed one piece after another, pull all there is after each: targets and bodies, and the status of the refusal."""
    reader = reader or RequestReader()
    requests: list[tuple[str, bytes]] = []
    begun = False
    try:
        for piece in pieces:
            reader.feed(piece)
            while True:
                if not begun:
                    if reader.next_head() is None:
                        break
                    reader.want_body(limit)
                    begun = True
                request = reader.next_request()
                if request is None:
                    break
                begun = False
                requests.append((request.head.target, request.body))
    except HttpError as error:
        return requests, error.status
    return requests, None


@pytest.mark.parametrize("name", SMUGGLING)
def test_what_could_be_read_in_two_ways_is_refused(name: str) -> None:
    data, status = SMUGGLING[name]
    assert read(data) == ([], status)
    assert read(GET, data) == ([("/", b"")], status), "not only as the first request"


@pytest.mark.parametrize("name", SMUGGLING)
def test_and_no_second_request_comes_out_of_it_when_it_drips(name: str) -> None:
    data, status = SMUGGLING[name]
    assert read(*(data[at : at + 1] for at in range(min(len(data), 70_000)))) == ([], status)


def test_a_head_then_its_body() -> None:
    reader = RequestReader()
    reader.feed(post(b"Content-Length: 5")[:30])
    assert reader.next_head() is None
    reader.feed(post(b"Content-Length: 5")[30:] + b"he")
    head = reader.next_head()
    assert head is not None
    assert head.content_length == 5
    reader.want_body(5)
    assert reader.next_request() is None
    reader.feed(b"llo" + GET)
    assert reader.next_request() == Request(head, b"hello")
    head = reader.next_head()
    assert head is not None
    reader.want_body(0)
    assert reader.next_request() == Request(head, b"")
    assert reader.next_head() is None


def test_pipelined_requests() -> None:
    body = b"x" * 300
    data = (
        GET + post(b"Content-Length: 300", body=body) + GET + post(CHUNKED, body=b"12c\r\n" + body + b"\r\n0\r\n\r\n")
    )
    expected = [("/", b""), ("/api/publish", body)] * 2
    assert read(data + data) == (expected + expected, None)


def test_an_empty_line_behind_a_body_is_forgiven() -> None:
    assert read(post(b"Content-Length: 2", body=b"{}") + b"\r\n" + GET) == ([("/api/publish", b"{}"), ("/", b"")], None)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"0\r\n\r\n", b""),
        (b"00000000\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"A\r\n0123456789\r\n00a\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
        (b'5;name="value";x\r\nhello\r\n0;last\r\n\r\n', b"hello"),
        (b"5 ;x\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        (b"5\r\nhello\r\n0\r\nContent-Length: 99\r\nX-Check:sum\r\n\r\n", b"hello"),
    ],
)
def test_chunks(body: bytes, expected: bytes) -> None:
    assert read(post(CHUNKED, body=body) + GET) == ([("/api/publish", expected), ("/", b"")], None)


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ([b"Content-Length: 10"], b"x" * 10),
        ([CHUNKED], b"a\r\n" + b"x" * 10 + b"\r\n0\r\n\r\n"),
        ([CHUNKED], b"1\r\nx\r\n" * 10 + b"0\r\n\r\n"),
    ],
)
def test_the_limit_of_a_body(fields: list[bytes], body: bytes) -> None:
    data = post(*fields, body=body)
    assert read(data, limit=10) == ([("/api/publish", b"x" * 10)], None)
    assert read(data, limit=9) == ([], 413)


def test_a_body_above_the_limit_is_refused_before_it_comes() -> None:
    reader = RequestReader()
    reader.feed(post(b"Content-Length: 11"))
    reader.next_head()
    with pytest.raises(HttpError) as caught:
        reader.want_body(10)
    assert caught.value.status == 413


def test_the_limit_of_a_head() -> None:
    fill = b"A: " + b"x" * (MAX_HEAD - len(GET) - 5) + b"\r\n"
    fits = GET[:-2] + fill + b"\r\n"
    assert len(fits) == MAX_HEAD
    assert read(fits) == ([("/", b"")], None)
    assert read(fits[:-2] + b"A:\r\n\r\n") == ([], 431)
    assert read(*[fits[:-2], b"A:\r\n\r\n"]) == ([], 431)


def test_what_came_behind_the_head_can_be_taken() -> None:
    reader = RequestReader()
    reader.feed(GET + b"other ")
    reader.feed(b"protocol")
    assert reader.next_head() is not None
    assert reader.take_rest() == b"other protocol"
    assert reader.take_rest() == b""


def test_idle_readers_keep_nothing() -> None:
    reader = RequestReader()
    read(GET[:10], GET[10:] + post(CHUNKED, body=b"1\r\nx\r\n0\r\n"), b"\r\n", reader=reader)
    assert reader._buffer == b""
    assert isinstance(reader._buffer, bytes)
    assert sys.getsizeof(reader) <= 120
    assert not hasattr(reader, "__dict__")


FIELDS = st.sampled_from([b"Content-Length: 3", CHUNKED, b"Content-Length: 0", b"A: b\r\nA: c", b"X: \x80", b"A:"])
BODIES = st.sampled_from(
    [b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"1;a\r\nb\r\n0\r\nT: x\r\n\r\n", b"0\r\n\r\n", b"\r\n"]
)
REQUESTS = st.one_of(
    st.just(GET),
    st.just(SECOND),
    st.builds(lambda fields, body: post(*fields, body=body), st.lists(FIELDS, max_size=2), BODIES),
    st.sampled_from(sorted(data for data, _ in SMUGGLING.values() if len(data) < 200)),
    st.binary(max_size=20),
)


@given(st.lists(REQUESTS, max_size=5).map(b"".join), st.lists(st.integers(0, 2**16), max_size=12))
def test_where_the_bytes_are_cut_changes_nothing(data: bytes, places: list[int]) -> None:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    whole = read(data)
    assert read(*pieces) == whole
    assert read(*(data[at : at + 1] for at in range(len(data)))) == whole
