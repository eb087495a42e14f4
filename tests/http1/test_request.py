from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from broker.http1 import MAX_HEAD, Head, HttpError
from broker.http1.request import _parse, parse_head


def head(*fields: bytes, line: bytes = b"GET / HTTP/1.1") -> Head:
    return parse_head(b"\r\n".join([line, b"Host: localhost:8000", *fields]) + b"\r\n\r\n")


def refusal(*fields: bytes, line: bytes = b"GET / HTTP/1.1") -> int:
    with pytest.raises(HttpError) as caught:
        head(*fields, line=line)
    return caught.value.status


def test_everything_of_a_head() -> None:
    raw = (
        b"POST /api/publish%20now?a=%20b&c HTTP/1.1\r\n"
        b"Host: localhost:8000\r\n"
        b"Content-Type:application/json\r\n"
        b"X-Padded: \t both sides \t \r\n"
        b"X-Empty:\r\n"
        b"X-Latin: caf\xe9\r\n"
        b"Content-Length: 12\r\n"
        b"\r\n"
    )
    assert parse_head(raw) == Head(
        method="POST",
        target="/api/publish%20now?a=%20b&c",
        path="/api/publish now",
        query="a=%20b&c",
        http_version="1.1",
        headers={
            b"host": b"localhost:8000",
            b"content-type": b"application/json",
            b"x-padded": b"both sides",
            b"x-empty": b"",
            b"x-latin": b"caf\xe9",
            b"content-length": b"12",
        },
        content_length=12,
        chunked=False,
        keep_alive=True,
        expects_continue=False,
    )


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a?", "/a", ""),
        ("/a??b", "/a", "?b"),
        ("/a/../b/./c//d", "/a/../b/./c//d", ""),
        ("/%2e%2e/%2Fetc", "/..//etc", ""),
        ("/%252e", "/%2e", ""),
        ("/%00%0d%0a", "/\0\r\n", ""),
        ("/%zz%", "/%zz%", ""),
        ("/%c3%a9%ff", "/é\ufffd", ""),
        ('/a?cf_connect={"token":"x|y"}', "/a", 'cf_connect={"token":"x|y"}'),
    ],
)
def test_targets(target: str, path: str, query: str) -> None:
    parsed = head(line=f"GET {target} HTTP/1.1".encode())
    assert (parsed.target, parsed.path, parsed.query) == (target, path, query)


def test_the_asterisk_is_for_options() -> None:
    assert head(line=b"OPTIONS * HTTP/1.1").path == "*"


@pytest.mark.parametrize(
    ("line", "connection", "keep_alive"),
    [
        (b"GET / HTTP/1.1", None, True),
        (b"GET / HTTP/1.1", b"keep-alive", True),
        (b"GET / HTTP/1.1", b"close", False),
        (b"GET / HTTP/1.1", b"Close", False),
        (b"GET / HTTP/1.1", b"keep-alive, close", False),
        (b"GET / HTTP/1.1", b"closed", True),
        (b"GET / HTTP/1.0", None, False),
        (b"GET / HTTP/1.0", b"Keep-Alive", True),
        (b"GET / HTTP/1.0", b"keep-alive,close", False),
    ],
)
def test_who_may_send_another_request(line: bytes, connection: bytes | None, keep_alive: bool) -> None:
    fields = [] if connection is None else [b"Connection: " + connection]
    assert head(*fields, line=line).keep_alive is keep_alive


def test_http_1_0_needs_no_host() -> None:
    assert parse_head(b"GET / HTTP/1.0\r\n\r\n").http_version == "1.0"


@pytest.mark.parametrize(
    "host", [b"", b"localhost", b"127.0.0.1:8000", b"[::1]:8000", b"xn--bcher-kva.example", b"a_b.example:80"]
)
def test_hosts(host: bytes) -> None:
    assert parse_head(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n").headers[b"host"] == host


def test_repeated_headers_are_joined() -> None:
    headers = head(b"A: 1", b"Cookie: a=b", b"a: 2", b"Cookie: c=d", b"A:3 ").headers
    assert headers[b"a"] == b"1, 2, 3"
    assert headers[b"cookie"] == b"a=b; c=d"


def test_headers_with_underscores_are_dropped() -> None:
    headers = head(b"X_Forwarded_For: 1.2.3.4", b"Content_Length: 5", b"X-Value: a_b").headers
    assert headers == {b"host": b"localhost:8000", b"x-value": b"a_b"}


def test_expecting_to_continue() -> None:
    assert head(b"Expect: 100-Continue", b"Content-Length: 1").expects_continue
    assert not head(b"Expect: 100-continue", line=b"POST / HTTP/1.0").expects_continue
    assert not head().expects_continue
    assert refusal(b"Expect: 100-continue, more") == 417


def test_lengths() -> None:
    assert head(b"Content-Length: 0012").content_length == 12
    assert head(b"Content-Length: 999999999999999").content_length == 999_999_999_999_999
    assert head(b"Transfer-Encoding: Chunked").chunked
    assert refusal(b"Content-Length: 1000000000000000") == 400


def test_h2c_is_never_an_upgrade() -> None:
    parsed = head(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
    assert parsed.keep_alive
    assert parsed.content_length == 0


def test_a_hundred_fields() -> None:
    assert len(head(*[b"X-%d: y" % n for n in range(99)]).headers) == 100
    assert refusal(*[b"X-%d: y" % n for n in range(100)]) == 431


def test_equal_heads_are_parsed_once_and_few_are_remembered() -> None:
    assert head(b"X-Memo: 1") is head(b"X-Memo: 1")
    first = head(b"X-Memo: 1")
    for n in range(300):
        head(b"X-Memo: %d" % n, b"X-Fill: y")
    assert head(b"X-Memo: 1") == first
    assert head(b"X-Memo: 1") is not first


def test_large_heads_and_upgrades_without_a_key_are_not_remembered() -> None:
    large = b"X-Large: " + b"x" * 3000
    assert head(large) is not head(large)
    upgrade = [b"Connection: Upgrade", b"Upgrade: websocket"]
    assert head(*upgrade) is not head(*upgrade)
    assert MAX_HEAD == 16_384


KEYS = [b"dGhlIHNhbXBsZSBub25jZQ==", b"AAAAAAAAAAAAAAAAAAAAAA=="]


def key_field(key: bytes) -> bytes:
    return b"Sec-WebSocket-Key: " + key


def test_heads_that_differ_in_the_key_of_a_websocket_differ_in_that_alone() -> None:
    first, second = (head(b"Upgrade: websocket", key_field(key), b"X-Of-This-Test: 1") for key in KEYS)
    assert first.headers[b"sec-websocket-key"] == KEYS[0]
    assert second.headers[b"sec-websocket-key"] == KEYS[1]
    assert {**first.headers, b"sec-websocket-key": b""} == {**second.headers, b"sec-websocket-key": b""}
    assert list(first.headers) == list(second.headers)
    assert replace(first, headers={}) == replace(second, headers={})


FIELDS = st.sampled_from(
    [
        *map(key_field, KEYS),
        key_field(b"short"),
        key_field(b"dGhlIHNhbXBsZSBub25jZQ==x"),
        key_field(b"dGhlIHNhbXBsZSBub25jZQ== "),
        key_field(b"dGhlIHNhbX\x00sZSBub25jZQ=="),
        key_field(b" dGhlIHNhbXBsZSBub25jZQ=="),
        b"sec-websocket-key: " + KEYS[0],
        b"X-Key: Sec-WebSocket-Key: " + KEYS[0],
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Content-Length: 1",
        b"Content-Length: 1, 2",
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"Broken",
        b" folded: y",
        b"X_Under: y",
    ]
)


@given(st.lists(FIELDS, max_size=6), st.permutations(KEYS), st.sampled_from([b"GET / HTTP/1.1", b"POST /a?b HTTP/1.0"]))
def test_a_head_with_a_key_means_what_it_would_mean_alone(fields: list[bytes], keys: list[bytes], line: bytes) -> None:
    for key in keys:  # the second finds the first one remembered
        raw = b"\r\n".join([line, b"Host: h", *fields]).replace(KEYS[0], key) + b"\r\n\r\n"
        assert outcome(parse_head, raw) == outcome(_parse, raw)


def outcome(parse: Callable[[bytes], Head], raw: bytes) -> tuple[Head, list[bytes]] | tuple[int, str]:
    try:
        parsed = parse(raw)
    except HttpError as error:
        return error.status, error.text
    return parsed, list(parsed.headers)
