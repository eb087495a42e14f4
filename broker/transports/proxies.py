"""Whom a peer may speak for: where a request really comes from, and which headers only proxies may send.

`X-Forwarded-For` is what anybody may write. It counts from the networks of `http_server.trusted_proxies` alone, read
from the right: each proxy adds the address that it sees, so the first one that is no proxy of ours is the client's.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, final

import msgspec

from broker.http1 import Head

__all__ = ["UNIX", "TrustedProxies", "parse_network", "peer_of"]

UNIX: Final = "unix"
"""Stands for every peer of a Unix socket."""
_FORWARDED_FOR: Final = b"x-forwarded-for"
_THEIRS: Final = frozenset({_FORWARDED_FOR, b"x-real-ip", b"forwarded"})
_MOST_HOPS: Final = 32
"""Beyond, somebody has written a list for us to read."""
_MAPPED: Final = "::ffff:"
"""Before the address of an IPv4 peer of an IPv6 socket."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def peer_of(address: Any) -> str:
    """The IP address of a peer, as `accept` tells it; empty for a Unix socket."""
    if not isinstance(address, tuple):
        return ""
    host: str = address[0]
    return host[len(_MAPPED) :] if host.startswith(_MAPPED) and "." in host else host


def parse_network(text: str) -> Network | None:
    """A network as `10.0.0.0/8` or `::1`; None for `unix`.

    Raises:
        ValueError: it is none.
    """
    if text == UNIX:
        return None
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"neither a network, such as 10.0.0.0/8, nor {UNIX}: {text[:80]!a}") from None
    raise ValueError(f"{text} is an address within a network: say {meant}")


def _address(text: str) -> Address | None:
    """One hop, as proxies write it: bare, with a port, in brackets; None if it is no address."""
    if text.startswith("["):
        text, closed, port = text[1:].partition("]")
        if not closed or (port and not (port.startswith(":") and port[1:].isdigit())):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not port.isdigit():
            return None
    if "%" in text:  # a zone, which means nothing on another machine and may be any text
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@final
class TrustedProxies:
    """The rule of `http_server.trusted_proxies`.

    Args:
        networks: as `parse_network` reads them.
        user_header: a header that names the user, which is a proxy's to send as well; empty for none.

    Raises:
        ValueError: one of the networks is none.
    """

    def __init__(self, networks: Iterable[str], user_header: str = "") -> None:
        parsed = [parse_network(text) for text in networks]
        self._networks = [network for network in parsed if network is not None]
        self._unix = None in parsed
        self._theirs = _THEIRS | {user_header.lower().encode()} - {b""}

    def see(self, peer: str, head: Head) -> tuple[Head, str]:
        """What to believe of a request: its head without what only a proxy may say, if `peer` is none; and the client's
        address, empty if nobody knows it."""
        if self._trusts_peer(peer):
            return head, self._client(peer, head.headers.get(_FORWARDED_FOR, b""))
        if not self._theirs.isdisjoint(head.headers):
            headers = {name: value for name, value in head.headers.items() if name not in self._theirs}
            head = msgspec.structs.replace(head, headers=headers)
        return head, peer

    def _trusts_peer(self, peer: str) -> bool:
        if not peer:
            return self._unix
        address = _address(peer.partition("%")[0])
        return address is not None and self._trusts(address)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _client(self, peer: str, forwarded: bytes) -> str:
        """The right-most hop that is no proxy of ours, or the last that is known where what follows is no address."""
        found = peer
        for hop in reversed(forwarded.decode("latin-1").rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]):
            address = _address(hop.strip())
            if address is None:
                break
            found = str(address)
            if not self._trusts(address):
                break
        return found
