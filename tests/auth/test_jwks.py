"""Key sets: what is kept, when it is asked for again, and who waits for whom. Time is the test's; servers are real
where what goes over the wire matters."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from broker.auth import KeysUnavailable, TokenInvalid, TokenOptions, TokenVerifier, make_token
from broker.auth.jwks import KeySets
from broker.auth.keys import KeySet
from broker.eager import begin, go_on
from broker.http1 import FetchError
from broker.protocol import codes
from broker.values import Secret

NOW = 1_700_000_000
RSA = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
EC = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "P-521": ec.generate_private_key(ec.SECP521R1()),
}
ED = ed25519.Ed25519PrivateKey.generate()
URL = "https://keys.example/jwks"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, size: int) -> str:
    return b64(value.to_bytes(size, "big"))


def rsa_jwk(kid: str = "rsa", which: int = 0, **more: Any) -> dict[str, Any]:
    numbers = RSA[which].public_key().public_numbers()
    return {"kty": "RSA", "kid": kid, "use": "sig", "n": number(numbers.n, 256), "e": "AQAB", **more}


def ec_jwk(curve: str = "P-256", kid: str = "ec", **more: Any) -> dict[str, Any]:
    numbers = EC[curve].public_key().public_numbers()
    size = (EC[curve].key_size + 7) // 8
    point = {"x": number(numbers.x, size), "y": number(numbers.y, size)}
    return {"kty": "EC", "kid": kid, "use": "sig", "crv": curve, **point, **more}


def ed_jwk(kid: str = "ed", **more: Any) -> dict[str, Any]:
    raw = ED.public_key().public_bytes_raw()
    return {"kty": "OKP", "kid": kid, "use": "sig", "crv": "Ed25519", "x": b64(raw), **more}


def jwks(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


def hash_of(bits: str) -> hashes.HashAlgorithm:
    return {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[bits]


def token(kid: str, algorithm: str = "RS256", which: int = 0, claims: Any = None, **header: Any) -> str:
    parts = ({"alg": algorithm, "kid": kid, **header}, {"sub": "42", **(claims or {})})
    signed = ".".join(b64(json.dumps(part).encode()) for part in parts)
    if algorithm == "EdDSA":
        signature = ED.sign(signed.encode())
    elif algorithm.startswith("ES"):
        key = EC[{"256": "P-256", "384": "P-384", "512": "P-521"}[algorithm[2:]]]
        size = (key.key_size + 7) // 8
        r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hash_of(algorithm[2:]))))
        signature = r.to_bytes(size, "big") + s.to_bytes(size, "big")
    else:
        signature = RSA[which].sign(signed.encode(), padding.PKCS1v15(), hash_of(algorithm[2:]))
    return signed + "." + b64(signature)


# ---- sets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [
        (rsa_jwk(), {"RS256", "RS384", "RS512"}),
        (rsa_jwk(alg="RS384"), {"RS384"}),
        (rsa_jwk(key_ops=["verify"]), {"RS256", "RS384", "RS512"}),
        (rsa_jwk(x5c=["broken"], unknown={}), {"RS256", "RS384", "RS512"}),
        (ec_jwk("P-256"), {"ES256"}),
        (ec_jwk("P-384"), {"ES384"}),
        (ec_jwk("P-521", alg="ES512"), {"ES512"}),
        (ed_jwk(), {"EdDSA"}),
        (ed_jwk(alg="EdDSA"), {"EdDSA"}),
        (ed_jwk(alg="Ed25519"), {"EdDSA"}),
    ],
)
def test_a_key_says_what_it_is_for(jwk: dict[str, Any], algorithms: set[str]) -> None:
    key = KeySet(jwks(jwk)).get(jwk["kid"])
    assert key is not None
    assert key.algorithms == algorithms


BAD_KEYS: list[Any] = [
    None,
    1,
    [],
    "key",
    {},
    {**rsa_jwk(), "use": "enc"},
    {name: value for name, value in rsa_jwk().items() if name != "use"},
    {**rsa_jwk(), "kid": ""},
    {**rsa_jwk(), "kid": 1},
    rsa_jwk(alg="PS256"),
    rsa_jwk(alg="HS256"),
    rsa_jwk(alg=1),
    rsa_jwk(alg=["RS256"]),
    rsa_jwk(key_ops=["sign"]),
    rsa_jwk(key_ops="verify"),
    rsa_jwk(key_ops=1),
    rsa_jwk(n="AQAB"),
    rsa_jwk(n="?"),
    rsa_jwk(n=1),
    rsa_jwk(e="AA"),
    {"kty": "RSA", "kid": "rsa", "use": "sig"},
    {"kty": "oct", "kid": "rsa", "use": "sig", "k": "c2VjcmV0"},
    {"kty": "AKP", "kid": "rsa", "use": "sig"},
    ec_jwk(kid="rsa", crv="P-999"),
    ec_jwk(kid="rsa", crv="secp256k1"),
    ec_jwk(kid="rsa", crv="P-384"),
    ec_jwk(kid="rsa", alg="ES384"),
    ec_jwk(kid="rsa", x="AA"),
    ed_jwk(kid="rsa", crv="X25519"),
    ed_jwk(kid="rsa", crv="Ed448"),
    ed_jwk(kid="rsa", x="AA"),
]


@pytest.mark.parametrize("bad", BAD_KEYS)
def test_a_bad_key_is_no_key_and_spoils_no_other(bad: Any) -> None:
    keys = KeySet(jwks(bad, ec_jwk(kid="good"), bad))
    assert keys.get("rsa") is None
    assert keys.get("") is None
    assert keys.get("good") is not None


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":null}', b"<html>", b"\xff", b"[" * 5000])
def test_what_is_no_key_set(body: bytes) -> None:
    with pytest.raises(ValueError, match="not a key set"):
        KeySet(body)


def test_an_empty_set_is_a_set() -> None:
    assert KeySet(b'{"keys":[]}').get("a") is None


# ---- fetching, on the test's clock --------------------------------------------------------------------------------


@attrs.define
class Source:
    """Stands for the network. `body` is what is there now, None for nothing; `gate` holds answers back."""

    body: bytes | None
    gate: trio.Event | None = None
    asked: list[str] = attrs.field(factory=list)
    arrived: trio.Event = attrs.field(factory=trio.Event)

    async def __call__(self, url: str, deadline: float) -> bytes:
        self.asked.append(url)
        self.arrived.set()
        if self.gate is not None:
            await self.gate.wait()
        await trio.lowlevel.checkpoint()
        if self.body is None:
            raise FetchError("nobody there")
        return self.body


async def test_a_set_is_fetched_once_an_hour(mock_clock: trio.testing.MockClock) -> None:
    source = Source(jwks(rsa_jwk()))
    sets = KeySets(source)
    key, seconds = await sets.key(URL, "rsa")
    assert seconds == 3600
    mock_clock.jump(3599)
    assert await sets.key(URL, "rsa") == (key, pytest.approx(1))  # use does not prolong its life
    assert len(source.asked) == 1
    mock_clock.jump(1)
    source.body = jwks(rsa_jwk(kid="new"))
    with pytest.raises(TokenInvalid):
        await sets.key(URL, "rsa")  # it was taken back
    assert len(source.asked) == 2
    await sets.key(URL, "new")
    assert len(source.asked) == 2


async def test_a_key_that_is_known_costs_no_wait() -> None:
    sets = KeySets(Source(jwks(rsa_jwk())))
    await sets.key(URL, "rsa")
    ended, known = begin(sets.key(URL, "rsa"))
    assert ended
    assert known is not None


async def test_a_fetch_moves_to_its_own_task_first() -> None:
    coroutine = KeySets(Source(jwks(rsa_jwk()))).key(URL, "rsa")
    assert begin(coroutine) == (False, None)
    key, _ = await go_on(coroutine)
    assert "RS256" in key.algorithms


async def test_unknown_keys_are_asked_for_every_thirty_seconds_at_most(mock_clock: trio.testing.MockClock) -> None:
    source = Source(jwks(rsa_jwk()))
    sets = KeySets(source)
    for invented in range(100):
        with pytest.raises(TokenInvalid):
            await sets.key(URL, f"invented {invented}")
    assert len(source.asked) == 1
    mock_clock.jump(29.9)
    with pytest.raises(TokenInvalid):
        begin(sets.key(URL, "next"))  # refused on the spot
    mock_clock.jump(0.1)
    source.body = jwks(rsa_jwk(), rsa_jwk(kid="next", which=1))
    assert (await sets.key(URL, "next"))[0] != (await sets.key(URL, "rsa"))[0]
    assert len(source.asked) == 2


async def test_each_address_has_its_own_keys() -> None:
    source = Source(jwks(rsa_jwk(kid="default")))
    sets = KeySets(source)
    first, _ = await sets.key(URL + "/a", "default")
    source.body = jwks(rsa_jwk(kid="default", which=1))
    second, _ = await sets.key(URL + "/b", "default")
    assert first != second
    assert await sets.key(URL + "/a", "default") == (first, pytest.approx(3600, abs=1))
    assert source.asked == [URL + "/a", URL + "/b"]


async def test_a_failure_is_told_as_one_and_tried_again_later(mock_clock: trio.testing.MockClock) -> None:
    source = Source(None)
    sets = KeySets(source)
    with pytest.raises(KeysUnavailable) as failure:
        await sets.key(URL, "rsa")
    assert failure.value.error is codes.INTERNAL  # clients try again
    assert len(source.asked) == 2  # two tries
    mock_clock.jump(2.9)
    with pytest.raises(KeysUnavailable):
        begin(sets.key(URL, "rsa"))
    assert len(source.asked) == 2
    mock_clock.jump(0.1)
    source.body = jwks(rsa_jwk())
    await sets.key(URL, "rsa")
    assert len(source.asked) == 3


async def test_a_second_try_helps() -> None:
    answers = [FetchError("cut off"), jwks(rsa_jwk())]

    async def fetch(url: str, deadline: float) -> bytes:
        await trio.lowlevel.checkpoint()
        answer = answers.pop(0)
        if isinstance(answer, bytes):
            return answer
        raise answer

    await KeySets(fetch).key(URL, "rsa")
    assert answers == []


async def test_what_is_no_key_set_is_a_failure_and_changes_nothing(mock_clock: trio.testing.MockClock) -> None:
    source = Source(jwks(rsa_jwk()))
    sets = KeySets(source)
    await sets.key(URL, "rsa")
    mock_clock.jump(60)
    source.body = b"<html>we are down</html>"
    with pytest.raises(KeysUnavailable):
        await sets.key(URL, "other")
    await sets.key(URL, "rsa")


async def test_old_keys_count_an_hour_longer_while_the_server_is_down(mock_clock: trio.testing.MockClock) -> None:
    source = Source(jwks(rsa_jwk()))
    sets = KeySets(source)
    key, _ = await sets.key(URL, "rsa")
    source.body = None
    mock_clock.jump(3600)
    assert await sets.key(URL, "rsa") == (key, 3)  # until it is tried again
    assert len(source.asked) == 3
    ended, known = begin(sets.key(URL, "rsa"))
    assert (ended, known) == (True, (key, 3))
    mock_clock.jump(3599)
    assert (await sets.key(URL, "rsa"))[0] == key
    mock_clock.jump(3)
    with pytest.raises(KeysUnavailable):
        await sets.key(URL, "rsa")


async def test_many_who_wait_ask_once(autojump_clock: trio.testing.MockClock) -> None:
    source = Source(jwks(rsa_jwk(), ec_jwk()), gate=trio.Event())
    sets = KeySets(source)
    results: list[object] = []

    async def one(kid: str) -> None:
        try:
            results.append((await sets.key(URL, kid))[0])
        except TokenInvalid:
            results.append(kid)

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            for kid in ("rsa", "ec", "invented"):
                nursery.start_soon(one, kid)
        await trio.testing.wait_all_tasks_blocked()
        assert source.gate is not None
        source.gate.set()
    assert len(results) == 150
    assert results.count("invented") == 50
    assert len(source.asked) == 1


async def test_many_who_wait_for_a_server_that_is_down_fail_together(autojump_clock: trio.testing.MockClock) -> None:
    source = Source(jwks(rsa_jwk()), gate=trio.Event())  # accepts and says nothing
    sets = KeySets(source)
    failed = 0

    async def one() -> None:
        nonlocal failed
        with pytest.raises(KeysUnavailable):
            await sets.key(URL, "rsa")
        failed += 1

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(one)
    assert failed == 50
    assert trio.current_time() == pytest.approx(2)


async def test_whoever_began_a_fetch_may_go(autojump_clock: trio.testing.MockClock) -> None:
    source = Source(jwks(rsa_jwk()), gate=trio.Event())
    sets = KeySets(source)
    got: list[object] = []

    scope = trio.CancelScope()

    async def leader() -> None:
        with scope:
            await sets.key(URL, "rsa")
            await trio.lowlevel.checkpoint()
            got.append("the leader went on")

    async def follower() -> None:
        got.append(await sets.key(URL, "rsa"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leader)
        await source.arrived.wait()
        nursery.start_soon(follower)
        nursery.start_soon(follower)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert source.gate is not None
        source.gate.set()
    assert [type(each) for each in got] == [tuple, tuple]
    assert len(source.asked) == 1  # and hanging up made nobody ask again


async def test_who_waits_may_go_and_hold_up_nobody(autojump_clock: trio.testing.MockClock) -> None:
    source = Source(jwks(rsa_jwk()), gate=trio.Event())
    sets = KeySets(source)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sets.key, URL, "rsa")
        await source.arrived.wait()
        with trio.move_on_after(0.5) as scope:
            await sets.key(URL, "rsa")
        assert scope.cancelled_caught
        assert source.gate is not None
        source.gate.set()
    await sets.key(URL, "rsa")
    assert len(source.asked) == 1


async def test_the_number_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.auth.jwks._MOST_ADDRESSES", 3)
    sets = KeySets(Source(jwks(rsa_jwk())))
    for number in range(10):
        await sets.key(f"{URL}/{number}", "rsa")
    assert len(sets._sets) <= 3


# ---- the whole way, with a real server ----------------------------------------------------------------------------


@attrs.define
class Server:
    """A key server; `answer` is called with the path and gives the whole HTTP answer."""

    answer: Callable[[str], bytes]
    paths: list[str] = attrs.field(factory=list)
    port: int = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request:
                request += await stream.receive_some()
            path = request.split(b" ", 2)[1].decode()
            self.paths.append(path)
            await stream.send_all(self.answer(path))


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@asynccontextmanager
async def serving(answer: Callable[[str], bytes]) -> AsyncIterator[Server]:
    server = Server(answer)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.port = listeners[0].socket.getsockname()[1]
        await nursery.start(trio.serve_listeners, server.serve, listeners)
        yield server
        nursery.cancel_scope.cancel()


def verifier(
    server: Server, path: str = "/jwks", clock: Callable[[], float] | None = None, **options: Any
) -> TokenVerifier:
    endpoint = f"http://127.0.0.1:{server.port}{path}"
    return TokenVerifier(
        TokenOptions(jwks_public_endpoint=endpoint, **options), wall_clock=clock or (lambda: float(NOW))
    )


Verify = Callable[[str], Awaitable[Any]]


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA"])
async def test_every_algorithm_of_a_set(algorithm: str) -> None:
    keys = [rsa_jwk("RS256"), rsa_jwk("RS384"), rsa_jwk("RS512"), ed_jwk("EdDSA")]
    keys += [ec_jwk("P-256", "ES256"), ec_jwk("P-384", "ES384"), ec_jwk("P-521", "ES512")]
    async with serving(lambda _: ok(jwks(*keys))) as server:
        of = verifier(server)
        assert (await of.verify_connection(token(algorithm, algorithm))).user == "42"
        claims = {"channel": "news"}
        assert (await of.verify_subscription(token(algorithm, algorithm, claims=claims))).channel == "news"
        for kid in {key["kid"] for key in keys} - {algorithm}:
            if not (kid.startswith("RS") and algorithm.startswith("RS")):
                with pytest.raises(TokenInvalid):
                    await of.verify_connection(token(kid, algorithm))
    assert server.paths == ["/jwks"]


async def test_what_never_reaches_the_key_server() -> None:
    async with serving(lambda _: ok(jwks(rsa_jwk()))) as server:
        of = verifier(server, hmac_secret_key=Secret("ignored"), issuer_regex="^me$")
        for forged in (
            token("rsa"),  # another issuer
            token("", claims={"iss": "me"}),  # no key id
            make_token({"iss": "me"}, "ignored"),  # static keys do not count
            token("rsa", claims={"iss": "me", "exp": "soon"}),
            token("rsa", claims={"iss": "me"}, crit=["x"]),
            token("rsa", claims={"iss": "me"}) + ".",
            *(token("rsa", name, claims={"iss": "me"}) for name in ("HS256", "PS256")),
        ):
            with pytest.raises(TokenInvalid):
                await of.verify_connection(forged)
        assert server.paths == []
        assert (await of.verify_connection(token("rsa", claims={"iss": "me"}))).user == "42"


async def test_another_key_under_a_known_id() -> None:
    async with serving(lambda _: ok(jwks(rsa_jwk()))) as server:
        with pytest.raises(TokenInvalid):
            await verifier(server).verify_connection(token("rsa", which=1))


async def test_tenants_have_their_own_keys_and_only_they() -> None:
    sets = {"/one/jwks": jwks(rsa_jwk("default", 0)), "/two/jwks": jwks(rsa_jwk("default", 1))}
    async with serving(lambda path: ok(sets[path])) as server:
        of = verifier(server, "/{{tenant}}/jwks", issuer_regex=r"^https://id\.example/(?P<tenant>one|two)$")

        async def user(tenant: str, which: int) -> str:
            claims = {"iss": f"https://id.example/{tenant}"}
            return (await of.verify_connection(token("default", which=which, claims=claims))).user

        assert await user("one", 0) == "42"
        assert await user("two", 1) == "42"
        for tenant, which in (("one", 1), ("two", 0), ("three", 0), ("one/../two", 1), ("", 0)):
            with pytest.raises(TokenInvalid):
                await user(tenant, which)
        assert sorted(server.paths) == ["/one/jwks", "/two/jwks"]


async def test_rotation_of_keys(mock_clock: trio.testing.MockClock) -> None:
    published = [rsa_jwk("old", 0)]
    async with serving(lambda _: ok(jwks(*published))) as server:
        of = verifier(server)
        old, new = token("old", which=0), token("new", which=1)
        await of.verify_connection(old)
        published[:] = [rsa_jwk("old", 0), rsa_jwk("new", 1)]
        with pytest.raises(TokenInvalid):
            await of.verify_connection(new)  # asked a moment ago
        mock_clock.jump(30)
        await of.verify_connection(new)
        published[:] = [rsa_jwk("new", 1)]
        await of.verify_connection(old)
    assert len(server.paths) == 2


async def test_a_remembered_token_does_not_outlive_its_key(mock_clock: trio.testing.MockClock) -> None:
    published = [rsa_jwk("old", 0)]

    def wall_clock() -> float:
        return NOW + trio.current_time()

    async with serving(lambda _: ok(jwks(*published))) as server:
        of = verifier(server, clock=wall_clock)
        text = token("old")
        await of.verify_connection(text)
        published.clear()
        mock_clock.jump(3599)
        ended, claims = begin(of.verify_connection(text))
        assert ended
        assert claims is not None
        mock_clock.jump(2)
        with pytest.raises(TokenInvalid):
            await of.verify_connection(text)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
        ok(jwks(rsa_jwk())).replace(b"200 OK", b"404 Not Found"),
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        ok(b"<html>"),
        ok(jwks(rsa_jwk())[:-1]),
        b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (256 * 1024 + 1) + jwks(rsa_jwk()),
        b"not http at all",
    ],
    ids=["redirect", "404", "500", "empty", "html", "cut json", "too large", "not http"],
)
async def test_answers_that_are_no_key_set(answer: bytes) -> None:
    async with serving(lambda _: answer) as server:
        with pytest.raises(KeysUnavailable):
            await verifier(server).verify_connection(token("rsa"))
    assert set(server.paths) == {"/jwks"}


async def test_nobody_there() -> None:
    async with serving(lambda _: b"") as server:
        pass
    with pytest.raises(KeysUnavailable):
        await verifier(server).verify_connection(token("rsa"))


def test_placeholders_are_checked_at_start() -> None:
    options = {"jwks_public_endpoint": "https://{{host}}/jwks", "issuer_regex": "^https://(?P<host>.+)$"}
    with pytest.raises(ValueError, match=r"jwks_public_endpoint: .*host"):
        TokenVerifier(TokenOptions(**options), wall_clock=lambda: NOW)
    TokenVerifier(TokenOptions(insecure_skip_jwks_endpoint_safety_check=True, **options), wall_clock=lambda: NOW)
