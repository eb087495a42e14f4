"""What holds in the server at every moment at which anybody may look: no task is between two halves of a change."""

from __future__ import annotations

from typing import Any

from broker.app import Server
from broker.hub import Channel
from broker.sessions.client import Client, Status
from tests.faults.checkers import Violation

__all__ = ["check_server", "members"]


def members(channel: Channel) -> list[Any]:
    """The subscriptions that take part, or will with the next publication."""
    return [sub for group in channel.groups.values() for sub in group.members] + list(channel.joining)


def _ending(client: Client) -> bool:
    """Its connection is over, and its task about to say so."""
    peer: Any = client.peer
    return bool(peer._connection.ending)


def check_server(server: Server) -> None:
    """Registry, channels, sessions and gauges agree.

    Raises:
        Violation: they do not.
    """
    node = server.node
    registry = node.registry
    inside: dict[str, set[Any]] = {}
    for name, channel in registry.channels.items():
        taking_part = members(channel)
        inside[name] = {*taking_part, *channel.collecting}
        if not len(inside[name]) == len(taking_part) + len(channel.collecting) == channel.subscriptions:
            raise Violation(f"{name} counts {channel.subscriptions}, holds {inside[name]}")
        for key, group in channel.groups.items():
            if not group.members or any(sub.group is not group or sub.key != key for sub in group.members):
                raise Violation(f"{name}: group {key} does not know its members")
    by_user = {client for clients in registry.users.values() for client in clients.values()}
    if by_user != set(registry.clients.values()) or not all(registry.users.values()):
        raise Violation("users and clients differ")
    held: dict[str, set[Any]] = {}
    for id, client in registry.clients.items():
        assert isinstance(client, Client)
        if client.client_id != id or client.status is Status.CLOSED:
            raise Violation(f"client {id} is {client.client_id}, {client.status}")
        for name, sub in client.subs.items():
            if sub.channel is not None:
                held.setdefault(name, set()).add(sub)
            elif sub.committed and not _ending(client):
                raise Violation(f"client {id} is told of {name}, and is not in it")
    if held != {name: subs for name, subs in inside.items() if subs}:
        raise Violation(f"sessions hold {held}, channels {inside}")
    info = node.describe()
    counted = (len(by_user), len(registry.users), sum(map(len, inside.values())), sum(map(bool, inside.values())))
    if (info.num_clients, info.num_users, info.num_subs, info.num_channels) != counted:
        raise Violation(f"gauges say {info}, there are {counted}")
