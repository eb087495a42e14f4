"""`.env` files, in the dialect that Centrifugo's loader (godotenv) reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from broker.config.errors import ConfigError

__all__ = ["parse_dotenv", "read_dotenv"]

_STATEMENT: Final = re.compile(
    r"""
    [ \t]*(?:export[ \t]+)?(?P<key>[A-Za-z0-9_.]+)[ \t]*[=:][ \t]*
    (?:
        '(?P<literal>[^']*)'[ \t]*(?:\#[^\n]*)?
      | "(?P<quoted>(?:\\.|[^"\\])*)"[ \t]*(?:\#[^\n]*)?
      | (?P<plain>[^'"\n][^\n]*)?
    )
    (?:\n|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLANK: Final = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_COMMENT: Final = re.compile(r"(?:^|[ \t]+)#.*")
_ESCAPE: Final = re.compile(r"\\([^$])", re.DOTALL)
_VARIABLE: Final = re.compile(r"(\\)?\$(\()?\{?([A-Z0-9_]+)?\}?")


def read_dotenv(path: Path) -> Mapping[str, str]:
    """The variables of a file, or none where there is no file.

    Raises:
        ConfigError: it cannot be read, or a line is not a statement.
    """
    try:
        return parse_dotenv(path.read_text())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    except ValueError as error:
        raise ConfigError([f"{path}: {error}"]) from None


def parse_dotenv(text: str) -> Mapping[str, str]:
    """Read `KEY=value` statements: plain, 'literal' or "quoted" values, `$NAME` of earlier keys, comments.

    Raises:
        ValueError: a line is not a statement; the sentence has its number and not its text.
    """
    text = text.replace("\r\n", "\n")
    variables: dict[str, str] = {}

    def earlier(found: re.Match[str]) -> str:
        if found[1] or found[2]:
            return found[0][1:]
        return variables.get(found[3], "") if found[3] else found[0]

    position = 0
    while position < len(text):
        if blank := _BLANK.match(text, position):
            position = max(blank.end(), position + 1)
            continue
        statement = _STATEMENT.match(text, position)
        if statement is None:
            raise ValueError(f"line {text.count(chr(10), 0, position) + 1} is not KEY=value")
        if statement["literal"] is not None:
            value = statement["literal"]
        elif statement["quoted"] is not None:
            value = _VARIABLE.sub(earlier, _ESCAPE.sub(_unescape, statement["quoted"]))
        else:
            value = _VARIABLE.sub(earlier, _COMMENT.sub("", statement["plain"] or "").rstrip())
        variables[statement["key"]] = value
        position = max(statement.end(), position + 1)
    return variables


def _unescape(found: re.Match[str]) -> str:
    return {"n": "\n", "r": "\r"}.get(found[1], found[1])
