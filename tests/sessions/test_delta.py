"""Patches instead of whole payloads (client protocol §6.1 to §6.3)."""

from __future__ import annotations

import json
import random
from typing import Any, final

import pytest

from broker.protocol import fossil
from tests.support.peers import House, RawClient, open_house, options, secured, token
from tests.support.slow_engine import Gates

pytestmark = pytest.mark.virtual_time

KEPT = {"history_size": 10, "history_ttl": "60s", "allowed_delta_types": ["fossil"]}
DELTA = {**KEPT, "force_recovery": True, "delta_publish": True}
LONG = "the quick brown fox jumps over the lazy dog, again and again and again, "


def text(n: int) -> dict[str, Any]:
    """A payload that differs little from the one before."""
    return {"text": LONG * 3, "n": n}


@final
class Reader:
    """What an SDK does with a delta subscription: it keeps the last payload as the base of the next patch."""

    def __init__(self, client: RawClient) -> None:
        self.client = client
        self.base = b""
        self.deltas: list[bool] = []

    def take(self, pub: dict[str, Any]) -> Any:
        """The payload of a publication, whole."""
        data = pub.get("data", b"" if self.client.protobuf else "")
        raw = data if isinstance(data, bytes) else data.encode()
        delta = pub.get("delta", False)
        self.deltas.append(delta)
        self.base = fossil.apply(self.base, raw) if delta else raw
        return json.loads(self.base)

    async def next(self) -> Any:
        return self.take((await self.client.push())["pub"])


async def subscribe(client: RawClient, channel: str = "chat", **members: Any) -> dict[str, Any]:
    return (await client.ask(subscribe={"channel": channel, **members}))["subscribe"]  # type: ignore[no-any-return]


async def reader(house: House, *, protobuf: bool = False, **members: Any) -> Reader:
    client = await house.connected(protobuf=protobuf)
    assert (await subscribe(client, delta="fossil", **members))["delta"]
    return Reader(client)


async def publish(house: House, *numbers: int, **more: Any) -> None:
    for n in numbers:
        assert "result" in await house.api("publish", channel="chat", data=text(n), **more)


# ---- who gets patches ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "delta", "granted"),
    [
        (DELTA, "fossil", True),
        (DELTA, "", False),
        ({**DELTA, "allowed_delta_types": []}, "fossil", False),
        ({"allowed_delta_types": ["fossil"]}, "fossil", True),
    ],
)
async def test_patches_are_agreed_on(rules: dict[str, Any], delta: str, granted: bool) -> None:
    async with open_house(options(rules)) as house:
        client = await house.connected()
        assert (await subscribe(client, delta=delta)).get("delta", False) is granted
        await publish(house, 1)
        data = (await client.push())["pub"]["data"]
        assert (json.loads(data) if granted else data) == text(1)


@pytest.mark.parametrize("protobuf", [False, True])
async def test_the_first_publication_is_whole_and_then_come_patches(protobuf: bool) -> None:
    async with open_house(options(DELTA)) as house:
        await publish(house, 0)
        early = await reader(house, protobuf=protobuf)
        await publish(house, 1, 2, 3)
        assert [await early.next() for _ in range(3)] == [text(1), text(2), text(3)]
        assert early.deltas == [False, True, True]
        late = await reader(house, protobuf=protobuf)
        await publish(house, 4)
        assert [await each.next() for each in (early, late)] == [text(4), text(4)]
        assert (early.deltas[-1], late.deltas[-1]) == (True, False)
        await publish(house, 5)
        assert [await each.next() for each in (early, late)] == [text(5), text(5)]
        assert (early.deltas[-1], late.deltas[-1]) == (True, True)


async def test_a_patch_that_is_no_shorter_is_not_sent() -> None:
    async with open_house(options(DELTA)) as house:
        client = await reader(house)
        for data in ("abc", "abd", "x" * 200, "y" * 200):
            await house.api("publish", channel="chat", data=data)
            assert await client.next() == data
        assert client.deltas == [False] * 4


async def test_what_was_published_without_patches_in_mind_has_no_base() -> None:
    async with open_house(options({**DELTA, "delta_publish": False})) as house:
        client = await reader(house)
        expected = []
        for n, delta in enumerate((False, True, True, False, True, True)):
            await publish(house, n, delta=delta)
            assert await client.next() == text(n)
            expected.append(delta)
        assert client.deltas == expected


async def test_clients_publish_patches_where_the_namespace_says_so() -> None:
    async with open_house(options(DELTA)) as house:
        client = await reader(house)
        publisher = await house.connected()
        for n in (1, 2):
            await publisher.ask(publish={"channel": "chat", "data": text(n)})
            pub = (await client.client.push())["pub"]
            assert client.take(pub) == text(n)
            assert pub["info"]["client"] == publisher.hello["client"]
        assert client.deltas == [False, True]


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param({**DELTA, "force_recovery": False}, id="no position"),
        pytest.param({"allowed_delta_types": ["fossil"], "delta_publish": True}, id="no history"),
    ],
)
async def test_without_a_position_everything_is_whole(rules: dict[str, Any]) -> None:
    async with open_house(options(rules)) as house:
        client = await reader(house)
        await publish(house, 1, 2, 3)
        assert [await client.next() for _ in range(3)] == [text(1), text(2), text(3)]
        assert client.deltas == [False] * 3


async def test_after_a_removed_history_the_next_one_is_whole() -> None:
    async with open_house(options(DELTA)) as house:
        client = await reader(house)
        await publish(house, 1, 2)
        await house.api("history_remove", channel="chat")
        await publish(house, 3, 4)
        assert [await client.next() for _ in range(4)] == [text(n) for n in (1, 2, 3, 4)]
        assert client.deltas == [False, True, False, True]


async def test_others_get_the_payload_as_it_is() -> None:
    async with open_house(options({**DELTA, "allow_tags_filter": True})) as house:
        patched, plain, binary = await reader(house), await house.connected(), await house.connected(protobuf=True)
        epoch = (await subscribe(plain))["epoch"]
        assert (await subscribe(binary))["epoch"] == epoch
        await publish(house, 1, 2, tags={"a": "b"}, version=7, version_epoch="x")
        await publish(house, 3)
        first = (await plain.push())["pub"]
        assert first == {"data": text(1), "offset": 1, "tags": {"a": "b"}, "version": 7, "epoch": epoch}
        assert (await plain.push())["pub"] == {"data": text(3), "offset": 2}
        assert json.loads((await binary.push())["pub"]["data"]) == text(1)
        pubs = [(await patched.client.push())["pub"] for _ in range(2)]
        assert set(pubs[0]) == {"data", "offset", "tags"}  # neither version nor epoch
        assert set(pubs[1]) == {"data", "offset", "delta"}
        assert [patched.take(pub) for pub in pubs] == [text(1), text(3)]


async def test_the_history_is_never_patched() -> None:
    async with open_house(options(DELTA)) as house:
        client = await reader(house)
        await publish(house, 1, 2)
        assert [await client.next() for _ in range(2)] == [text(1), text(2)]
        history = (await client.client.ask(history={"channel": "chat", "limit": -1}))["history"]
        assert [pub["data"] for pub in history["publications"]] == [text(1), text(2)]


# ---- recovery -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protobuf", [False, True])
async def test_what_was_missed_is_one_payload_and_patches(protobuf: bool) -> None:
    async with open_house(options(DELTA)) as house:
        await publish(house, 1, 2, 3)
        client = await house.connected(protobuf=protobuf)
        result = await subscribe(client, delta="fossil", recover=True)
        back = Reader(client)
        assert [back.take(pub) for pub in result["publications"]] == [text(1), text(2), text(3)]
        assert back.deltas == [False, True, True]
        await publish(house, 4, 5)
        assert [await back.next() for _ in range(2)] == [text(4), text(5)]
        assert back.deltas[-1]


async def test_who_missed_nothing_gets_a_whole_payload_first() -> None:
    """Centrifugo sends a patch at once, which a client that has lost its base cannot apply."""
    async with open_house(options(DELTA)) as house:
        await publish(house, 1)
        client = await house.connected()
        assert (await subscribe(client, delta="fossil", recover=True, offset=1))["recovered"]
        back = Reader(client)
        await publish(house, 2, 3)
        assert [await back.next() for _ in range(2)] == [text(2), text(3)]
        assert back.deltas == [False, True]


async def test_who_cannot_recover_gets_a_whole_payload_first() -> None:
    async with open_house(options(DELTA)) as house:
        await publish(house, 1)
        client = await house.connected()
        assert "recovered" not in await subscribe(client, delta="fossil", recover=True, epoch="other")
        back = Reader(client)
        await publish(house, 2, 3)
        assert [await back.next() for _ in range(2)] == [text(2), text(3)]
        assert back.deltas == [False, True]


async def test_the_latest_of_a_cache_is_whole() -> None:
    async with open_house(options({**DELTA, "force_recovery_mode": "cache", "auto_cache_recover": True})) as house:
        await publish(house, 1, 2)
        client = await house.connected()
        result = await subscribe(client, delta="fossil")
        back = Reader(client)
        assert [back.take(pub) for pub in result["publications"]] == [text(2)]
        await publish(house, 3, 4)
        assert [await back.next() for _ in range(2)] == [text(3), text(4)]
        assert back.deltas[-1]


async def test_patches_go_on_from_what_was_published_meanwhile() -> None:
    gates = Gates()
    async with open_house(options(DELTA), pace=gates) as house:
        await publish(house, 1)
        client = await house.connected()
        gates.hold("history done")
        await client.command(subscribe={"channel": "chat", "delta": "fossil", "recover": True})
        await gates.wait_until_held("history done")
        await publish(house, 2, 3)
        gates.open("history done")
        back = Reader(client)
        pubs = (await client.next())["subscribe"]["publications"]
        assert [back.take(pub) for pub in pubs] == [text(1), text(2), text(3)]
        await publish(house, 4)
        assert await back.next() == text(4)


# ---- server-side subscriptions ------------------------------------------------------------------------------------


async def test_a_connect_may_agree_on_patches_too() -> None:
    async with open_house(secured(DELTA)) as house:
        asked = {"chat": {"delta": "fossil"}, "plain": {}, "odd": {"delta": "zip"}}
        client = await house.connected(token=token("42", channels=["chat", "plain", "odd"]), subs=asked)
        assert {name: sub.get("delta", False) for name, sub in client.hello["subs"].items()} == {
            "chat": True,
            "plain": False,
            "odd": False,
        }
        served = Reader(client)
        await publish(house, 1, 2)
        assert [await served.next() for _ in range(2)] == [text(1), text(2)]
        assert served.deltas == [False, True]
        back = await house.connected(
            token=token("42", channels=["chat"]), subs={"chat": {"delta": "fossil", "recover": True}}
        )
        again = Reader(back)
        assert [again.take(pub) for pub in back.hello["subs"]["chat"]["publications"]] == [text(1), text(2)]
        assert again.deltas == [False, True]


async def test_a_subscription_by_the_api_has_no_patches() -> None:
    async with open_house(secured(DELTA)) as house:
        client = await house.connected(token=token("42"))
        await house.api("subscribe", user="42", channel="chat")
        await client.push()
        await publish(house, 1, 2)
        assert [(await client.push())["pub"]["data"] for _ in range(2)] == [text(1), text(2)]


# ---- many of everything -------------------------------------------------------------------------------------------


async def test_readers_of_every_kind_read_the_same() -> None:
    """Payloads of all shapes, readers who come and go, few and many, in rounds of the pump and one by one."""
    rng = random.Random(7)
    alphabet = ["a", "b", "ß", "€", "😀", '"', "\\", "\n", LONG]
    async with open_house(options({**DELTA, "history_size": 3})) as house:
        readers = [await reader(house, protobuf=bool(n % 2)) for n in range(24)]
        payload = ""
        for _ in range(60):
            cut = rng.randrange(len(payload) + 1)
            payload = payload[:cut] + rng.choice(alphabet) + payload[cut + rng.randrange(4) :]
            published = [payload, payload + "!"][: rng.randrange(1, 3)]
            for data in published:
                await house.api("publish", channel="chat", data=data)
            for each in readers:
                assert [await each.next() for _ in published] == published
            if rng.random() < 0.2:
                await readers.pop(rng.randrange(len(readers))).client.leave()
                readers.append(await reader(house, protobuf=rng.random() < 0.5))
        assert sum(sum(each.deltas) for each in readers) > 200
