"""Each rule of the permission model, and the order in which they count."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.channels import (
    ChannelOptions,
    Channels,
    ChannelsOptions,
    Kind,
    Override,
    PublishBy,
    Resolved,
    Source,
    SubscribeGrant,
    check_history,
    check_presence,
    may_subscribe_on_connect,
    publish_decided_by,
    subscribe_decided_by,
)
from broker.protocol import codes
from broker.values import Duration

NO_OVERRIDE = Override()
HISTORY = {"history_size": 10, "history_ttl": Duration(60)}


def setting(channel: str = "news", **options: Any) -> tuple[Channels, Resolved]:
    channels = Channels(ChannelsOptions(without_namespace=ChannelOptions(**options)))
    return channels, channels.for_client(channel)


def subscribe(
    channel: str = "news", user: str = "42", kind: int = 0, token: bool = False, insecure: bool = False, **options: Any
) -> Source | codes.Error:
    channels, resolved = setting(channel, **options)
    try:
        return subscribe_decided_by(channels, resolved, user=user, kind=kind, token=token, insecure=insecure)
    except codes.ClientError as failure:
        return failure.error


def test_nothing_is_allowed_by_default() -> None:
    assert subscribe() is codes.PERMISSION_DENIED


def test_the_kind_is_the_namespaces() -> None:
    allowed = {"allow_subscribe_for_client": True}
    assert subscribe(**allowed) is Source.CLIENT_ALLOWED
    assert subscribe(subscription_type="stream", **allowed) is Source.CLIENT_ALLOWED
    assert subscribe(kind=Kind.MAP, **allowed) is codes.PERMISSION_DENIED
    assert subscribe(kind=Kind.MAP, token=True, insecure=True) is codes.PERMISSION_DENIED
    assert subscribe(kind=Kind.MAP, subscription_type="map", **allowed) is Source.CLIENT_ALLOWED
    assert subscribe(subscription_type="map_users", **allowed) is codes.PERMISSION_DENIED


def test_private_channels_need_a_token() -> None:
    everything = {"allow_subscribe_for_client": True, "allow_user_limited_channels": True, "insecure": True}
    assert subscribe("$news", **everything) is codes.PERMISSION_DENIED
    assert subscribe("$news#42", **everything) is codes.PERMISSION_DENIED
    assert subscribe("$news", token=True) is Source.SUBSCRIPTION_TOKEN


def test_a_token_counts_before_everything_else() -> None:
    everything = {"allow_subscribe_for_client": True, "subscribe_proxy_enabled": True, "insecure": True}
    assert subscribe("news#42", allow_user_limited_channels=True, token=True, **everything) is Source.SUBSCRIPTION_TOKEN


def test_listed_users_need_nobodys_permission_and_others_get_none() -> None:
    options = {"allow_user_limited_channels": True, "allow_subscribe_for_client": True}
    assert subscribe("news#42,43", **options) is Source.USER_LIMITED
    assert subscribe("news#42", subscribe_proxy_enabled=True, **options) is Source.USER_LIMITED
    assert subscribe("news#43", **options) is codes.PERMISSION_DENIED
    assert subscribe("news#43", subscribe_proxy_enabled=True, **options) is codes.PERMISSION_DENIED
    assert subscribe("news#43", subscribe_stream_proxy_enabled=True, **options) is codes.PERMISSION_DENIED
    assert subscribe("news#43", insecure=True, **options) is Source.CLIENT_INSECURE
    assert subscribe("news#", user="", **options) is Source.USER_LIMITED
    assert subscribe("news#43", allow_subscribe_for_client=True) is Source.CLIENT_ALLOWED  # the option is off


def test_backends_are_asked_before_the_options_of_clients() -> None:
    options = {"allow_subscribe_for_client": True, "insecure": True}
    both = {"subscribe_proxy_enabled": True, "subscribe_stream_proxy_enabled": True}
    assert subscribe(**both, **options) is Source.SUBSCRIBE_PROXY
    assert subscribe(subscribe_stream_proxy_enabled=True, **options) is Source.STREAM_PROXY


@pytest.mark.parametrize(
    ("user", "client", "anonymous", "insecure", "expected"),
    [
        ("42", True, False, False, Source.CLIENT_ALLOWED),
        ("42", False, True, False, codes.PERMISSION_DENIED),
        ("", True, False, False, codes.PERMISSION_DENIED),
        ("", True, True, False, Source.CLIENT_ALLOWED),
        ("", False, True, False, codes.PERMISSION_DENIED),
        ("", True, False, True, Source.CLIENT_INSECURE),
        ("", False, False, True, Source.CLIENT_INSECURE),
        ("42", True, False, True, Source.CLIENT_ALLOWED),
    ],
)
def test_options_of_clients(user: str, client: bool, anonymous: bool, insecure: bool, expected: object) -> None:
    options = {"allow_subscribe_for_client": client, "allow_subscribe_for_anonymous": anonymous}
    assert subscribe(user=user, insecure=insecure, **options) is expected


@pytest.mark.parametrize(
    ("channel", "user", "insecure", "options", "allowed"),
    [
        ("news", "42", False, {}, False),
        ("news", "42", True, {}, True),
        ("news", "42", False, {"allow_subscribe_for_client": True}, True),
        ("news", "", False, {"allow_subscribe_for_client": True}, False),
        ("news", "", False, {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}, True),
        ("$news", "42", True, {"allow_subscribe_for_client": True}, False),
        ("news", "42", True, {"subscribe_proxy_enabled": True}, False),
        ("news#42", "42", False, {"allow_user_limited_channels": True}, True),
        ("news#43", "42", False, {"allow_user_limited_channels": True, "allow_subscribe_for_client": True}, False),
        ("news#43", "42", True, {"allow_user_limited_channels": True}, True),
        ("news#", "", False, {"allow_user_limited_channels": True}, False),
    ],
)
def test_channels_named_in_connect(
    channel: str, user: str, insecure: bool, options: dict[str, Any], allowed: bool
) -> None:
    channels, resolved = setting(channel, **options)
    assert may_subscribe_on_connect(channels, resolved, user=user, insecure=insecure) is allowed


def test_invalid_names_in_connect_are_passed_over() -> None:
    channels = Channels(ChannelsOptions(without_namespace=ChannelOptions(allow_subscribe_for_client=True)))
    resolved = channels.resolve("néws")
    assert resolved is not None
    assert not may_subscribe_on_connect(channels, resolved, user="42", insecure=True)


def publish(user: str = "42", subscribed: bool = False, insecure: bool = False, **options: Any) -> object:
    _, resolved = setting(**options)
    try:
        return publish_decided_by(resolved, user=user, subscribed=subscribed, insecure=insecure)
    except codes.ClientError as failure:
        return failure.error


def test_publishing() -> None:
    client, subscriber = {"allow_publish_for_client": True}, {"allow_publish_for_subscriber": True}
    anonymous = {"allow_publish_for_anonymous": True}
    assert publish() is codes.PERMISSION_DENIED
    assert publish(insecure=True) is PublishBy.SERVER
    assert publish(**client) is PublishBy.SERVER
    assert publish(user="", **client) is codes.PERMISSION_DENIED
    assert publish(user="", **client, **anonymous) is PublishBy.SERVER
    assert publish(**subscriber) is codes.PERMISSION_DENIED
    assert publish(subscribed=True, **subscriber) is PublishBy.SERVER
    assert publish(user="", subscribed=True, **subscriber) is codes.PERMISSION_DENIED
    assert publish(user="", subscribed=True, **subscriber, **anonymous) is PublishBy.SERVER
    assert publish(subscribed=True, **anonymous) is codes.PERMISSION_DENIED


def test_backends_take_publications_before_the_options_of_clients() -> None:
    client = {"allow_publish_for_client": True, "insecure": True}
    stream = {"subscribe_stream_proxy_enabled": True}
    assert publish(publish_proxy_enabled=True, **stream, **client) is PublishBy.PROXY
    assert publish(**stream, **client) is codes.NOT_AVAILABLE
    assert publish(subscribe_stream_proxy_bidirectional=True, **stream, **client) is PublishBy.STREAM


@pytest.mark.parametrize(
    ("check", "name", "on"), [(check_presence, "presence", {"presence": True}), (check_history, "history", HISTORY)]
)
def test_presence_and_history(check: Any, name: str, on: dict[str, Any]) -> None:
    def ask(
        user: str = "42", subscribed: bool = False, insecure: bool = False, kept: bool = True, **options: Any
    ) -> object:
        rules = {f"allow_{name}_for_{who}": value for who, value in options.items()}
        _, resolved = setting(**rules, **(on if kept else {}))
        try:
            check(resolved, user=user, subscribed=subscribed, insecure=insecure)
        except codes.ClientError as failure:
            return failure.error
        return "allowed"

    assert ask() is codes.PERMISSION_DENIED
    assert ask(insecure=True) == "allowed"
    assert ask(client=True) == "allowed"
    assert ask(user="", client=True) is codes.PERMISSION_DENIED
    assert ask(user="", client=True, anonymous=True) == "allowed"
    assert ask(subscriber=True) is codes.PERMISSION_DENIED
    assert ask(subscriber=True, subscribed=True) == "allowed"
    assert ask(user="", subscriber=True, subscribed=True) is codes.PERMISSION_DENIED
    assert ask(user="", subscriber=True, subscribed=True, anonymous=True) == "allowed"
    assert ask(kept=False, insecure=True, client=True) is codes.NOT_AVAILABLE


# ---- grants -------------------------------------------------------------------------------------------------------


def grant(override: Override = NO_OVERRIDE, **options: Any) -> SubscribeGrant:
    _, resolved = setting(**options)
    return SubscribeGrant.of(resolved, Source.CLIENT_ALLOWED, override=override)


def test_a_plain_namespace_grants_nothing_special() -> None:
    plain = grant()
    flags = {name: value for name, value in attrs.asdict(plain).items() if isinstance(value, bool)}
    assert {name for name, value in flags.items() if value} == {"client_side_refresh", "plain"}
    assert (plain.source, plain.expire_at, plain.chan_info, plain.data) == (Source.CLIENT_ALLOWED, 0, b"", b"")


@pytest.mark.parametrize(
    "more",
    [
        {"force_positioning": True},
        {"force_recovery": True},
        {"presence": True},
        {"join_leave": True},
        {"force_push_join_leave": True},
    ],
)
def test_whatever_more_than_publications_a_grant_gives_it_is_not_plain(more: dict[str, bool]) -> None:
    assert not grant(**more).plain
    assert not grant(Override(**more)).plain


def test_what_comes_with_one_subscription_is_not_plain() -> None:
    _, resolved = setting()
    for more in ({"expire_at": 1}, {"chan_info": b"1"}, {"data": b"1"}):
        assert not SubscribeGrant.of(resolved, Source.SUBSCRIPTION_TOKEN, **more).plain


def test_what_a_namespace_forces_is_granted() -> None:
    full = grant(
        presence=True,
        join_leave=True,
        force_push_join_leave=True,
        force_positioning=True,
        force_recovery=True,
        force_recovery_mode="cache",
        auto_cache_recover=True,
        allowed_delta_types=("fossil",),
        allow_tags_filter=True,
    )
    flags = {name: value for name, value in attrs.asdict(full).items() if isinstance(value, bool)}
    assert [name for name, value in flags.items() if not value] == ["plain"]
    assert not grant(sub_refresh_proxy_enabled=True).client_side_refresh


OVERRIDES = {
    "presence": "emit_presence",
    "join_leave": "emit_join_leave",
    "force_push_join_leave": "push_join_leave",
    "force_positioning": "positioned",
    "force_recovery": "recoverable",
}


@pytest.mark.parametrize("option", OVERRIDES)
@pytest.mark.parametrize("value", [True, False])
def test_an_override_replaces_one_option(option: str, value: bool) -> None:
    plain = grant(**{option: not value})
    replaced = grant(override=Override(**{option: value}), **{option: not value})
    assert replaced == attrs.evolve(plain, **{OVERRIDES[option]: value})


def test_the_cache_is_delivered_unasked_only_where_recovery_is_on() -> None:
    options = {"force_recovery_mode": "cache", "auto_cache_recover": True}
    assert not grant(**options).auto_cache_recover
    assert grant(force_recovery=True, **options).auto_cache_recover
    assert not grant(force_recovery=True, override=Override(force_recovery=False), **options).auto_cache_recover
    assert not grant(force_recovery=True, force_recovery_mode="stream", auto_cache_recover=True).auto_cache_recover
    _, resolved = setting(allow_recovery=True, **options)
    wished = SubscribeGrant.of(resolved, Source.CLIENT_ALLOWED).with_wishes(
        resolved, user="42", insecure=False, positioned=False, recoverable=True, join_leave=False
    )
    assert wished.auto_cache_recover


def wishes(user: str = "42", insecure: bool = False, **options: Any) -> set[str]:
    """What a client gets that asks for everything."""
    _, resolved = setting(**options)
    plain = SubscribeGrant.of(resolved, Source.CLIENT_ALLOWED)
    wished = plain.with_wishes(
        resolved, user=user, insecure=insecure, positioned=True, recoverable=True, join_leave=True
    )
    nothing = plain.with_wishes(
        resolved, user=user, insecure=insecure, positioned=False, recoverable=False, join_leave=False
    )
    assert nothing == plain
    return {name for name in ("positioned", "recoverable", "push_join_leave") if getattr(wished, name)}


def test_wishes_that_are_granted() -> None:
    assert wishes() == set()
    assert wishes(allow_positioning=True) == {"positioned"}
    assert wishes(allow_recovery=True) == {"recoverable"}
    assert wishes(allow_history_for_client=True) == {"positioned", "recoverable"}
    assert wishes(allow_history_for_subscriber=True) == {"positioned", "recoverable"}
    assert wishes(user="", allow_history_for_subscriber=True) == set()
    assert wishes(user="", allow_history_for_subscriber=True, allow_history_for_anonymous=True) == {
        "positioned",
        "recoverable",
    }
    assert wishes(join_leave=True) == set()
    assert wishes(allow_presence_for_subscriber=True) == set()
    assert wishes(join_leave=True, allow_presence_for_subscriber=True) == {"push_join_leave"}
    assert wishes(join_leave=True, allow_presence_for_client=True) == {"push_join_leave"}
    assert wishes(insecure=True) == {"positioned", "recoverable"}
    assert wishes(insecure=True, join_leave=True) == {"positioned", "recoverable", "push_join_leave"}


@given(st.booleans(), st.booleans(), st.booleans())
def test_wishes_never_take_anything_away(positioned: bool, recoverable: bool, join_leave: bool) -> None:
    _, resolved = setting()
    override = Override(force_positioning=True, force_recovery=True, force_push_join_leave=True)
    granted = SubscribeGrant.of(resolved, Source.SUBSCRIPTION_TOKEN, override=override)
    wished = granted.with_wishes(
        resolved, user="", insecure=False, positioned=positioned, recoverable=recoverable, join_leave=join_leave
    )
    assert wished == granted
