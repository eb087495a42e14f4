from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.channels import ChannelOptions, Channels, ChannelsOptions, Kind, NamespaceOptions, Resolved
from broker.protocol import codes
from broker.values import Duration

CHANNELS = Channels(
    ChannelsOptions(
        without_namespace=ChannelOptions(allow_user_limited_channels=True),
        namespaces=(
            NamespaceOptions(name="chat", channel_regex=r"^\w+$", history_meta_ttl=Duration(60)),
            NamespaceOptions(name="map", subscription_type="map", publication_data_format="binary"),
            NamespaceOptions(name="plain", subscription_type="stream"),
        ),
        publication_data_format="json",
    )
)


def resolve(channel: str) -> Resolved:
    resolved = CHANNELS.resolve(channel)
    assert resolved is not None
    return resolved


@pytest.mark.parametrize(
    ("channel", "namespace", "rest", "private"),
    [
        ("news", "", "news", False),
        ("$news", "", "$news", True),
        ("chat:news", "chat", "news", False),
        ("$chat:news", "chat", "news", True),
        ("chat:a:b", "chat", "a:b", False),
        ("chat:", "chat", "", False),
        (":news", "", "news", False),
        ("$:news", "", "news", True),
        ("$$x", "", "$$x", True),
        ("", "", "", False),
    ],
)
def test_splits_a_name(channel: str, namespace: str, rest: str, private: bool) -> None:
    resolved = resolve(channel)
    assert (resolved.namespace, resolved.rest, resolved.private) == (namespace, rest, private)
    assert resolved.channel == channel
    assert CHANNELS.resolve(channel) is resolved  # remembered


@pytest.mark.parametrize("channel", ["nope:news", "$nope:news", "CHAT:news", "$$chat:news", " chat:x", "#chat:x"])
def test_a_namespace_that_does_not_exist(channel: str) -> None:
    assert CHANNELS.resolve(channel) is None
    with pytest.raises(codes.ClientError) as failure:
        CHANNELS.for_client(channel)
    assert failure.value.error is codes.UNKNOWN_CHANNEL


def test_what_all_channels_share_fills_what_a_namespace_leaves_open() -> None:
    assert resolve("news").history_meta_ttl == 720 * 3600
    assert resolve("chat:news").history_meta_ttl == 60
    assert resolve("news").options.publication_data_format == "json"
    assert resolve("map:x").options.publication_data_format == "binary"


def test_tells_the_kind_of_subscription() -> None:
    assert [resolve(name).kind for name in ("news", "plain:x", "map:x")] == [Kind.STREAM, Kind.STREAM, Kind.MAP]


@pytest.mark.parametrize(
    ("options", "keeps"),
    [
        (ChannelOptions(), False),
        (ChannelOptions(history_size=1), False),
        (ChannelOptions(history_ttl=Duration(1)), False),
        (ChannelOptions(history_size=1, history_ttl=Duration(1)), True),
    ],
)
def test_tells_whether_history_is_kept(options: ChannelOptions, keeps: bool) -> None:
    resolved = Channels(ChannelsOptions(without_namespace=options)).resolve("news")
    assert resolved is not None
    assert resolved.keeps_history is keeps


@pytest.mark.parametrize(
    ("channel", "valid"),
    [
        ("news", True),
        ("a b/c*>{}~", True),  # all of visible ASCII, and the space
        ("", True),  # refused before names are looked at
        ("néws", False),
        ("日本", False),
        ("a\nb", False),
        ("a\0b", False),
        ("a\x1fb", False),
        ("a\x7fb", False),
        ("a\x80b", False),
        ("chat:news", True),
        ("chat:né", False),  # \w is ASCII in RE2
        ("chat:a b", False),
        ("chat:news\n", False),  # $ is the very end in RE2
        ("chat:" + "a" * 250, True),
        ("chat:" + "a" * 251, False),  # patterns see no more than could be subscribed to
        ("a" * 70_000, True),
    ],
)
def test_tells_which_names_clients_may_use(channel: str, valid: bool) -> None:
    assert resolve(channel).valid is valid
    if valid:
        assert CHANNELS.for_client(channel).channel == channel
    else:
        with pytest.raises(codes.ClientError) as failure:
            CHANNELS.for_client(channel)
        assert failure.value.error is codes.BAD_REQUEST


def test_a_pattern_may_allow_more_than_ascii_but_no_control_characters() -> None:
    channels = Channels(ChannelsOptions(without_namespace=ChannelOptions(channel_regex="é|x")))
    valid = [channels.resolve(name) for name in ("é", "日é", "axb", "a", "x\n", "\x7fx")]
    assert [each is not None and each.valid for each in valid] == [True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("channel", "user", "listed"),
    [
        ("news#42", "42", True),
        ("news#42", "4", False),
        ("news#42,43", "43", True),
        ("news#42,43", "42,43", False),
        ("a#1#2,3", "1", False),
        ("a#1#2,3", "2", True),
        ("#42", "42", True),
        ("news#", "", True),
        ("news#42,", "", True),
        ("news#42", "", False),
        ("$news#42", "42", True),
    ],
)
def test_tells_who_is_listed(channel: str, user: str, listed: bool) -> None:
    assert resolve(channel).user_limited
    assert CHANNELS.user_listed(channel, user) is listed


def test_user_limited_channels_are_an_option_of_the_namespace() -> None:
    assert not resolve("chat:news#42").user_limited
    assert not resolve("news").user_limited


def test_boundaries_are_options() -> None:
    channels = Channels(
        ChannelsOptions(
            without_namespace=ChannelOptions(allow_user_limited_channels=True),
            namespaces=(NamespaceOptions(name="ns", allow_user_limited_channels=True),),
            private_prefix="secret/",
            namespace_boundary="::",
            user_boundary="@@",
            user_separator="+",
        )
    )
    resolved = channels.resolve("secret/ns::a@@1+2")
    assert resolved is not None
    assert (resolved.namespace, resolved.rest, resolved.private) == ("ns", "a@@1+2", True)
    assert resolved.user_limited
    assert channels.user_listed("ns::a@@1+2", "2")
    assert channels.personal_channel("42", "ns") == "ns::@@42"


def test_boundaries_may_be_empty() -> None:
    channels = Channels(
        ChannelsOptions(
            without_namespace=ChannelOptions(allow_user_limited_channels=True),
            private_prefix="",
            namespace_boundary="",
            user_boundary="",
        )
    )
    resolved = channels.resolve("$a:b#c")
    assert resolved is not None
    assert (resolved.namespace, resolved.rest) == ("", "$a:b#c")
    assert not resolved.private
    assert not resolved.user_limited
    alone = Channels(ChannelsOptions(user_separator=""))
    assert alone.user_listed("a#1,2", "1,2")
    assert not alone.user_listed("a#1,2", "1")


def test_names_the_personal_channel() -> None:
    assert CHANNELS.personal_channel("42", "") == "#42"
    assert CHANNELS.personal_channel("42", "chat") == "chat:#42"


@pytest.mark.parametrize(
    "options",
    [ChannelOptions(channel_regex="(?=a)"), ChannelOptions(channel_regex="("), ChannelOptions(subscription_type="x")],
)
def test_refuses_wrong_options(options: ChannelOptions) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Channels(ChannelsOptions(without_namespace=options))


def test_what_it_remembers_is_bounded() -> None:
    channels = Channels(ChannelsOptions())
    first = channels.resolve("0")
    for number in range(20_000):
        channels.resolve(str(number))
    assert channels.resolve("0") == first
    assert channels.resolve("0") is not first
    longest, longer = "a" * 255, "a" * 256
    assert channels.resolve(longest) is channels.resolve(longest)
    assert channels.resolve(longer) is not channels.resolve(longer)


@given(st.text(max_size=40))
def test_resolving_is_the_same_twice(channel: str) -> None:
    once = Channels(ChannelsOptions()).resolve(channel)
    assert once == Channels(ChannelsOptions()).resolve(channel)
    assert once is None or once.channel.endswith(once.rest)


@given(st.text(min_size=1).filter(lambda user: "," not in user and "#" not in user), st.sampled_from(["", "chat"]))
def test_a_personal_channel_lists_its_user(user: str, namespace: str) -> None:
    assert CHANNELS.user_listed(CHANNELS.personal_channel(user, namespace), user)
