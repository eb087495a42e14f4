from __future__ import annotations

import pytest

from broker.protocol.handshake import HandshakeError, accept_key, handshake, wants_protobuf

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
GOOD = {
    b"host": b"localhost",
    b"connection": b"Upgrade",
    b"upgrade": b"websocket",
    b"sec-websocket-version": b"13",
    b"sec-websocket-key": KEY,
}


def test_the_key_of_the_rfc() -> None:
    assert accept_key(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_the_answer() -> None:
    assert handshake("GET", GOOD).response == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize(
    "more",
    [
        {b"connection": b"keep-alive, Upgrade"},
        {b"connection": b"UPGRADE"},
        {b"upgrade": b"WebSocket"},
        {b"upgrade": b"h2c, websocket"},
        {b"content-length": b"0"},
    ],
)
def test_what_is_welcome(more: dict[bytes, bytes]) -> None:
    handshake("GET", GOOD | more)


@pytest.mark.parametrize(
    ("method", "more", "status"),
    [
        ("GET", {b"connection": b"close"}, 400),
        ("GET", {b"connection": b""}, 400),
        ("GET", {b"upgrade": b"h2c"}, 400),
        ("GET", {b"upgrade": b"websockets"}, 400),
        ("POST", {b"upgrade": b""}, 400),
        ("POST", {}, 405),
        ("HEAD", {}, 405),
        ("GET", {b"sec-websocket-version": b"12"}, 400),
        ("GET", {b"sec-websocket-version": b""}, 400),
        ("GET", {b"sec-websocket-version": b"x13"}, 400),
        ("GET", {b"sec-websocket-key": b""}, 400),
        ("GET", {b"sec-websocket-key": b"c2hvcnQ="}, 400),
        ("GET", {b"sec-websocket-key": KEY + b", " + KEY}, 400),
        ("GET", {b"sec-websocket-key": KEY[:-3] + b"R=="}, 400),  # bits that no byte has
        ("GET", {b"sec-websocket-key": KEY[:-2] + b"AA"}, 400),
        ("GET", {b"sec-websocket-key": b"\xff" * 24}, 400),
        ("GET", {b"content-length": b"5"}, 400),
        ("GET", {b"transfer-encoding": b"chunked"}, 400),
    ],
)
def test_what_is_refused(method: str, more: dict[bytes, bytes], status: int) -> None:
    with pytest.raises(HandshakeError) as caught:
        handshake(method, GOOD | more)
    assert caught.value.status == status
    assert caught.value.text


@pytest.mark.parametrize(
    ("offer", "chosen"),
    [
        (b"centrifuge-json", "centrifuge-json"),
        (b"centrifuge-protobuf", "centrifuge-protobuf"),
        (b"centrifuge-protobuf, centrifuge-json", "centrifuge-protobuf"),
        (b"mqtt,centrifuge-json\t, centrifuge-protobuf", "centrifuge-json"),
        (b"", ""),
        (b",,", ""),
        (b"mqtt", ""),
        (b"Centrifuge-JSON", ""),
        (b"\xff\xfe", ""),
    ],
)
def test_the_first_listed_subprotocol_that_is_known(offer: bytes, chosen: str) -> None:
    agreed = handshake("GET", GOOD | {b"sec-websocket-protocol": offer})
    assert agreed.subprotocol == chosen
    assert (f"\r\nSec-WebSocket-Protocol: {chosen}\r\n".encode() in agreed.response) is bool(chosen)
    assert (b"Sec-WebSocket-Protocol" in agreed.response) is bool(chosen)


@pytest.mark.parametrize(
    ("allowed", "offer", "agreed"),
    [
        (True, b"permessage-deflate; client_max_window_bits", True),
        (True, b"permessage-deflate; client_max_window_bits=abc", False),
        (True, b"", False),
        (False, b"permessage-deflate", False),
    ],
)
def test_deflate_only_if_both_want_it(allowed: bool, offer: bytes, agreed: bool) -> None:
    result = handshake("GET", GOOD | {b"sec-websocket-extensions": offer}, deflate=allowed)
    assert result.deflate is agreed
    line = (
        b"\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"
    )
    assert (line in result.response) is agreed


@pytest.mark.parametrize(
    ("subprotocol", "query", "protobuf"),
    [
        ("", "", False),
        ("centrifuge-json", "", False),
        ("centrifuge-protobuf", "", True),
        ("", "cf_protocol=protobuf", True),
        ("", "format=protobuf", True),
        ("centrifuge-json", "a=b&format=protobuf", True),
        ("", "cf_protocol=json", False),
        ("", "x=protobuf", False),
        ("", "cf_protocol=json&cf_protocol=protobuf", False),
        ("", "cf_protocol_version=v2&cf_protocol=protobuf", True),
    ],
)
def test_who_speaks_protobuf(subprotocol: str, query: str, protobuf: bool) -> None:
    assert wants_protobuf(subprotocol, query) is protobuf
