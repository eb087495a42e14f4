"""Forged, odd and genuine tokens. Tokens are made here by hand, so that nothing of the broker vouches for itself."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hmac
import json
import sys
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from broker.auth import (
    ConnectToken,
    SubscriptionClaims,
    SubscriptionToken,
    SubscriptionTokenOptions,
    TokenExpired,
    TokenInvalid,
    TokenOptions,
    TokenVerifier,
    make_token,
)
from broker.channels import Override
from broker.eager import begin
from broker.values import Secret

NOW = 1_700_000_000
SECRET = "the secret"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = {256: ec.generate_private_key(ec.SECP256R1()), 384: ec.generate_private_key(ec.SECP384R1())}
EC[512] = ec.generate_private_key(ec.SECP521R1())
OTHER_EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()

Sign = Callable[[bytes], bytes]


def pem(key: Any) -> str:
    public = key.public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(public.public_bytes(serialization.Encoding.PEM, form), "ascii")


def hash_of(bits: int) -> hashes.HashAlgorithm:
    return {256: hashes.SHA256(), 384: hashes.SHA384(), 512: hashes.SHA512()}[bits]


def hs(secret: str | bytes = SECRET, bits: int = 256) -> Sign:
    key = secret.encode() if isinstance(secret, str) else secret
    return lambda signed: hmac.digest(key, signed, f"sha{bits}")


def rs(key: rsa.RSAPrivateKey = RSA, bits: int = 256) -> Sign:
    return lambda signed: key.sign(signed, padding.PKCS1v15(), hash_of(bits))


def ps(signed: bytes) -> bytes:
    return RSA.sign(signed, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())


def es(key: ec.EllipticCurvePrivateKey = EC[256], bits: int = 256) -> Sign:
    def sign(signed: bytes) -> bytes:
        size = (key.key_size + 7) // 8
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hash_of(bits))))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    return sign


def es_der(signed: bytes) -> bytes:
    return EC[256].sign(signed, ec.ECDSA(hashes.SHA256()))


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(header: Any, claims: Any, sign: Sign) -> str:
    """Header and claims are bytes, taken as they are, or JSON values."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    signed = ".".join(map(b64, parts))
    return signed + "." + b64(sign(signed.encode()))


def genuine(claims: Any = None, **header: Any) -> str:
    return token({"alg": "HS256", **header}, {"sub": "42"} if claims is None else claims, hs())


@attrs.define
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


ALL_KEYS = TokenOptions(hmac_secret_key=Secret(SECRET), rsa_public_key=pem(RSA), ecdsa_public_key=pem(EC[256]))


def verifier(options: TokenOptions = ALL_KEYS, clock: Clock | None = None, **more: Any) -> TokenVerifier:
    return TokenVerifier(options, wall_clock=clock or Clock(), **more)


def connection(text: str, of: TokenVerifier | None = None) -> ConnectToken:
    """Verified as the reader would: at once, without a wait."""
    ended, claims = begin((of or verifier()).verify_connection(text))
    assert ended
    assert claims is not None
    return claims


def subscription(text: str, of: TokenVerifier | None = None) -> SubscriptionToken:
    ended, claims = begin((of or verifier()).verify_subscription(text))
    assert ended
    assert claims is not None
    return claims


# ---- forged -------------------------------------------------------------------------------------------------------


def flip(text: str, part: int) -> str:
    """Change one bit in the middle of a part."""
    parts = text.split(".")
    data = bytearray(base64.urlsafe_b64decode(parts[part] + "=="))
    data[len(data) // 2] ^= 1
    parts[part] = b64(bytes(data))
    return ".".join(parts)


DER = RSA.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
OWN_JWK = {"kty": "RSA", "n": b64(OTHER_RSA.public_key().public_numbers().n.to_bytes(256, "big")), "e": "AQAB"}
CLAIMS = {"sub": "42"}
DEEP = b"[" * 5000 + b"]" * 5000

FORGED: dict[str, str] = {
    # form
    "empty": "",
    "dots": "..",
    "one part": b64(b"{}"),
    "two parts": ".".join(genuine().split(".")[:2]),
    "four parts": genuine() + ".",
    "five parts": ".".join([b64(b'{"alg":"dir","enc":"A128GCM"}'), "", "", "", ""]),
    "json form": json.dumps({"payload": b64(b"{}"), "signatures": []}),
    "bearer": "Bearer " + genuine(),
    "space before": " " + genuine(),
    "space after": genuine() + " ",
    "line break after": genuine() + "\n",
    "four line breaks after": genuine() + "\n\n\n\n",
    "four other characters after": genuine() + "!!!!",
    "line break inside": genuine()[:9] + "\n" + genuine()[9:],
    "zero byte": genuine() + "\0",
    "not ascii": genuine() + "é",
    "not ascii in payload": genuine().replace(".", ".é", 1),
    "lone surrogate": genuine() + "\ud800",
    "padded": genuine().replace(".", "=.", 1),
    "padded signature": genuine() + "=",
    "plain base64": token({"alg": "HS256"}, {"sub": "?>?>?>~~"}, hs()).replace("-", "+").replace("_", "/"),
    "cut base64": genuine()[:-2],
    "too long": genuine({"sub": "42", "info": "x" * 16_384}),
    "no signature": genuine().rpartition(".")[0] + ".",
    "no header": "." + genuine().partition(".")[2],
    "no payload": token({"alg": "HS256"}, b"", hs()),
    "header not json": token(b"alg", CLAIMS, hs()),
    "header a list": token(["HS256"], CLAIMS, hs()),
    "header with bom": token(b'\xef\xbb\xbf{"alg":"HS256"}', CLAIMS, hs()),
    "header not utf-8": token(b'{"alg":"HS256","kid":"\xff"}', CLAIMS, hs()),
    "payload a list": genuine([]),
    "payload a string": genuine("sub"),
    "payload null": token({"alg": "HS256"}, b"null", hs()),
    "payload twice": token({"alg": "HS256"}, b'{"sub":"42"}{}', hs()),
    "payload cut": token({"alg": "HS256"}, b'{"sub":"42"', hs()),
    "payload not utf-8": token({"alg": "HS256"}, b'{"info":"\xff"}', hs()),
    # algorithm
    "none": token({"alg": "none"}, CLAIMS, lambda _: b""),
    "none in other case": token({"alg": "nOnE"}, CLAIMS, lambda _: b""),
    "none with a signature": token({"alg": "none"}, CLAIMS, hs()),
    "alg missing": token({"typ": "JWT"}, CLAIMS, hs()),
    "alg null": token({"alg": None}, CLAIMS, hs()),
    "alg empty": token({"alg": ""}, CLAIMS, hs()),
    "alg a number": token({"alg": 256}, CLAIMS, hs()),
    "alg a list": token({"alg": ["HS256"]}, CLAIMS, hs()),
    "alg in lower case": token({"alg": "hs256"}, CLAIMS, hs()),
    "alg with a space": token({"alg": "HS256 "}, CLAIMS, hs()),
    "alg twice, none last": token(b'{"alg":"HS256","alg":"none"}', CLAIMS, hs()),
    "another hash": token({"alg": "HS512"}, CLAIMS, hs(bits=256)),
    "rsa key as secret": token({"alg": "HS256"}, CLAIMS, hs(pem(RSA))),
    "rsa key, stripped, as secret": token({"alg": "HS256"}, CLAIMS, hs(pem(RSA).strip())),
    "rsa key in der as secret": token({"alg": "HS256"}, CLAIMS, hs(DER)),
    "ec key as secret": token({"alg": "HS256"}, CLAIMS, hs(pem(EC[256]))),
    "empty secret": token({"alg": "HS256"}, CLAIMS, hs(b"")),
    "secret as signature of rsa": token({"alg": "RS256"}, CLAIMS, hs()),
    "secret as signature of ec": token({"alg": "ES256"}, CLAIMS, hs()),
    "rsa-pss": token({"alg": "PS256"}, CLAIMS, ps),
    "rsa-pss called rs256": token({"alg": "RS256"}, CLAIMS, ps),
    "eddsa without its key": token({"alg": "EdDSA"}, CLAIMS, ED.sign),
    # signature
    "bit of header": flip(genuine(kid="some key"), 0),
    "bit of payload": flip(genuine(), 1),
    "bit of signature": flip(genuine(), 2),
    "half a signature": token({"alg": "HS256"}, CLAIMS, lambda signed: hs()(signed)[:16]),
    "long signature": token({"alg": "HS256"}, CLAIMS, lambda signed: hs()(signed) + b"\0"),
    "signature of another token": genuine({"sub": "1"}).rpartition(".")[0] + "." + genuine().rpartition(".")[2],
    "another secret": token({"alg": "HS256"}, CLAIMS, hs("another")),
    "another rsa key": token({"alg": "RS256"}, CLAIMS, rs(OTHER_RSA)),
    "another ec key": token({"alg": "ES256"}, CLAIMS, es(OTHER_EC)),
    "rsa signature of zeros": token({"alg": "RS256"}, CLAIMS, lambda _: bytes(256)),
    "rsa signature too short": token({"alg": "RS256"}, CLAIMS, lambda _: b"\1"),
    "rsa signature too long": token({"alg": "RS256"}, CLAIMS, lambda _: bytes(512)),
    "ec signature of zeros": token({"alg": "ES256"}, CLAIMS, lambda _: bytes(64)),
    "ec signature of ones": token({"alg": "ES256"}, CLAIMS, lambda _: b"\xff" * 64),
    "ec signature in der": token({"alg": "ES256"}, CLAIMS, es_der),
    "ec signature cut": token({"alg": "ES256"}, CLAIMS, lambda signed: es()(signed)[:63]),
    "ec hash of another size": token({"alg": "ES384"}, CLAIMS, es(bits=384)),
    "ec hash of another size, called es256": token({"alg": "ES256"}, CLAIMS, es(bits=384)),
    # keys that a token brings along
    "own key in header": token({"alg": "RS256", "jwk": OWN_JWK}, CLAIMS, rs(OTHER_RSA)),
    "own key set": token({"alg": "RS256", "jku": "http://127.0.0.1:1/", "kid": "a"}, CLAIMS, rs(OTHER_RSA)),
    "own certificate": token({"alg": "RS256", "x5u": "http://127.0.0.1:1/"}, CLAIMS, rs(OTHER_RSA)),
    "own certificate inside": token({"alg": "RS256", "x5c": ["MII"]}, CLAIMS, rs(OTHER_RSA)),
    "key id as path": token({"alg": "HS256", "kid": "../../dev/null"}, CLAIMS, hs(b"")),
    "key id as sql": token({"alg": "HS256", "kid": "' UNION SELECT 'a"}, CLAIMS, hs("a")),
    "key id a number": genuine(kid=1),
    # extensions
    "critical exp": genuine(crit=["exp"]),
    "critical unknown": genuine(crit=["http://example.com/x"], **{"http://example.com/x": True}),
    "critical b64": genuine(crit=["b64"], b64=False),
    "critical nothing": genuine(crit=[]),
    "critical null": genuine(crit=None),
    # claims
    "exp not a number": genuine({"exp": "soon"}),
    "exp true": genuine({"exp": True}),
    "exp an object": genuine({"exp": {}}),
    "exp out of range": genuine({"exp": 1e30}),
    "exp far out of range": token({"alg": "HS256"}, b'{"exp":' + b"9" * 5000 + b"}", hs()),
    "exp infinite": token({"alg": "HS256"}, b'{"exp":1e999}', hs()),
    "exp not json": token({"alg": "HS256"}, b'{"exp":NaN}', hs()),
    "exp in quotes, infinite": genuine({"exp": "inf"}),
    "exp in quotes, with a line break": genuine({"exp": f"{NOW + 1}\n"}),
    "exp in other digits": genuine({"exp": "١٢٣٤٥٦٧٨٩٠"}),
    "nbf out of range": genuine({"nbf": -1e30}),
    "nbf a list": genuine({"nbf": [1]}),
    "sub a number": genuine({"sub": 42}),
    "sub an object": genuine({"sub": {}}),
    "sub half a surrogate": token({"alg": "HS256"}, rb'{"sub":"\ud800"}', hs()),
    "iss a list": genuine({"iss": ["a"]}),
    "aud a number": genuine({"aud": 1}),
    "aud of numbers": genuine({"aud": [1]}),
    "channel a number": genuine({"channel": 1}),
    "channel": genuine({"sub": "42", "channel": "news"}),
    "channel, and expired": genuine({"sub": "42", "channel": "news", "exp": NOW - 1}),
    "info not base64": genuine({"b64info": "a b="}),
    "info in base64url": genuine({"b64info": "_-8="}),
    "info in base64 without padding": genuine({"b64info": "QQ"}),
    "channels a string": genuine({"channels": "news"}),
    "channels of numbers": genuine({"channels": [1]}),
    "subs a list": genuine({"subs": ["news"]}),
    "subs of strings": genuine({"subs": {"news": "x"}}),
    "subs with bad base64": genuine({"subs": {"news": {"b64data": "?"}}}),
    "override without value": genuine({"subs": {"news": {"override": {"presence": True}}}}),
    "override not boolean": genuine({"subs": {"news": {"override": {"presence": {"value": 1}}}}}),
    "expire_at a fraction": genuine({"expire_at": 1.5}),
    "expire_at true": genuine({"expire_at": True}),
    "expire_at in quotes": genuine({"expire_at": "1"}),
    "expire_at out of range": genuine({"expire_at": 10**30}),
}
if sys.version_info < (3, 12):  # later ones can read what is nested that deep, and longer tokens are refused anyway
    FORGED["header too deep"] = token(b'{"alg":"HS256","x":' + DEEP + b"}", CLAIMS, hs())
    FORGED["payload too deep"] = token({"alg": "HS256"}, b'{"info":' + DEEP + b"}", hs())


@pytest.mark.parametrize("name", FORGED)
def test_forged_and_malformed_tokens_are_invalid(name: str) -> None:
    of = verifier()
    for _ in range(2):  # nothing of a refused token is remembered
        with pytest.raises(TokenInvalid):
            connection(FORGED[name], of)


@pytest.mark.parametrize("name", [name for name in FORGED if not name.startswith(("channel", "subs", "expire_at"))])
def test_forged_tokens_are_no_subscription_tokens_either(name: str) -> None:
    with pytest.raises(TokenInvalid):
        subscription(FORGED[name])


@given(st.text(max_size=200))
def test_any_text_is_invalid(text: str) -> None:
    with pytest.raises(TokenInvalid):
        connection(text)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_signed_bytes_are_claims_or_invalid(header: bytes, claims: bytes) -> None:
    for parts in ((header, claims), (b'{"alg":"HS256"}', claims), (header, b"{}")):
        with contextlib.suppress(TokenInvalid):
            connection(token(*parts, hs()))


@given(st.data())
def test_no_change_of_a_genuine_token_is_genuine(data: st.DataObject) -> None:
    text = genuine()
    index = data.draw(st.integers(0, len(text) - 2))  # the last character also holds bits that mean nothing
    other = data.draw(st.characters(min_codepoint=32, max_codepoint=126).filter(lambda each: each != text[index]))
    with pytest.raises(TokenInvalid):
        connection(text[:index] + other + text[index + 1 :])


# ---- genuine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "sign", "options"),
    [
        *((f"HS{bits}", hs(bits=bits), TokenOptions(hmac_secret_key=Secret(SECRET))) for bits in (256, 384, 512)),
        *((f"RS{bits}", rs(bits=bits), TokenOptions(rsa_public_key=pem(RSA))) for bits in (256, 384, 512)),
        *((f"ES{bits}", es(EC[bits], bits), TokenOptions(ecdsa_public_key=pem(EC[bits]))) for bits in (256, 384, 512)),
    ],
)
def test_each_algorithm_with_its_key_and_only_with_it(algorithm: str, sign: Sign, options: TokenOptions) -> None:
    text = token({"alg": algorithm, "typ": "JWT"}, CLAIMS, sign)
    assert connection(text, verifier(options)).user == "42"
    for other in (TokenOptions(hmac_secret_key=Secret("another")), TokenOptions()):
        with pytest.raises(TokenInvalid):
            connection(text, verifier(other))


@pytest.mark.parametrize(
    "text",
    [
        genuine(typ="JWT", cty="x", kid="a", jku="http://127.0.0.1:1/", jwk=OWN_JWK, x5u="http://127.0.0.1:1/"),
        genuine(b64=False),  # means nothing unless it is critical
        token(b' {"kid" : "" ,\n"alg":"HS256"} ', b' {"sub" : "42"}\n', hs()),
        token(b'{"alg":"none","alg":"HS256"}', CLAIMS, hs()),  # the last one counts, for everything
        token(b'{"alg":"\\u0048S256"}', CLAIMS, hs()),
        make_token({"sub": "42"}, SECRET),
    ],
)
def test_headers_that_do_no_harm(text: str) -> None:
    assert connection(text).user == "42"


def test_a_certificate_holds_a_key_too() -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(RSA.public_key())
    builder = builder.serial_number(1).not_valid_before(datetime.datetime(2020, 1, 1))
    certificate = builder.not_valid_after(datetime.datetime(2020, 1, 2)).sign(RSA, hashes.SHA256())
    text = certificate.public_bytes(serialization.Encoding.PEM).decode()
    of = verifier(TokenOptions(rsa_public_key=text))
    assert connection(token({"alg": "RS256"}, CLAIMS, rs()), of).user == "42"


def test_all_claims_of_a_connection() -> None:
    claims = b"""{
        "sub": "42", "iss": "me", "aud": ["a"], "iat": 1, "jti": "x", "nbf": 1, "exp": 1700000060.9,
        "info": {"name":  "\\u00e9",\t"n": 1.0e2}, "meta": [1, 2 ], "caps": [],
        "channels": ["ignored"],
        "subs": {
            "news": {"info": "i", "data": {"d":1}, "override": {"presence": {"value": true}, "join_leave": {}}},
            "b": {"b64info": "AP8=", "info": 1, "b64data": "AQ==", "data": 1, "override": {
                "force_push_join_leave": {"value": true}, "force_positioning": {"value": false},
                "force_recovery": {"value": true}, "presence": null, "unknown": 1}},
            "c": null, "d": {}
        }
    }"""
    assert connection(token({"alg": "HS256"}, claims, hs())) == ConnectToken(
        user="42",
        expire_at=NOW + 60,
        info=b'{"name":  "\\u00e9",\t"n": 1.0e2}',
        meta=b"[1, 2 ]",
        subs={
            "news": SubscriptionClaims(b'"i"', b'{"d":1}', Override(presence=True, join_leave=False)),
            "b": SubscriptionClaims(
                b"\x00\xff",
                b"\x01",
                Override(force_push_join_leave=True, force_positioning=False, force_recovery=True),
            ),
            "c": SubscriptionClaims(),
            "d": SubscriptionClaims(),
        },
    )


def test_a_connection_without_claims_is_anonymous_and_forever() -> None:
    nothing = ConnectToken(user="", expire_at=0, info=b"", meta=b"", subs={})
    assert connection(genuine({})) == nothing
    nulls = ("sub", "iss", "aud", "exp", "nbf", "expire_at", "channel", "info", "b64info", "meta", "channels", "subs")
    assert connection(genuine(dict.fromkeys(nulls))) == nothing
    assert connection(genuine({"channel": "", "aud": [], "subs": {}, "channels": [], "b64info": ""})) == nothing


def test_channels_are_subscriptions_without_wishes() -> None:
    subs = connection(genuine({"channels": ["a", "$b", "a"], "subs": {}})).subs
    assert subs == {"a": SubscriptionClaims(), "$b": SubscriptionClaims()}


def test_binary_info_wins() -> None:
    assert connection(genuine({"info": {}, "b64info": "AAECAw=="})).info == bytes(range(4))


def test_all_claims_of_a_subscription() -> None:
    claims = {
        "sub": "42",
        "channel": "$chat:1",
        "client": "c1",
        "exp": NOW + 60,
        "info": {"a": 1},
        "data": {"b": 2},
        "override": {"force_recovery": {"value": True}},
    }
    assert subscription(genuine(claims)) == SubscriptionToken(
        user="42",
        channel="$chat:1",
        client="c1",
        expire_at=NOW + 60,
        info=b'{"a": 1}',
        data=b'{"b": 2}',
        override=Override(force_recovery=True),
    )
    binary = subscription(genuine({"channel": "a", "b64info": "AA==", "b64data": "AQ==", "info": 1, "data": 2}))
    assert (binary.user, binary.client, binary.expire_at) == ("", "", 0)
    assert (binary.info, binary.data, binary.override) == (b"\0", b"\1", Override())


@pytest.mark.parametrize("claims", [{"sub": "42"}, {"sub": "42", "channel": ""}, {"sub": "42", "channel": None}])
def test_a_subscription_token_names_its_channel(claims: dict[str, Any]) -> None:
    with pytest.raises(TokenInvalid):
        subscription(genuine(claims))
    assert connection(genuine(claims)).user == "42"


def test_an_expired_token_without_channel_is_expired() -> None:
    with pytest.raises(TokenExpired):
        subscription(genuine({"exp": NOW}))


@pytest.mark.parametrize(
    ("claims", "expire_at"),
    [
        ({}, 0),
        ({"exp": NOW + 60}, NOW + 60),
        ({"exp": NOW + 60.99}, NOW + 60),
        ({"exp": str(NOW + 60)}, NOW + 60),
        ({"exp": NOW * 1000}, NOW * 1000),
        ({"exp": NOW + 60, "expire_at": 0}, 0),
        ({"exp": NOW + 60, "expire_at": -5}, 0),
        ({"exp": NOW + 60, "expire_at": 7}, 7),
        ({"exp": NOW + 60, "expire_at": None}, NOW + 60),
        ({"expire_at": NOW + 90}, NOW + 90),
    ],
)
def test_when_what_a_token_allows_expires(claims: dict[str, Any], expire_at: int) -> None:
    assert connection(genuine(claims)).expire_at == expire_at
    assert subscription(genuine({"channel": "a", **claims})).expire_at == expire_at


@pytest.mark.parametrize(
    ("claim", "value", "user"),
    [
        ("uid", {"uid": "7", "sub": "42"}, "7"),
        ("uid", {"uid": 7}, "7"),
        ("uid", {"uid": -12345678901234567890}, "-12345678901234567890"),
        ("uid", {"uid": None, "sub": "42"}, ""),
        ("uid", {"sub": "42"}, ""),
        ("", {"uid": "7", "sub": "42"}, "42"),
    ],
)
def test_another_claim_may_name_the_user(claim: str, value: dict[str, Any], user: str) -> None:
    of = verifier(attrs.evolve(ALL_KEYS, user_id_claim=claim))
    assert connection(genuine(value), of).user == user
    assert subscription(genuine({"channel": "a", **value}), of).user == user


@pytest.mark.parametrize("value", [1.5, True, {}, ["7"]])
def test_a_user_is_a_text_or_a_whole_number(value: Any) -> None:
    with pytest.raises(TokenInvalid):
        connection(genuine({"uid": value}), verifier(attrs.evolve(ALL_KEYS, user_id_claim="uid")))


# ---- time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verify", [connection, subscription])
def test_time_at_the_borders(verify: Any) -> None:
    clock = Clock()
    of = verifier(clock=clock)
    claims = {"nbf": NOW, "exp": NOW + 10}
    text = genuine(claims if verify is connection else {"channel": "a", **claims})
    for now, counts in ((NOW - 0.001, False), (NOW, True), (NOW + 9.999, True), (NOW + 10, False), (NOW + 5, True)):
        clock.now = now
        if counts:
            verify(text, of)
        else:
            with pytest.raises(TokenExpired):
                verify(text, of)


@pytest.mark.parametrize("claims", [{"exp": 0}, {"exp": -1}, {"exp": NOW}, {"exp": "0"}, {"nbf": NOW + 1}])
def test_tokens_out_of_their_time(claims: dict[str, Any]) -> None:
    with pytest.raises(TokenExpired):
        connection(genuine(claims))


def test_expire_at_does_not_prolong_the_token() -> None:
    with pytest.raises(TokenExpired):
        connection(genuine({"exp": NOW - 1, "expire_at": NOW + 100}))


def test_a_forged_token_is_invalid_before_it_is_expired() -> None:
    with pytest.raises(TokenInvalid):
        connection(token({"alg": "HS256"}, {"exp": NOW - 1}, hs("another")))


# ---- issuer and audience ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "claims", "counts"),
    [
        ({"issuer": "me"}, {"iss": "me"}, True),
        ({"issuer": "me"}, {"iss": "me "}, False),
        ({"issuer": "me"}, {}, False),
        ({"audience": "a"}, {"aud": "a"}, True),
        ({"audience": "a"}, {"aud": ["b", "a"]}, True),
        ({"audience": "a"}, {"aud": "ab"}, False),
        ({"audience": "a"}, {"aud": []}, False),
        ({"audience": "a"}, {}, False),
        ({"issuer_regex": "^https://(a|b)\\.example$"}, {"iss": "https://b.example"}, True),
        ({"issuer_regex": "^https://(a|b)\\.example$"}, {"iss": "https://b.example\n"}, False),
        ({"issuer_regex": "^https://(a|b)\\.example$"}, {"iss": "https://bxexample"}, False),
        ({"issuer_regex": "example"}, {"iss": "https://example.com"}, True),
        ({"issuer_regex": "example"}, {}, False),
        ({"issuer_regex": "^$"}, {}, True),
        ({"issuer_regex": "a"}, {"iss": "a" * 1025}, False),
        ({"audience_regex": "^a+$"}, {"aud": ["b", "aa"]}, True),
        ({"audience_regex": "^a+$"}, {"aud": ["b"]}, False),
        ({"audience_regex": "^$"}, {}, False),
        ({"issuer": "me", "audience": "a"}, {"iss": "me", "aud": "b"}, False),
        ({"issuer": "me", "audience_regex": "^a$"}, {"iss": "you", "aud": "a"}, False),
    ],
)
def test_issuer_and_audience(options: dict[str, str], claims: dict[str, Any], counts: bool) -> None:
    of = verifier(attrs.evolve(ALL_KEYS, **options))
    for verify, more in ((connection, {}), (subscription, {"channel": "a"})):
        if counts:
            verify(genuine({**claims, **more}), of)
        else:
            with pytest.raises(TokenInvalid):
                verify(genuine({**claims, **more}), of)


# ---- keys ---------------------------------------------------------------------------------------------------------


def test_the_previous_secret_counts_until_its_date() -> None:
    clock = Clock()
    options = TokenOptions(
        hmac_secret_key=Secret("new"),
        hmac_previous_secret_key=Secret("old"),
        hmac_previous_secret_key_valid_until=NOW + 10,
    )
    of = verifier(options, clock)
    new, old = token({"alg": "HS256"}, CLAIMS, hs("new")), token({"alg": "HS384"}, CLAIMS, hs("old", 384))
    for now in (NOW, NOW + 10):
        clock.now = now
        assert connection(new, of).user == connection(old, of).user == "42"
    clock.now = NOW + 10.001  # also for a token that was seen to be genuine before
    assert connection(new, of).user == "42"
    with pytest.raises(TokenInvalid):
        connection(old, of)


def test_the_previous_secret_counts_for_ever_without_a_date_and_alone() -> None:
    of = verifier(TokenOptions(hmac_previous_secret_key=Secret("old")), Clock(1e12))
    assert connection(token({"alg": "HS256"}, CLAIMS, hs("old")), of).user == "42"
    with pytest.raises(TokenInvalid):
        connection(token({"alg": "HS256"}, CLAIMS, hs("")), of)


def test_signatures_may_be_skipped_and_nothing_else() -> None:
    of = verifier(attrs.evolve(ALL_KEYS, issuer="me"), skip_signature=True)
    assert connection(token({"alg": "none"}, {"iss": "me", "sub": "42"}, lambda _: b""), of).user == "42"
    assert connection(genuine({"iss": "me"})[:-1] + "A", of).user == ""
    for claims in ({"iss": "you"}, {"iss": "me", "channel": "a"}, {"iss": "me", "sub": 1}):
        with pytest.raises(TokenInvalid):
            connection(genuine(claims), of)
    with pytest.raises(TokenExpired):
        connection(genuine({"iss": "me", "exp": NOW}), of)


def private_pem(key: Any) -> str:
    encryption = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption).decode()


SHORT = rsa.generate_private_key(public_exponent=65537, key_size=1024)
KOBLITZ = ec.generate_private_key(ec.SECP256K1())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"rsa_public_key": "x"}, "rsa_public_key: "),
        ({"rsa_public_key": pem(EC[256])}, "rsa_public_key: "),
        ({"rsa_public_key": pem(ED)}, "rsa_public_key: "),
        ({"rsa_public_key": private_pem(RSA)}, "rsa_public_key: a private key"),
        ({"rsa_public_key": pem(SHORT)}, "rsa_public_key: .*2048"),
        ({"ecdsa_public_key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"}, "ecdsa_public_key: "),
        ({"ecdsa_public_key": pem(RSA)}, "ecdsa_public_key: "),
        ({"ecdsa_public_key": pem(KOBLITZ)}, "ecdsa_public_key: "),
        ({"ecdsa_public_key": private_pem(EC[256])}, "ecdsa_public_key: a private key"),
        ({"issuer_regex": "("}, "issuer_regex: "),
        ({"audience_regex": "(?=a)"}, "audience_regex: "),
        ({"issuer": "a", "issuer_regex": "a"}, "issuer_regex: "),
        ({"audience": "a", "audience_regex": "a"}, "audience_regex: "),
        ({"jwks_public_endpoint": "ftp://keys.example/"}, "jwks_public_endpoint: "),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match="^" + why):
        verifier(TokenOptions(**options))


def test_secrets_do_not_show() -> None:
    of = verifier(SubscriptionTokenOptions(hmac_secret_key=Secret(SECRET)))
    assert SECRET not in repr(vars(of)) + repr(of)


def test_what_it_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.auth.verifier._REMEMBERED", 10)
    of = verifier()
    for number in range(25):
        assert connection(genuine({"sub": str(number)}), of).user == str(number)
    assert 0 < len(of._connections) <= 10
    long = genuine({"sub": "x" * 3000})
    assert connection(long, of).user == "x" * 3000
    assert long not in of._connections


def test_a_token_of_one_kind_is_not_remembered_as_the_other() -> None:
    of = verifier()
    both = genuine({"sub": "42", "channel": "a"})
    assert subscription(both, of).channel == "a"
    with pytest.raises(TokenInvalid):
        connection(both, of)
    assert subscription(both, of).channel == "a"
