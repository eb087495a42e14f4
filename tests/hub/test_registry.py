"""Who is connected, found by client and by user."""

from __future__ import annotations

from broker.hub import Channel, Registry
from broker.hub.backlog import Backlog
from tests.support.listeners import Listener


def test_clients_are_found_by_id_and_by_user() -> None:
    registry = Registry()
    alice, again, bob, nobody = (
        Listener("c1", user="alice"),
        Listener("c2", user="alice"),
        Listener("c3", user="bob"),
        Listener("c4"),
    )
    for client in (alice, again, bob, nobody):
        registry.add(client)
    assert list(registry.clients) == ["c1", "c2", "c3", "c4"]
    assert list(registry.select("alice")) == [alice, again]
    assert list(registry.select("")) == [nobody]
    assert list(registry.select("carol")) == []
    assert registry.connections("alice") == 2
    assert registry.connections("carol") == 0


def test_a_selection_is_narrowed_by_client_and_by_session() -> None:
    registry = Registry()
    one, two = Listener("c1", user="alice"), Listener("c2", user="alice")
    one.session_id, two.session_id = "s1", "s2"
    registry.add(one)
    registry.add(two)
    assert list(registry.select("alice", "c2")) == [two]
    assert list(registry.select("alice", "", "s1")) == [one]
    assert list(registry.select("alice", "c2", "s1")) == []
    assert list(registry.select("bob", "c2")) == []


def test_clients_may_leave_while_they_are_gone_through() -> None:
    registry = Registry()
    for n in range(10):
        registry.add(Listener(f"c{n}", user="alice"))
    for client in registry.select("alice"):
        registry.remove(client)
    assert registry.users == {}


def test_nothing_remains_of_who_left_and_leaving_twice_is_nothing() -> None:
    registry = Registry()
    one, two = Listener("c1", user="alice"), Listener("c2", user="alice")
    registry.add(one)
    registry.add(two)
    registry.remove(one)
    registry.remove(one)
    assert list(registry.select("alice")) == [two]
    registry.remove(two)
    assert (registry.clients, registry.users) == ({}, {})


def test_live_channels_are_those_with_subscriptions() -> None:
    registry = Registry()
    for name in ("empty", "busy"):
        registry.channels[name] = Channel(name, lambda task: None, Backlog())
    Listener().prepare(registry.channels["busy"])
    assert [channel.name for channel in registry.live_channels()] == ["busy"]
    assert registry.subscriptions == 1
