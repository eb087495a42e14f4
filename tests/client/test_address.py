from __future__ import annotations

import pytest

from broker.client.address import Address


@pytest.mark.parametrize(
    ("url", "expected", "header"),
    [
        ("ws://localhost", Address("localhost", 80, "/", False), "localhost"),
        ("ws://localhost:8000/a/b?x=1", Address("localhost", 8000, "/a/b?x=1", False), "localhost:8000"),
        ("wss://example.com/a", Address("example.com", 443, "/a", True), "example.com"),
        ("wss://[::1]:8443/", Address("::1", 8443, "/", True), "[::1]:8443"),
    ],
)
def test_addresses(url: str, expected: Address, header: str) -> None:
    address = Address.parse(url)
    assert address == expected
    assert address.header == header


@pytest.mark.parametrize("url", ["", "localhost:8000", "http://localhost", "ws://", "ws:///path"])
def test_no_addresses(url: str) -> None:
    with pytest.raises(ValueError, match="not a ws"):
        Address.parse(url)
