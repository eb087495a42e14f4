"""Keys that verify signatures. A key says for which algorithms it is; no token ever chooses.

joserfc and what it stands on take 0.1 s to import, so they are loaded by the first key that needs them.
"""

from __future__ import annotations

import hmac
import warnings
from typing import Any, Final, Protocol, final

import attrs
import msgspec
from msgspec import Raw, Struct

__all__ = [
    "PUBLIC_KEY_ALGORITHMS",
    "HmacKey",
    "Key",
    "KeySet",
    "PublicKey",
    "ec_key_from_pem",
    "load_public_keys",
    "rsa_key_from_pem",
]

_HASHES: Final = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
_RSA: Final = frozenset(("RS256", "RS384", "RS512"))
_CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_ED25519: Final = frozenset(("EdDSA",))
PUBLIC_KEY_ALGORITHMS: Final = _RSA | _ED25519 | frozenset(_CURVES.values())
_LEAST_RSA_BITS: Final = 2048
"""RFC 7518 §3.3."""


class Key(Protocol):
    """Something that verifies."""

    @property
    def algorithms(self) -> frozenset[str]:
        """What it may be used with, by the names of RFC 7518."""
        ...

    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's for `signed`; False for an algorithm that is not the key's."""
        ...


@final
class HmacKey:
    """A shared secret."""

    def __init__(self, secret: bytes) -> None:
        # what depends on the secret alone is done once, not for each token
        self._begun = {name: hmac.new(secret, digestmod=digest) for name, digest in _HASHES.items()}

    @property
    def algorithms(self) -> frozenset[str]:
        return frozenset(_HASHES)

    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        begun = self._begun.get(algorithm)
        if begun is None:
            return False
        mac = begun.copy()
        mac.update(signed)
        return hmac.compare_digest(mac.digest(), signature)


@final
@attrs.frozen
class PublicKey:
    """An RSA, elliptic curve or Ed25519 key, as joserfc holds it."""

    _key: Any = attrs.field(repr=False)
    algorithms: frozenset[str]

    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        from joserfc.jws import JWSRegistry

        if algorithm not in self.algorithms:
            return False
        return bool(JWSRegistry.algorithms[algorithm].verify(signed, signature, self._key))


def load_public_keys() -> None:
    """Import now what public keys need, so that no client waits for it."""
    import joserfc.jws  # noqa: F401


def rsa_key_from_pem(pem: str) -> PublicKey:
    """Read a PKIX public key or an X.509 certificate.

    Raises:
        ValueError: it is something else, or shorter than 2048 bits.
    """
    from joserfc.jwk import RSAKey

    return _public_key(RSAKey, pem, None)


def ec_key_from_pem(pem: str) -> PublicKey:
    """Read a PKIX public key or an X.509 certificate, on P-256, P-384 or P-521.

    Raises:
        ValueError: it is something else.
    """
    from joserfc.jwk import ECKey

    return _public_key(ECKey, pem, None)


def _public_key(kind: Any, source: str | dict[str, Any], algorithm: str | None) -> PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from joserfc.errors import JoseError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about short keys; they are refused below
            key = kind.import_key(source)
        algorithms = _algorithms(key)
    except (JoseError, UnsupportedAlgorithm, ValueError, OverflowError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a public key of type {kind.key_type}: {error}") from None
    if key.is_private:
        raise ValueError("a private key; only the public one belongs here")
    if algorithm is not None:
        algorithms &= {algorithm}
    if not algorithms:
        raise ValueError(f"a key of type {kind.key_type} for no supported algorithm")
    return PublicKey(key, algorithms)


def _algorithms(key: Any) -> frozenset[str]:
    if key.key_type == "RSA":
        if key.raw_value.key_size < _LEAST_RSA_BITS:
            raise ValueError(f"RSA keys of less than {_LEAST_RSA_BITS} bits are refused")
        return _RSA
    if key.key_type == "EC":
        return frozenset(name for curve, name in _CURVES.items() if curve == key.curve_name)
    return _ED25519 if key.curve_name == "Ed25519" else frozenset()


# ---- key sets -----------------------------------------------------------------------------------------------------


class _Jwk(Struct):
    kty: str
    kid: str
    use: str


class _Jwks(Struct):
    keys: list[Raw]


_set_decoder = msgspec.json.Decoder(_Jwks)
_jwk_decoder = msgspec.json.Decoder(_Jwk)
_dict_decoder = msgspec.json.Decoder(dict[str, Any])


@final
class KeySet:
    """A JSON Web Key Set (RFC 7517): its public keys for signatures, by `kid`.

    A key becomes one when it is first asked for: sets are long, few keys of them are used, and one that cannot be
    read is nobody else's trouble.
    """

    __slots__ = ("_keys", "_raw")

    def __init__(self, body: bytes) -> None:
        """Read a set.

        Raises:
            ValueError: it is not a key set.
        """
        self._raw: dict[str, Raw] = {}
        self._keys: dict[str, PublicKey | None] = {}
        try:
            members = _set_decoder.decode(body).keys
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"not a key set: {error}") from None
        for raw in members:
            try:
                jwk = _jwk_decoder.decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if jwk.use == "sig" and jwk.kid and jwk.kty in ("RSA", "EC", "OKP"):
                self._raw[jwk.kid] = raw

    def get(self, key_id: str) -> PublicKey | None:
        """The key, or None if the set has no such key that could be used."""
        if key_id not in self._keys and key_id in self._raw:
            self._keys[key_id] = _key_of_set(self._raw[key_id])
        return self._keys.get(key_id)


def _key_of_set(raw: Raw) -> PublicKey | None:
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    jwk = _dict_decoder.decode(raw)
    algorithm = jwk.get("alg")
    operations = jwk.pop("key_ops", None)
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return None
    kind = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}[jwk["kty"]]
    try:
        # for Ed25519, sets also say `Ed25519` (RFC 9864) where tokens say `EdDSA`
        return _public_key(kind, jwk, None if kind is OKPKey else algorithm)
    except ValueError:
        return None
