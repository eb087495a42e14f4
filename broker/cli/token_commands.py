"""Commands about tokens: gentoken, gensubtoken, checktoken, checksubtoken (server API §7.5)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import trio

from broker.auth import KeysUnavailable, TokenExpired, TokenInvalid, TokenOptions, TokenVerifier, make_token
from broker.cli.parser import Parser, config_argument
from broker.config import Config, ConfigError, Sources, format_duration, load
from broker.values import Duration

__all__ = ["COMMANDS"]

_WEEK: Final = 7 * 24 * 3600


def _wall_clock() -> float:
    return datetime.now(UTC).timestamp()


def _gentoken(argv: Sequence[str]) -> int:
    parser = _generator("gentoken", "Make a connection token for a user, signed with client.token.hmac_secret_key.")
    arguments = parser.parse_args(argv)
    try:
        options: TokenOptions = _config(arguments.config).client.token
        token = _make(options, "client.token", arguments.user, arguments.ttl)
    except ConfigError as error:
        return _fail(error)
    whose = _user(arguments.user)
    print(token if arguments.quiet else f"{_title(whose, arguments.ttl)}{token}\n", end="")
    return 0


def _gensubtoken(argv: Sequence[str]) -> int:
    parser = _generator(
        "gensubtoken",
        "Make a subscription token for a user and a channel, signed with client.subscription_token.hmac_secret_key\n"
        "if client.subscription_token.enabled, else with client.token.hmac_secret_key.",
    )
    parser.add_argument("-s", "--channel", default="", help="the channel (required)")
    arguments = parser.parse_args(argv)
    try:
        config = _config(arguments.config)
        if not arguments.channel:
            print("channel is required")
            return 1
        section, options = _subscription_options(config)
        token = _make(options, section, arguments.user, arguments.ttl, arguments.channel)
    except ConfigError as error:
        return _fail(error)
    whose = f'{_user(arguments.user)} and channel "{arguments.channel}"'
    print(token if arguments.quiet else f"{_title(whose, arguments.ttl)}{token}\n", end="")
    return 0


def _checktoken(argv: Sequence[str]) -> int:
    return _check(
        "checktoken", "Check a connection token with the keys of the configuration.", argv, _verify_connection
    )


def _checksubtoken(argv: Sequence[str]) -> int:
    return _check(
        "checksubtoken", "Check a subscription token with the keys of the configuration.", argv, _verify_subscription
    )


def _generator(name: str, description: str) -> Parser:
    parser = Parser(name, description)
    config_argument(parser)
    parser.add_argument("-u", "--user", default="", help="user id (anonymous)")
    parser.add_argument(
        "-t", "--ttl", type=int, default=_WEEK, metavar="SECONDS", help=f"-1: never expires ({_WEEK}, a week)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print the token and nothing else")
    return parser


def _make(options: TokenOptions, section: str, user: str, ttl: int, channel: str = "") -> str:
    if not options.hmac_secret_key:
        raise ConfigError([f"{section}.hmac_secret_key: not set, and tokens are made here with HMAC only"])
    now = int(_wall_clock())
    claims: dict[str, object] = {"sub": user} if user else {}
    if ttl > 0:
        claims["exp"] = now + ttl
    claims["iat"] = now
    if channel:
        claims["channel"] = channel
    if options.user_id_claim:
        claims[options.user_id_claim] = user
    return make_token(claims, options.hmac_secret_key.reveal())


def _title(whose: str, ttl: int) -> str:
    expiry = f"with expiration TTL {format_duration(Duration(ttl))}" if ttl >= 0 else "without expiration"
    return f"HMAC SHA-256 JWT for {whose} {expiry}:\n"


def _user(user: str) -> str:
    return f'user "{user}"' if user else "anonymous user"


def _check(name: str, description: str, argv: Sequence[str], verify: Callable[[Config, str], str]) -> int:
    parser = Parser(name, description)
    config_argument(parser)
    parser.add_argument("token", metavar="TOKEN")
    arguments = parser.parse_args(argv)
    try:
        outcome = verify(_config(arguments.config), arguments.token)
    except ConfigError as error:
        return _fail(error)
    except (TokenInvalid, TokenExpired, KeysUnavailable) as error:
        kind = "token expired" if isinstance(error, TokenExpired) else "invalid token"
        claims = _part(arguments.token, 1)
        print(f"error: token with header {_part(arguments.token, 0)} and claims {claims} has error: {kind}: {error}")
        return 1
    print(f"{outcome}\npayload: {_part(arguments.token, 1)}")
    return 0


def _verify_connection(config: Config, token: str) -> str:
    user = trio.run(_verifier("client.token", config.client.token).verify_connection, token).user
    return f"valid token for {f'user {user}' if user else 'anonymous user'}"


def _verify_subscription(config: Config, token: str) -> str:
    claims = trio.run(_verifier(*_subscription_options(config)).verify_subscription, token)
    return f'valid subscription token for {_user(claims.user)} and channel "{claims.channel}"'


def _verifier(section: str, options: TokenOptions) -> TokenVerifier:
    try:
        return TokenVerifier(options, wall_clock=_wall_clock)
    except ValueError as error:
        raise ConfigError([f"{section}.{error}"]) from None


def _subscription_options(config: Config) -> tuple[str, TokenOptions]:
    if config.client.subscription_token.enabled:
        return "client.subscription_token", config.client.subscription_token
    return "client.token", config.client.token


def _part(token: str, index: int) -> str:
    """The text of a part of a token, to be shown."""
    parts = token.split(".")
    try:
        return base64.urlsafe_b64decode(parts[index] + "==").decode()
    except (IndexError, ValueError):
        return "that cannot be decoded"


def _config(file: Path) -> Config:
    return load(Sources(file=file), validate=False).config


def _fail(error: ConfigError) -> int:
    for problem in error.problems:
        print(f"error: {problem}")
    return 1


COMMANDS: Final[Mapping[str, Callable[[Sequence[str]], int]]] = {
    "gentoken": _gentoken,
    "gensubtoken": _gensubtoken,
    "checktoken": _checktoken,
    "checksubtoken": _checksubtoken,
}
