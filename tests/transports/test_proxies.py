"""Where a request comes from: whom a peer may speak for, and what others say that is not believed."""

from __future__ import annotations

from typing import Any

import pytest

from broker.http1 import Head
from broker.http1.request import parse_head
from broker.transports.proxies import TrustedProxies, parse_network, peer_of

PROXIES = ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]


def head(*lines: str) -> Head:
    return parse_head("\r\n".join(["GET / HTTP/1.1", "Host: x", *lines, "", ""]).encode())


def client(peer: str, *forwarded: str, networks: list[str] = PROXIES) -> str:
    return TrustedProxies(networks).see(peer, head(*(f"X-Forwarded-For: {each}" for each in forwarded)))[1]


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("198.51.100.1", [], "198.51.100.1"),
        ("198.51.100.1", ["203.0.113.5"], "198.51.100.1"),  # no proxy of ours
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.5"], "203.0.113.5"),  # the first is what the client wrote
        ("10.0.0.1", ["203.0.113.5, 10.3.3.3, 192.0.2.7"], "203.0.113.5"),
        ("10.0.0.1", ["203.0.113.5", "10.3.3.3"], "203.0.113.5"),  # two headers are one list
        ("10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),  # all of them are ours: the farthest
        ("10.0.0.1", ["203.0.113.5:4711"], "203.0.113.5"),
        ("10.0.0.1", ["[2001:db9::1]:4711"], "2001:db9::1"),
        ("10.0.0.1", ["[2001:db9::1]"], "2001:db9::1"),
        ("10.0.0.1", ["2001:DB9:0::1"], "2001:db9::1"),
        ("2001:db8::7", ["203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["::ffff:203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["203.0.113.5, ::ffff:10.1.1.1"], "203.0.113.5"),
        ("10.0.0.1", ["203.0.113.5, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5, unknown, 10.2.2.2"], "10.2.2.2"),
        ("10.0.0.1", ["203.0.113.5,"], "10.0.0.1"),
        ("10.0.0.1", ["fe80::1%eth0"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5:http", "[::1"], "10.0.0.1"),
        ("10.0.0.1", ["[::1]x"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5:http"], "10.0.0.1"),
        ("10.0.0.1", ["'; drop table"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5" + ", 10.1.1.1" * 1500], "10.1.1.1"),  # nobody reads that far
        ("", ["203.0.113.5"], ""),  # a Unix socket that is not listed
        ("fe80::1%eth0", ["203.0.113.5"], "fe80::1%eth0"),
    ],
)
def test_the_right_most_address_that_is_no_proxy(peer: str, forwarded: list[str], expected: str) -> None:
    assert client(peer, *forwarded) == expected


def test_a_unix_socket() -> None:
    assert client("", "203.0.113.5", networks=["unix"]) == "203.0.113.5"
    assert client("", networks=["unix"]) == ""
    assert client("10.0.0.1", "203.0.113.5", networks=["unix"]) == "10.0.0.1"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (("192.0.2.1", 4711), "192.0.2.1"),
        (("::ffff:192.0.2.1", 4711, 0, 0), "192.0.2.1"),
        (("2001:db8::1", 4711, 0, 0), "2001:db8::1"),
        (("::ffff:1", 4711, 0, 0), "::ffff:1"),
        ("", ""),
        (b"\0abstract", ""),
    ],
)
def test_peers(address: Any, expected: str) -> None:
    assert peer_of(address) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("10.0.0.1/8", "say 10.0.0.0/8"),
        ("example.com", "neither a network"),
        ("10.0.0.0/33", "neither a network"),
        ("", "neither a network"),
        ("Unix", "nor unix"),
    ],
)
def test_what_is_no_network(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_network(text)


SAYS = ("X-Forwarded-For: 1.2.3.4", "X-Real-IP: 1.2.3.4", "Forwarded: for=1.2.3.4", "X-User: root", "Cookie: a=b")


def test_what_only_proxies_may_say() -> None:
    proxies = TrustedProxies(PROXIES, "X-User")
    given = head(*SAYS)
    assert proxies.see("10.0.0.1", given) == (given, "1.2.3.4")
    believed, address = proxies.see("198.51.100.1", given)
    assert (set(believed.headers), address) == ({b"host", b"cookie"}, "198.51.100.1")
    harmless = head("Cookie: a=b")
    assert proxies.see("198.51.100.1", harmless)[0] is harmless
