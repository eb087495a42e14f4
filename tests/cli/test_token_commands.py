from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Command

WEEK = 7 * 24 * 3600


@pytest.fixture
def config(folder: Path) -> Path:
    path = folder / "config.json"
    path.write_text('{"client": {"token": {"hmac_secret_key": "hunter2"}}, "sse": {"enabled": true}}')
    return path


def claims(token: str) -> dict[str, Any]:
    payload = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert isinstance(payload, dict)
    return payload


def test_gentoken(command: Command, config: Path) -> None:
    """Also where the configuration asks for what this version has not: tokens do not depend on that."""
    status, out, err = command("gentoken", "-u", "42")
    title, token = out.splitlines()
    assert (status, err) == (0, "")
    assert title == 'HMAC SHA-256 JWT for user "42" with expiration TTL 168h0m0s:'
    assert set(claims(token)) == {"sub", "exp", "iat"}
    assert claims(token)["sub"] == "42"
    assert claims(token)["exp"] - claims(token)["iat"] == WEEK
    assert json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "==")) == {"alg": "HS256", "typ": "JWT"}


@pytest.mark.parametrize(
    ("argv", "title", "names"),
    [
        ([], "HMAC SHA-256 JWT for anonymous user with expiration TTL 168h0m0s:", {"exp", "iat"}),
        (["-t", "-1"], "HMAC SHA-256 JWT for anonymous user without expiration:", {"iat"}),
        (["--ttl", "0"], "HMAC SHA-256 JWT for anonymous user with expiration TTL 0s:", {"iat"}),
        (["--ttl=90", "--user=u"], 'HMAC SHA-256 JWT for user "u" with expiration TTL 1m30s:', {"sub", "exp", "iat"}),
    ],
)
def test_titles(command: Command, config: Path, argv: list[str], title: str, names: set[str]) -> None:
    status, out, _ = command("gentoken", *argv)
    assert status == 0
    assert out.splitlines()[0] == title
    assert set(claims(out.splitlines()[1])) == names


def test_quiet_is_the_token_alone(command: Command, config: Path) -> None:
    status, token, _ = command("gentoken", "-q", "-u", "42")
    assert status == 0
    assert "\n" not in token
    assert command("checktoken", token)[0] == 0


def test_checktoken(command: Command, config: Path) -> None:
    token = command("gentoken", "-q", "-u", "42", "-t", "-1")[1]
    status, out, _ = command("checktoken", token)
    assert status == 0
    first, second = out.splitlines()
    assert first == "valid token for user 42"
    assert second.startswith('payload: {"sub":"42","iat":')
    anonymous = command("gentoken", "-q")[1]
    assert command("checktoken", anonymous)[1].startswith("valid token for anonymous user\npayload: {")


def test_subscription_tokens(command: Command, config: Path) -> None:
    status, out, _ = command("gensubtoken", "-u", "42", "-s", "chat:1")
    title, token = out.splitlines()
    assert status == 0
    assert title == 'HMAC SHA-256 JWT for user "42" and channel "chat:1" with expiration TTL 168h0m0s:'
    assert claims(token)["channel"] == "chat:1"
    status, out, _ = command("checksubtoken", token)
    assert status == 0
    assert out.splitlines()[0] == 'valid subscription token for user "42" and channel "chat:1"'
    assert command("gensubtoken", "-u", "42") == (1, "channel is required\n", "")


def test_one_kind_is_not_the_other(command: Command, config: Path) -> None:
    subscription = command("gensubtoken", "-q", "-s", "chat")[1]
    connection = command("gentoken", "-q")[1]
    assert "has error: invalid token" in command("checktoken", subscription)[1]
    assert "has error: invalid token" in command("checksubtoken", connection)[1]


def test_subscription_tokens_have_keys_of_their_own(command: Command, config: Path) -> None:
    keys = {"enabled": True, "hmac_secret_key": "other", "user_id_claim": "user"}
    config.write_text(json.dumps({"client": {"token": {"hmac_secret_key": "hunter2"}, "subscription_token": keys}}))
    token = command("gensubtoken", "-q", "-u", "42", "-s", "chat")[1]
    assert claims(token)["user"] == "42"
    assert command("checksubtoken", token)[0] == 0
    config.write_text('{"client": {"token": {"hmac_secret_key": "hunter2"}}}')
    assert command("checksubtoken", token)[0] == 1


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "", "..", "é.é.é", "eyJhbGciOiJub25lIn0.e30."])
def test_what_is_no_token(command: Command, config: Path, token: str) -> None:
    status, out, err = command("checktoken", token)
    assert (status, err) == (1, "")
    assert out.startswith("error: token with header ")
    assert "has error: invalid token" in out
    assert "hunter2" not in out


def test_a_token_of_another_key_and_an_old_one(command: Command, config: Path) -> None:
    token = command("gentoken", "-q", "-u", "42")[1]
    config.write_text('{"client": {"token": {"hmac_secret_key": "other"}}}')
    status, out, _ = command("checktoken", token)
    assert status == 1
    assert 'and claims {"sub":"42"' in out
    assert "has error: invalid token" in out


def test_no_key(command: Command, folder: Path) -> None:
    problem = "not set, and tokens are made here with HMAC only"
    assert command("gentoken") == (1, f"error: client.token.hmac_secret_key: {problem}\n", "")
    (folder / "config.json").write_text('{"client": {"subscription_token": {"enabled": true}}}')
    assert command("gensubtoken", "-s", "c") == (
        1,
        f"error: client.subscription_token.hmac_secret_key: {problem}\n",
        "",
    )


def test_a_bad_configuration(command: Command, config: Path) -> None:
    config.write_text('{"log": 5}')
    for name, argument in (("gentoken", "-q"), ("gensubtoken", "-q"), ("checktoken", "x"), ("checksubtoken", "x")):
        assert command(name, argument) == (1, "error: log: not a section: a number\n", "")
    config.write_text('{"client": {"token": {"rsa_public_key": "hunter2"}}}')
    status, out, _ = command("checktoken", "x")
    assert status == 1
    assert out.startswith("error: client.token.rsa_public_key: ")
    assert "hunter2" not in out
