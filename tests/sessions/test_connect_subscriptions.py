"""Subscriptions that come with a connection: where they come from, and what a failure of one leaves behind."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.peers import RawClient, open_house, options, secured, token
from tests.support.slow_engine import Gates

pytestmark = pytest.mark.virtual_time

ANONYMOUS = {"client": {"allow_anonymous_connect_without_token": True}}
PERSONAL = {"enabled": True}


async def refused(client: RawClient, **connect: Any) -> int:
    """The code of the error or of the close frame that a connect gets."""
    await client.command(connect=connect)
    try:
        return int((await client.next())["error"]["code"])
    except EOFError:
        assert client.closed is not None
        return client.closed[0]


def namespaces(**named: dict[str, Any]) -> dict[str, Any]:
    return {"namespaces": [{"name": name, **values} for name, values in named.items()]}


# ---- server-side subscriptions ------------------------------------------------------------------------------------


async def test_the_personal_channel_of_a_user() -> None:
    personal = {"subscribe_to_user_personal_channel": PERSONAL}
    async with open_house(secured(client=personal)) as house:
        client = await house.connected(token=token("42"))
        assert client.hello["subs"] == {"#42": {}}
        await house.api("publish", channel="#42", data={"n": 1})
        assert await client.push() == {"channel": "#42", "pub": {"data": {"n": 1}}}
        assert "subs" not in (await house.connected(token=token())).hello
    personal = {"subscribe_to_user_personal_channel": {**PERSONAL, "personal_channel_namespace": "own"}}
    channel = namespaces(own={"force_positioning": True})
    async with open_house(secured(client=personal) | {"channel": channel}) as house:
        client = await house.connected(token=token("42", subs={"own:#42": {"data": "of the token"}}))
        assert set(client.hello["subs"]) == {"own:#42"}
        assert "data" not in client.hello["subs"]["own:#42"]  # the personal channel comes before the token's
        assert client.hello["subs"]["own:#42"]["positioned"]


async def test_a_single_connection_ends_the_others_of_its_user() -> None:
    personal = {"subscribe_to_user_personal_channel": {**PERSONAL, "single_connection": True}}
    async with open_house(secured({"presence": True}, client={**personal, "user_connection_limit": 1})) as house:
        first = await house.connected(token=token("42"))
        other = await house.connected(token=token("7"))
        second = await house.connected(token=token("42"))
        assert await first.wait_closed() == (3504, "connection limit")
        await house.api("publish", channel="#42", data=1)
        assert (await second.push())["pub"]["data"] == 1
        await other.nothing()


async def test_channels_that_the_client_names_itself() -> None:
    channel = namespaces(
        open={"allow_subscribe_for_client": True, "allow_user_limited_channels": True},
        anyone={"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True, "channel_regex": "^[a-z]+$"},
        closed={"presence": True},
    )
    asked = {
        name: {}
        for name in (
            "open:a",
            "open:#42",
            "open:#7",
            "open:#",
            "anyone:b",
            "anyone:B",
            "closed:x",
            "$open:x",
            "größe",
            "plain",
        )
    }
    async with open_house(secured() | {"channel": channel}) as house:
        client = await house.connected(token=token("42"), subs=asked)
        assert set(client.hello["subs"]) == {"open:a", "open:#42", "anyone:b"}
        client = await house.connected(token=token(), subs=asked)
        assert set(client.hello["subs"]) == {"anyone:b"}
    async with open_house(options() | {"channel": channel}) as house:
        client = await house.connected(subs=asked)
        assert set(client.hello["subs"]) == set(asked) - {"anyone:B", "$open:x", "größe"}
    async with open_house(secured(**ANONYMOUS) | {"channel": channel}) as house:
        client = await house.connected(subs=asked)
        assert set(client.hello["subs"]) == {"anyone:b"}
        assert await refused(await house.client(), subs={"": {}}) == 3501


async def test_a_client_does_not_replace_what_its_token_says() -> None:
    open_to_all = {"allow_subscribe_for_client": True}
    async with open_house(secured(open_to_all)) as house:
        client = await house.connected(
            token=token("42", subs={"a": {"data": {"of": "token"}}}), subs={"a": {}, "b": {}}
        )
        assert client.hello["subs"] == {"a": {"data": {"of": "token"}}, "b": {}}


async def test_subscriptions_of_a_token_and_what_they_override() -> None:
    rules = {"history_size": 5, "history_ttl": "60s", "presence": True, "join_leave": True}
    subs = {
        "plain": {},
        "recovered": {"override": {"force_recovery": {"value": True}}},
        "positioned": {"override": {"force_positioning": {"value": True}, "presence": {"value": False}}},
        "told": {
            "override": {"force_push_join_leave": {"value": True}, "join_leave": {"value": True}},
            "info": {"role": "admin"},
            "b64data": "eyJhIjoxfQ==",
        },
    }
    async with open_house(secured(rules)) as house:
        client = await house.connected(token=token("42", subs=subs, channels=["ignored"]))
        got = client.hello["subs"]
        assert set(got) == set(subs)
        assert got["plain"] == {}
        assert got["recovered"] == {"recoverable": True, "positioned": True, "epoch": got["recovered"]["epoch"]}
        assert got["positioned"] == {"positioned": True, "epoch": got["positioned"]["epoch"]}
        assert got["told"] == {"data": {"a": 1}}
        mine = {"user": "42", "client": client.hello["client"]}
        assert await client.push() == {"channel": "told", "join": {"info": {**mine, "chan_info": {"role": "admin"}}}}
        await client.nothing()
        for channel, present in (("plain", 1), ("positioned", 0), ("told", 1)):
            stats = (await house.api("presence_stats", channel=channel))["result"]
            assert stats == {"num_clients": present, "num_users": present}
        assert (await client.ask(subscribe={"channel": "plain"}))["error"]["code"] == 105


async def test_channels_of_a_token_have_the_options_of_their_namespace() -> None:
    rules = {"history_size": 5, "history_ttl": "60s", "force_recovery": True}
    async with open_house(secured(rules)) as house:
        client = await house.connected(token=token("42", channels=["news", "$private", "größe"]))
        assert set(client.hello["subs"]) == {"news", "$private", "größe"}  # a token may name anything
        assert all(sub["recoverable"] for sub in client.hello["subs"].values())


async def test_what_was_missed_comes_with_the_connect_reply() -> None:
    rules = {"history_size": 5, "history_ttl": "60s", "force_recovery": True}
    async with open_house(secured(rules)) as house:
        first = await house.connected(token=token("42", channels=["news"]))
        epoch = first.hello["subs"]["news"]["epoch"]
        await first.leave()
        for n in (1, 2):
            await house.api("publish", channel="news", data=n)
        since = {"recover": True, "epoch": epoch}
        back = await house.connected(token=token("42", channels=["news"]), subs={"news": since})
        assert back.hello["subs"]["news"] == {
            "recoverable": True,
            "positioned": True,
            "epoch": epoch,
            "recovered": True,
            "was_recovering": True,
            "publications": [{"data": 1, "offset": 1}, {"data": 2, "offset": 2}],
        }
        await house.api("publish", channel="news", data=3)
        assert (await back.push())["pub"]["offset"] == 3
        lost = await house.connected(
            token=token("42", channels=["news"]), subs={"news": {"recover": True, "epoch": "_"}}
        )
        assert lost.hello["subs"]["news"] == {
            "recoverable": True,
            "positioned": True,
            "epoch": epoch,
            "was_recovering": True,
            "offset": 3,
        }


# ---- when something fails half way --------------------------------------------------------------------------------


async def test_a_subscription_that_fails_undoes_the_whole_connect() -> None:
    rules = {"presence": True, "join_leave": True, "force_push_join_leave": True}
    gates = Gates()
    async with open_house(secured(rules), pace=gates) as house:
        watcher = await house.connected(token=token("1", channels=["a"]))
        await watcher.push()  # its own join
        gates.failing = {"history"}
        subs = {"a": {}, "b": {"override": {"force_positioning": {"value": True}}}, "c": {}}
        assert await refused(await house.client(), token=token("42", subs=subs)) == 100
        await watcher.nothing()
        assert set(house.server.node.registry.clients) == {watcher.hello["client"]}
        assert (await house.api("channels"))["result"]["channels"] == {"a": {"num_clients": 1}}
        for channel, present in (("a", 1), ("b", 0), ("c", 0)):
            stats = (await house.api("presence_stats", channel=channel))["result"]
            assert stats["num_clients"] == present


async def test_an_engine_that_cannot_undo_anything_either() -> None:
    gates = Gates()
    async with open_house(secured({"presence": True, "join_leave": True}), pace=gates) as house:
        gates.failing = {"add", "remove", "publish_leave"}
        assert await refused(await house.client(), token=token("42", channels=["a", "b"])) == 100
        assert house.server.node.registry.clients == {}


async def test_a_client_that_leaves_while_it_connects_leaves_nothing_behind() -> None:
    gates = Gates()
    async with open_house(secured({"presence": True, "join_leave": True}), pace=gates) as house:
        gates.hold("add done")
        client = await house.client()
        await client.command(connect={"token": token("42", channels=["a", "b"])})
        await gates.wait_until_held("add done")
        await client.leave()
        gates.open("add done")


async def test_a_client_that_is_disconnected_while_it_connects_gets_the_code() -> None:
    gates = Gates()
    async with open_house(secured({"presence": True}), pace=gates) as house:
        gates.hold("add")
        client = await house.client()
        await client.command(connect={"token": token("42", channels=["a", "b"])})
        await gates.wait_until_held("add")
        assert await house.api("disconnect", user="42") == {"result": {}}
        assert await client.wait_closed() == (3503, "force disconnect")


async def test_a_reply_that_is_more_than_may_wait_for_a_client() -> None:
    """The client is cut off before it is connected; no timer may be armed for it afterwards."""
    gates = Gates()
    rules = {"presence": True, "join_leave": True, "force_push_join_leave": True}
    async with open_house(secured(rules, client={"queue_max_size": 500}), pace=gates) as house:
        watcher = await house.connected(token=token("1", channels=["a"]))
        await watcher.push()
        gates.hold("add")
        client = await house.client()
        await client.command(connect={"token": token("42", subs={"a": {"data": "x" * 1000}})})
        await gates.wait_until_held("add")
        gates.open("add")
        assert (await client.wait_closed())[0] == 1006
        assert house.server.node.counters.server_disconnects == {3008: 1}
        await watcher.nothing()


async def test_a_payload_that_is_no_json_ends_a_json_connection() -> None:
    async with open_house(secured({"join_leave": True, "force_push_join_leave": True})) as house:
        watcher = await house.connected(token=token("1", channels=["a"]))
        await watcher.push()
        for claims in ({"subs": {"a": {"b64data": "AAEC"}}}, {"subs": {"a": {}, "b": {"b64data": "AAEC"}}}):
            client = await house.client()
            await client.command(connect={"token": token("42", **claims)})
            assert await client.wait_closed() == (3506, "inappropriate protocol")
        await watcher.nothing()
