"""Names in Redis: Centrifugo's for what it can name, one slot per channel in a Cluster, never one for two things."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.engines.redis.names import Names, shard_index, slot_of

CHANNELS = st.one_of(
    st.text(alphabet="{}.a:%m", max_size=8),
    st.sampled_from(["meta.a", "a", "{a}", "}a", "brace}a", "{brace}a", "meta.{a}", "a.k", "a.", ":meta.a"]),
    st.builds("meta.{}".format, st.text(alphabet="{}.a", max_size=4)),
)
KEYS = st.text(alphabet=".a%2E}", min_size=1, max_size=6)


def all_names(names: Names, channel: str, key: str) -> dict[bytes, tuple[str, ...]]:
    stream, meta = names.history(channel)
    expire, data = names.presence(channel)
    user_expire, users = names.users(channel)
    return {
        stream: ("stream", channel),
        meta: ("meta", channel),
        names.result(channel, key): ("result", channel, key),
        expire: ("expire", channel),
        data: ("data", channel),
        user_expire: ("user expire", channel),
        users: ("users", channel),
    }


@pytest.mark.parametrize("cluster", [False, True], ids=["one", "cluster"])
def test_one_name_is_never_for_two_things(cluster: bool) -> None:
    names = Names("p", cluster=cluster)

    @given(CHANNELS, CHANNELS, KEYS, KEYS)
    def check(one: str, other: str, key: str, other_key: str) -> None:
        first, second = all_names(names, one, key), all_names(names, other, other_key)
        assert len(first) == 7
        for name, purpose in second.items():
            assert first.get(name, purpose) == purpose
        if one != other:
            assert names.message(one) != names.message(other)

    check()


@given(CHANNELS, KEYS)
def test_all_keys_of_a_channel_are_in_one_slot(channel: str, key: str) -> None:
    names = Names("p", cluster=True)
    assert len({slot_of(name) for name in all_names(names, channel, key)}) == 1


def test_names_are_centrifugos() -> None:
    one = Names("centrifugo", cluster=False)
    assert one.message("chat:1") == b"centrifugo.client.chat:1"
    assert one.history("chat:1") == (b"centrifugo.stream.chat:1", b"centrifugo.stream.meta.chat:1")
    assert one.result("chat:1", "k") == b"centrifugo.result.chat:1.k"
    assert one.presence("chat:1") == (b"centrifugo.presence.expire.chat:1", b"centrifugo.presence.data.chat:1")
    assert one.users("chat:1")[1] == b"centrifugo.presence.user.clients.chat:1"
    many = Names("centrifugo", cluster=True)
    assert many.message("chat:1") == b"centrifugo.client.{chat:1}"
    assert many.history("chat:1") == (b"centrifugo.stream.{chat:1}", b"centrifugo.stream.meta.{chat:1}")
    assert many.result("chat:1", "k") == b"centrifugo.result.{chat:1}.k"


@pytest.mark.parametrize(
    ("channel", "of_two", "of_five"),
    [("chat", 0, 4), ("chat:index", 0, 0), ("тема", 1, 1), ("news", 1, 3), ("a", 1, 2)],
)
def test_which_shard(channel: str, of_two: int, of_five: int) -> None:
    """So that a mixed cluster finds the same data: of five as Centrifugo 6.9.1 chose, but for `chat:index`, which was
    not tried there; of two by the same rule."""
    assert (shard_index(channel, 1), shard_index(channel, 2), shard_index(channel, 5)) == (0, of_two, of_five)


def test_another_shard_moves_only_its_share() -> None:
    channels = [f"channel{n}" for n in range(2000)]
    for before in range(1, 6):
        moved = [(shard_index(c, before), shard_index(c, before + 1)) for c in channels]
        assert all(new in (old, before) for old, new in moved)
        share = sum(new == before for _, new in moved) / len(channels)
        assert abs(share - 1 / (before + 1)) < 0.05


def test_slots_are_those_of_redis() -> None:
    """As `CLUSTER KEYSLOT` gives them."""
    assert [slot_of(key) for key in (b"123456789", b"{a}b", b"a", b"{}a", b"{a", b"x{a}{b}")] == [
        12739,
        15495,
        15495,
        slot_of(b"{}a"),
        slot_of(b"{a"),
        15495,
    ]
    assert len({slot_of(b"{}%d" % n) for n in range(10)}) > 1, "an empty tag is none"
    assert all(0 <= slot_of(bytes(pair)) < 16384 for pair in itertools.product(range(0, 256, 7), repeat=2))
