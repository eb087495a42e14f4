"""Requests that two servers could read in two ways, or that a front door must not pass, and the status of each.

Used twice: against the parser, and against a running daemon (tests/faults).
"""

from __future__ import annotations

SECOND = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
"""What an attacker hopes to have read as a request of its own."""


def post(*fields: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    lines = [b"POST /api/publish HTTP/" + version, b"Host: localhost", *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked"

SMUGGLING: dict[str, tuple[bytes, int]] = {
    # which length counts
    "length and chunks": (post(b"Content-Length: 4", CHUNKED, body=b"0\r\n\r\n" + SECOND), 400),
    "chunks and length": (post(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n" + SECOND), 400),
    "two lengths": (post(b"Content-Length: 0", b"Content-Length: 36", body=SECOND), 400),
    "two equal lengths": (post(b"Content-Length: 36", b"Content-Length: 36", body=SECOND), 400),
    "list of lengths": (post(b"Content-Length: 0, 36", body=SECOND), 400),
    "list of equal lengths": (post(b"Content-Length: 36, 36", body=SECOND), 400),
    "signed length": (post(b"Content-Length: +36", body=SECOND), 400),
    "negative length": (post(b"Content-Length: -1"), 400),
    "hexadecimal length": (post(b"Content-Length: 0x24", body=SECOND), 400),
    "length with spaces inside": (post(b"Content-Length: 3 6", body=SECOND), 400),
    "empty length": (post(b"Content-Length: ", body=SECOND), 400),
    "length that overflows": (post(b"Content-Length: 18446744073709551652", body=SECOND), 400),
    "length of other digits": (post("Content-Length: ３６".encode(), body=SECOND), 400),
    # which coding counts
    "two codings": (post(CHUNKED, b"Transfer-Encoding: identity", body=b"0\r\n\r\n" + SECOND), 400),
    "chunked twice": (post(CHUNKED, CHUNKED, body=b"0\r\n\r\n" + SECOND), 400),
    "list of codings": (post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n" + SECOND), 400),
    "chunked not last": (post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n" + SECOND), 400),
    "unknown coding": (post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + SECOND), 400),
    "quoted coding": (post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n" + SECOND), 400),
    "coding with a vertical tab": (post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n" + SECOND), 400),
    "coding with a parameter": (post(b"Transfer-Encoding: chunked;a=b", body=b"0\r\n\r\n" + SECOND), 400),
    "empty coding": (post(b"Transfer-Encoding:", body=b"0\r\n\r\n" + SECOND), 400),
    "chunks in HTTP/1.0": (post(CHUNKED, body=b"0\r\n\r\n" + SECOND, version=b"1.0"), 400),
    # chunks
    "chunk size with prefix": (post(CHUNKED, body=b"0x1\r\na\r\n0\r\n\r\n"), 400),
    "chunk size with sign": (post(CHUNKED, body=b"+1\r\na\r\n0\r\n\r\n"), 400),
    "chunk size with underscore": (post(CHUNKED, body=b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n"), 400),
    "chunk size empty": (post(CHUNKED, body=b"\r\n\r\n"), 400),
    "chunk size after a space": (post(CHUNKED, body=b" 1\r\na\r\n0\r\n\r\n"), 400),
    "chunk size before a space": (post(CHUNKED, body=b"1 \r\na\r\n0\r\n\r\n"), 400),
    "chunk size too large": (post(CHUNKED, body=b"f" * 17 + b"\r\n"), 400),
    "chunk end missing": (post(CHUNKED, body=b"1\r\na0\r\n\r\n"), 400),
    "chunk end is other bytes": (post(CHUNKED, body=b"1\r\naXX0\r\n\r\n" + SECOND), 400),
    "chunk end is a bare LF": (post(CHUNKED, body=b"1\r\na\n0\r\n\r\n" + SECOND), 400),
    "chunk longer than it says": (post(CHUNKED, body=b"1\r\nabc\r\n0\r\n\r\n" + SECOND), 400),
    "chunk size line ends in LF": (post(CHUNKED, body=b"1\na\r\n0\r\n\r\n" + SECOND), 400),
    "chunk extension with LF": (post(CHUNKED, body=b"1;a\nb\r\na\r\n0\r\n\r\n"), 400),
    "chunk extension with CR": (post(CHUNKED, body=b"1;a\rb\r\na\r\n0\r\n\r\n"), 400),
    "chunk extension without end": (post(CHUNKED, body=b"1;" + b"a" * 2000), 400),
    "trailers end in LF": (post(CHUNKED, body=b"0\r\nA: b\n\n" + SECOND), 400),
    "trailer that is none": (post(CHUNKED, body=b"0\r\nnot a trailer\r\n\r\n" + SECOND), 400),
    "trailer folded": (post(CHUNKED, body=b"0\r\nA: b\r\n c: d\r\n\r\n" + SECOND), 400),
    "trailers without end": (post(CHUNKED, body=b"0\r\n" + b"A: b\r\n" * 1000), 431),
    # lines
    "LF ends a field": (b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400),
    "LF ends the request line": (b"GET / HTTP/1.1\nHost: x\r\n\r\n", 400),
    "LF ends everything": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "CR ends a field": (b"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", 400),
    "CR CR LF": (b"GET / HTTP/1.1\r\nHost: x\r\r\n\r\n", 400),
    "NUL in a value": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", 400),
    "NUL in a name": (b"GET / HTTP/1.1\r\nHost: x\r\nA\x00: b\r\n\r\n", 400),
    "DEL in a value": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x7f\r\n\r\n", 400),
    "folded field": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400),
    "folded by a tab": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\tc\r\n\r\n", 400),
    "space before the first field": (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    "space before the colon": (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n", 400),
    "tab before the colon": (b"GET / HTTP/1.1\r\nHost: x\r\nA\t: b\r\n\r\n", 400),
    "space in a name": (b"GET / HTTP/1.1\r\nHost: x\r\nA B: c\r\n\r\n", 400),
    "no colon": (b"GET / HTTP/1.1\r\nHost: x\r\nA\r\n\r\n", 400),
    "no name": (b"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", 400),
    "name not ASCII": (b"GET / HTTP/1.1\r\nHost: x\r\nA\xe9: b\r\n\r\n", 400),
    # which host
    "no host": (b"GET / HTTP/1.1\r\nA: b\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    "one host twice": (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
    "host with a path": (b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
    "host with a user": (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    "host with a space": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    # which target
    "absolute target": (b"GET http://evil/x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "CONNECT": (b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", 405),
    "asterisk for GET": (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "target without a slash": (b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "target with a fragment": (b"GET /#x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "target with raw bytes": (b"GET /\xe9 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "target with a space": (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "target with a tab": (b"GET /a\tb HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    # which protocol
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "space behind the version": (b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
    "no version": (b"GET /\r\nHost: x\r\n\r\n", 400),
    "small letters": (b"GET / http/1.1\r\nHost: x\r\n\r\n", 400),
    "RTSP": (b"DESCRIBE / RTSP/1.0\r\nHost: x\r\n\r\n", 400),
    "HTTP/0.9": (b"GET / HTTP/0.9\r\nHost: x\r\n\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "unknown method": (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "method in small letters": (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "TLS hello": (bytes.fromhex("16030100d0010000cc0303") + b"\x00" * 32, 400),
    "nothing but LF": (b"\n" * 65_536, 400),
    # how much
    "too long a line": (b"GET /" + b"a" * 20_000, 431),
    "too large a head": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"b" * 16_384 + b"\r\n\r\n", 431),
    "too many fields": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431),
    "unknown expectation": (post(b"Expect: the-unexpected", b"Content-Length: 1", body=b"x"), 417),
    "too large a body": (post(b"Content-Length: 999999999999"), 413),
    "too large a chunk": (post(CHUNKED, body=b"ffffffff\r\n"), 413),
}
