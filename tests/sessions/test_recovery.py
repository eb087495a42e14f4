"""Recovery: what a client missed, and when it is told that it cannot have it (client protocol §3.6)."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from broker.protocol import Publication
from tests.support.peers import House, RawClient, open_house, options
from tests.support.slow_engine import Gates, SlowBroker

pytestmark = pytest.mark.virtual_time

STREAM = {"history_size": 5, "history_ttl": "60s", "history_meta_ttl": "300s", "force_recovery": True}
CACHE = {**STREAM, "force_recovery_mode": "cache"}


async def publish(house: House, count: int, channel: str = "chat", **more: Any) -> str:
    """Publish 1, 2, …; returns the epoch."""
    epoch = ""
    for n in range(1, count + 1):
        epoch = (await house.api("publish", channel=channel, data=n, **more))["result"]["epoch"]
    return epoch


async def epoch_of(house: House, channel: str = "chat") -> str:
    return str((await house.api("history", channel=channel))["result"]["epoch"])


async def subscribe(client: RawClient, channel: str = "chat", **members: Any) -> dict[str, Any]:
    return (await client.ask(subscribe={"channel": channel, **members}))["subscribe"]  # type: ignore[no-any-return]


def offsets(result: dict[str, Any]) -> list[int]:
    return [pub["offset"] for pub in result.get("publications", ())]


# ---- all that was missed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "recovered"),
    [
        pytest.param({"offset": 8}, [], id="nothing missed"),
        pytest.param({"offset": 5}, [6, 7, 8], id="some missed"),
        pytest.param({"offset": 3}, [4, 5, 6, 7, 8], id="all that is kept"),
        pytest.param({"offset": 2}, None, id="the head was trimmed"),
        pytest.param({}, None, id="from the very beginning"),
        pytest.param({"offset": 9}, None, id="above the top"),
        pytest.param({"offset": 2**63 - 1}, None, id="far above the top"),
        pytest.param({"offset": 5, "epoch": ""}, [6, 7, 8], id="an empty epoch agrees with any"),
        pytest.param({"offset": 8, "epoch": "other"}, None, id="another epoch"),
        pytest.param({"epoch": "_"}, None, id="the epoch of SDKs that were told to forget"),
    ],
)
async def test_a_stream_is_recovered_whole_or_not_at_all(since: dict[str, Any], recovered: list[int] | None) -> None:
    async with open_house(options(STREAM)) as house:
        epoch = await publish(house, 8)
        client = await house.connected()
        result = await subscribe(client, recover=True, **{"epoch": epoch, **since})
        expected: dict[str, Any] = {"recoverable": True, "positioned": True, "epoch": epoch, "was_recovering": True}
        if recovered is None:
            expected["offset"] = 8
        else:
            expected |= {"recovered": True, "offset": since["offset"]}
        if recovered:
            expected["publications"] = [{"data": n, "offset": n} for n in recovered]
        assert result == expected
        await house.api("publish", channel="chat", data=9)
        assert (await client.push())["pub"] == {"data": 9, "offset": 9}

        # the same, but rather an error than to start over
        strict = await house.connected()
        reply = await strict.ask(
            subscribe={"channel": "chat", "recover": True, "flag": 2, **{"epoch": epoch, **since}, "offset": 9}
            if recovered is not None
            else {"channel": "chat", "recover": True, "flag": 3, **{"epoch": epoch, **since, "offset": 1}}
        )
        if recovered is not None:
            assert reply["subscribe"]["recovered"]
        else:
            assert reply["error"] == {"code": 112, "message": "unrecoverable position"}
            assert (await subscribe(strict))["offset"] == 9  # the place was given back


async def test_from_the_beginning_of_a_young_channel() -> None:
    async with open_house(options(STREAM)) as house:
        epoch = await publish(house, 2)
        result = await subscribe(await house.connected(), recover=True)
        assert (result["recovered"], offsets(result), "offset" in result) == (True, [1, 2], False)
        result = await subscribe(await house.connected(), channel="empty", recover=True)
        assert result["recovered"]
        assert offsets(result) == []
        assert result["epoch"] != epoch


async def test_without_recovering_the_position_is_the_top() -> None:
    async with open_house(options(STREAM)) as house:
        epoch = await publish(house, 3)
        result = await subscribe(await house.connected(), offset=1, epoch=epoch)
        assert result == {"recoverable": True, "positioned": True, "epoch": epoch, "offset": 3}


async def test_no_more_is_recovered_than_the_limit_allows() -> None:
    async with open_house(options(STREAM, client={"recovery_max_publication_limit": 2})) as house:
        epoch = await publish(house, 4)
        for since, recovered in ((1, False), (2, True)):
            result = await subscribe(await house.connected(), recover=True, epoch=epoch, offset=since)
            assert result.get("recovered", False) is recovered


async def test_what_expired_or_was_removed_cannot_be_recovered_but_the_position_stays() -> None:
    async with open_house(options(STREAM)) as house:
        epoch = await publish(house, 3)
        await house.api("history_remove", channel="chat")
        for since, recovered in ((2, False), (3, True)):
            result = await subscribe(await house.connected(), recover=True, epoch=epoch, offset=since)
            assert result.get("recovered", False) is recovered
        assert (await house.api("publish", channel="chat", data=4))["result"] == {"offset": 4, "epoch": epoch}
        await trio.sleep(61)
        for since, recovered in ((3, False), (4, True)):
            result = await subscribe(await house.connected(), recover=True, epoch=epoch, offset=since)
            assert result.get("recovered", False) is recovered


async def test_after_long_silence_a_channel_begins_anew() -> None:
    async with open_house(options(STREAM)) as house:
        epoch = await publish(house, 3)
        await trio.sleep(301)
        result = await subscribe(await house.connected(), recover=True, epoch=epoch, offset=3)
        assert "recovered" not in result
        assert result["epoch"] != epoch
        assert "offset" not in result


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, {"was_recovering": True}),
        ({"history_size": 5, "history_ttl": "60s"}, {"was_recovering": True}),
        (
            {"history_size": 5, "history_ttl": "60s", "force_positioning": True},
            {"was_recovering": True, "positioned": True, "offset": 2},
        ),
    ],
)
async def test_a_channel_that_does_not_recover(rules: dict[str, Any], expected: dict[str, Any]) -> None:
    async with open_house(options(rules)) as house:
        for n in (1, 2):
            await house.api("publish", channel="chat", data=n)
        result = await subscribe(await house.connected(), recover=True, offset=1)
        result.pop("epoch", None)
        assert result == expected


@pytest.mark.parametrize("wish", ["recoverable", "positioned"])
async def test_a_position_is_given_to_those_who_may_have_it(wish: str) -> None:
    given = {"recoverable": {"recoverable": True, "positioned": True}, "positioned": {"positioned": True}}[wish]
    for rules in (
        {"allow_recovery": True, "allow_positioning": True},
        {"allow_history_for_subscriber": True, "allow_history_for_anonymous": True},
    ):
        allowed = {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}
        kept = {"history_size": 5, "history_ttl": "60s"}
        client_options = {"insecure": False, "allow_anonymous_connect_without_token": True}
        async with open_house(options({**kept, **allowed, **rules}, client=client_options)) as house:
            result = await subscribe(await house.connected(), **{wish: True})
            del result["epoch"]
            assert result == given
            assert await subscribe(await house.connected()) == {}
        async with open_house(options({**kept, **allowed}, client=client_options)) as house:
            assert await subscribe(await house.connected(), **{wish: True}) == {}


async def test_unsubscribed_missed_recovered() -> None:
    async with open_house(options(STREAM)) as house:
        client = await house.connected()
        await subscribe(client)
        epoch = await publish(house, 2)
        for _ in range(2):
            await client.push()
        await client.ask(unsubscribe={"channel": "chat"})
        await house.api("publish", channel="chat", data=3)
        await client.nothing()
        result = await subscribe(client, recover=True, epoch=epoch, offset=2)
        assert offsets(result) == [3]
        await house.api("publish", channel="chat", data=4)
        assert (await client.push())["pub"]["offset"] == 4


async def test_recovered_publications_are_what_the_publisher_sent() -> None:
    async with open_house(options(STREAM)) as house:
        client = await house.connected()
        await client.ask(publish={"channel": "chat", "data": {"b": 1, "a": 10**30}})
        await house.api("publish", channel="chat", data="x", tags={"t": "1"})
        result = await subscribe(client, recover=True)
        info = {"user": "", "client": client.hello["client"]}
        assert result["publications"] == [
            {"data": {"b": 1, "a": 10**30}, "info": info, "offset": 1},
            {"data": "x", "offset": 2, "tags": {"t": "1"}},
        ]


# ---- filters ------------------------------------------------------------------------------------------------------

ODD = {"key": "odd", "cmp": "eq", "val": "yes"}


async def publish_tagged(house: House, *numbers: int) -> None:
    for n in numbers:
        await house.api("publish", channel="chat", data=n, tags={"odd": "yes" if n % 2 else "no"})


async def test_a_filter_leaves_out_without_leaving_gaps() -> None:
    async with open_house(options({**STREAM, "allow_tags_filter": True})) as house:
        await publish_tagged(house, 1, 2, 3, 4)
        client = await house.connected()
        result = await subscribe(client, recover=True, epoch=await epoch_of(house), tf=ODD)
        assert (result["recovered"], offsets(result)) == (True, [1, 3])
        await publish_tagged(house, 5, 6, 7)
        assert [(await client.push())["pub"]["offset"] for _ in range(2)] == [5, 7]
        await client.nothing()
        nothing_for_us = await subscribe(
            await house.connected(), recover=True, offset=5, tf={"key": "odd", "cmp": "eq", "val": "never"}
        )
        assert nothing_for_us["recovered"]
        assert offsets(nothing_for_us) == []
        assert nothing_for_us["offset"] == 5


# ---- the latest only ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "recovered"),
    [
        pytest.param({}, [3], id="never had anything"),
        pytest.param({"offset": 2}, [3], id="had an older one"),
        pytest.param({"offset": 3}, [], id="has it already"),
        pytest.param({"offset": 3, "epoch": "other"}, [3], id="has one of another epoch"),
        pytest.param({"offset": 3, "epoch": ""}, [3], id="does not know the epoch"),
        pytest.param({"offset": 9}, [3], id="above the top"),
    ],
)
async def test_a_cache_gives_the_latest_unless_the_client_has_it(
    since: dict[str, Any], recovered: list[int] | None
) -> None:
    async with open_house(options(CACHE)) as house:
        epoch = await publish(house, 3)
        client = await house.connected()
        result = await subscribe(client, recover=True, flag=2, **{"epoch": epoch, **since})
        assert (result["recovered"], result["was_recovering"], offsets(result)) == (True, True, recovered)
        assert result.get("offset", 0) == since.get("offset", 0)  # as in streams: what was asked for
        await house.api("publish", channel="chat", data=4)
        assert (await client.push())["pub"]["offset"] == 4


async def test_an_empty_cache_gives_nothing() -> None:
    async with open_house(options(CACHE)) as house:
        result = await subscribe(await house.connected(), recover=True, flag=2)
        assert result == {"recoverable": True, "positioned": True, "epoch": result["epoch"], "was_recovering": True}
        epoch = await publish(house, 3)
        await house.api("history_remove", channel="chat")
        for since, recovered in ((2, False), (3, True)):
            result = await subscribe(await house.connected(), recover=True, epoch=epoch, offset=since)
            assert result.get("recovered", False) is recovered
            assert offsets(result) == []
            assert result["offset"] == 3


async def test_a_cache_is_recovered_unasked_where_the_namespace_says_so() -> None:
    async with open_house(options({**CACHE, "auto_cache_recover": True})) as house:
        result = await subscribe(await house.connected())
        assert (result.get("recovered", False), result["was_recovering"]) == (False, True)
        await publish(house, 2)
        result = await subscribe(await house.connected())
        assert (result["recovered"], result["was_recovering"], offsets(result)) == (True, True, [2])
        served = await house.connected(subs={"chat": {}})
        assert offsets(served.hello["subs"]["chat"]) == [2]


@pytest.mark.parametrize(
    ("wanted", "since", "recovered", "expected"),
    [
        ("yes", {}, True, [3]),
        ("no", {}, True, [4]),
        ("never", {}, False, []),
        ("never", {"offset": 4}, True, []),
        ("yes", {"offset": 4}, True, []),
    ],
)
async def test_the_latest_that_a_filter_lets_through(
    wanted: str, since: dict[str, Any], recovered: bool, expected: list[int]
) -> None:
    async with open_house(options({**CACHE, "allow_tags_filter": True})) as house:
        await publish_tagged(house, 1, 2, 3, 4)
        client = await house.connected()
        tf = {"key": "odd", "cmp": "eq", "val": wanted}
        result = await subscribe(client, recover=True, epoch=await epoch_of(house), tf=tf, **since)
        assert (result.get("recovered", False), offsets(result)) == (recovered, expected)


# ---- what is published meanwhile ----------------------------------------------------------------------------------


def broker_of(house: House) -> SlowBroker:
    broker: Any = house.server.node._broker
    return broker  # type: ignore[no-any-return]


@pytest.mark.parametrize("moment", ["history", "history done"])
@pytest.mark.parametrize("recover", [True, False])
async def test_nothing_falls_between_reading_and_going_live(moment: str, recover: bool) -> None:
    gates = Gates()
    async with open_house(options(STREAM), pace=gates) as house:
        epoch = await publish(house, 2)
        client = await house.connected()
        gates.hold(moment)
        await client.command(subscribe={"channel": "chat", "recover": recover, "epoch": epoch, "offset": 1})
        await gates.wait_until_held(moment)
        for n in (3, 4):
            await house.api("publish", channel="chat", data=n)
        gates.open(moment)
        result = (await client.next())["subscribe"]
        if recover:
            assert (result["offset"], offsets(result)) == (1, [2, 3, 4])
        else:
            assert (result["offset"], offsets(result)) == (4, [])
        await house.api("publish", channel="chat", data=5)
        assert (await client.push())["pub"]["offset"] == 5


async def test_a_filter_holds_for_what_is_published_meanwhile_too() -> None:
    gates = Gates()
    async with open_house(options({**STREAM, "allow_tags_filter": True}), pace=gates) as house:
        client = await house.connected()
        gates.hold("history done")
        await client.command(subscribe={"channel": "chat", "recover": True, "tf": ODD})
        await gates.wait_until_held("history done")
        await publish_tagged(house, 1, 2, 3)
        gates.open("history done")
        result = (await client.next())["subscribe"]
        assert (result["recovered"], offsets(result)) == (True, [1, 3])


async def test_the_latest_may_be_one_that_was_published_meanwhile() -> None:
    gates = Gates()
    async with open_house(options(CACHE), pace=gates) as house:
        epoch = await publish(house, 2)
        client = await house.connected()
        gates.hold("history done")
        await client.command(subscribe={"channel": "chat", "recover": True, "epoch": epoch, "offset": 1})
        await gates.wait_until_held("history done")
        for n in (3, 4):
            await house.api("publish", channel="chat", data=n)
        gates.open("history done")
        assert offsets((await client.next())["subscribe"]) == [4]


async def test_nothing_falls_between_while_other_subscriptions_of_a_connect_are_made() -> None:
    gates = Gates()
    async with open_house(options(STREAM), pace=gates) as house:
        epoch = await publish(house, 2)
        client = await house.client()
        gates.hold("history")
        await client.command(connect={"subs": {"chat": {"recover": True, "epoch": epoch}, "other": {}}})
        await gates.wait_until_held("history")
        gates.open("history")
        gates.hold("history")
        await trio.testing.wait_all_tasks_blocked()
        assert gates.held("history") == 1  # of the other one
        await house.api("publish", channel="chat", data=3)
        gates.open("history")
        assert offsets((await client.next())["connect"]["subs"]["chat"]) == [1, 2, 3]
        await house.api("publish", channel="chat", data=4)
        assert (await client.push())["pub"]["offset"] == 4


@pytest.mark.parametrize("server_side", [True, False])
async def test_what_does_not_join_ends_the_connection(server_side: bool) -> None:
    gates = Gates()
    async with open_house(options(STREAM), pace=gates) as house:
        epoch = await publish(house, 2)
        client = await house.client() if server_side else await house.connected()
        gates.hold("history done")
        if server_side:
            await client.command(connect={"subs": {"chat": {"recover": True, "epoch": epoch}, "other": {}}})
        else:
            await client.command(subscribe={"channel": "chat", "recover": True, "epoch": epoch})
        await gates.wait_until_held("history done")
        broker_of(house).inner.deliver.publication("chat", Publication(b"5", offset=5), epoch, None)
        gates.open("history done")
        assert await client.wait_closed() == (3010, "insufficient state")


@pytest.mark.parametrize("recover", [False, True])
async def test_publications_of_another_epoch_are_not_joined_with_what_was_read(recover: bool) -> None:
    """Between the read and its answer the engine lost the channel, and offsets began again."""
    pace = Gates()
    async with open_house(options(STREAM), pace=pace) as house:
        epoch = await publish(house, 1)
        client = await house.connected()
        other = await house.connected()
        await subscribe(other)  # so that the engine delivers
        pace.hold("history done")
        since = {"recover": True, "offset": 1, "epoch": epoch} if recover else {}
        await client.command(subscribe={"channel": "chat", **since})
        await pace.wait_until_held("history done")
        broker: Any = house.server.node._broker
        del broker.inner._streams["chat"]
        await house.api("publish", channel="chat", data="first of the new")
        await house.api("publish", channel="chat", data="would follow the old")
        pace.open("history done")
        assert (await client.wait_closed())[0] == 3010
