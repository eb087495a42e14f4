from __future__ import annotations

import pytest

from broker.http1 import JSON_TYPE, LAST_CHUNK, TEXT_TYPE, chunk, response, stream_head


def test_the_usual_response() -> None:
    assert response(200, b"{}") == (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")


def test_a_response_with_everything() -> None:
    headers = [("Sec-WebSocket-Version", "13"), ("X-Latin", "é")]
    assert response(400, b"Bad Request", content_type=TEXT_TYPE, headers=headers, close=True) == (
        b"HTTP/1.1 400 Bad Request\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Connection: close\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"X-Latin: \xe9\r\n"
        b"Content-Length: 11\r\n"
        b"\r\n"
        b"Bad Request"
    )


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x", "a\nb", "a\rb"])
def test_no_header_splits_a_response(value: str) -> None:
    with pytest.raises(ValueError, match="line end"):
        response(200, headers=[("X", value)])
    with pytest.raises(ValueError, match="line end"):
        stream_head(200, content_type=JSON_TYPE, headers=[("X", value)])


def test_a_stream() -> None:
    assert stream_head(200, content_type="text/event-stream", headers=[("Cache-Control", "no-store")]) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    assert stream_head(200, content_type=JSON_TYPE, chunked=False) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    )
    assert chunk(b"x" * 255) + LAST_CHUNK == b"ff\r\n" + b"x" * 255 + b"\r\n0\r\n\r\n"
