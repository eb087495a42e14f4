"""Regular expressions of the configuration: written for Go's RE2, run by `re`.

The two languages share most of their syntax, but not all of its meaning: `$` of `re` also matches before a last
line break, and `\\d`, `\\w`, `\\s` and `\\b` are Unicode there. A pattern that guards names and issuers must not
accept more than its author meant, so the differences are translated, and what cannot be is refused.
"""

from __future__ import annotations

import re
import warnings
from typing import Final

__all__ = ["compile_re2"]

_ESCAPE: Final = r"""
    (?P<escape>\\(?:
        Q(?P<quoted>.*?)(?:\\E|\Z)
      | x\{(?P<hex>[0-9A-Fa-f]+)\}
      | (?P<octal>0[0-7]{0,2}|[1-7][0-7]{1,2})
      | .
    ))
"""
_TOKEN: Final = re.compile(
    rf"""
    (?P<set>\[\^?\]?(?:\[:\^?[a-z]+:\]|\\Q.*?\\E|\\.|[^\]\\])*\])
    | {_ESCAPE}
    | (?P<group>\(\?(?:P?<(?P<name>[A-Za-z_][A-Za-z0-9_]*)>|(?P<flags>[ims]*)(?P<end>[:)]))?)
    | (?P<possessive>[*+?}}]\+)
    | (?P<dollar>\$)
    """,
    re.VERBOSE | re.DOTALL,
)
_IN_SET: Final = re.compile(rf"\[:(?P<posix>\^?[a-z]+):\]|(?P<bracket>\[)|{_ESCAPE}", re.VERBOSE | re.DOTALL)
_SAME_ESCAPES: Final = frozenset("AbBdDsSwWaftnrvx")
"""Letters after a backslash that mean the same to both."""
_POSIX: Final = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}


def compile_re2(pattern: str) -> re.Pattern[str]:
    """Compile a pattern in RE2 syntax; match it with `search`, as Go's `MatchString` does.

    Raises:
        ValueError: the pattern is wrong, or uses what has no counterpart in `re` (`\\p{…}`, `\\C`, `(?U)`, flags in
            the middle) or in RE2 (look-around, back-references, possessive repetition).
    """
    multiline = re.match(r"\(\?[is]*m[ims]*\)", pattern) is not None

    def translate(token: re.Match[str]) -> str:
        match token.lastgroup:
            case "set":
                return "[" + _IN_SET.sub(_translate_in_set, token[0][1:-1]) + "]"
            case "escape":
                return _translate_escape(token)
            case "group":
                return _translate_group(token)
            case "dollar":
                return "$" if multiline else r"\Z"
            case _:
                raise ValueError(f"{token[0]}: nested repetition")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "possible set difference": `re` still reads it as RE2 does
        try:
            return re.compile(_TOKEN.sub(translate, pattern), re.ASCII)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(str(error)) from None


def _translate_escape(token: re.Match[str]) -> str:
    text = token[0]
    if token["quoted"] is not None:
        return re.escape(token["quoted"])
    if token["hex"] is not None or token["octal"] is not None:
        code = int(token["hex"], 16) if token["hex"] is not None else int(token["octal"], 8)
        if code > 0x10FFFF:
            raise ValueError(f"{text}: no such character")
        return re.escape(chr(code))
    if text == r"\z":
        return r"\Z"
    if text[1].isascii() and text[1].isalnum() and text[1] not in _SAME_ESCAPES:
        raise ValueError(f"{text}: not supported")
    return text


def _translate_in_set(token: re.Match[str]) -> str:
    if token["bracket"] is not None:
        return r"\["
    if token["posix"] is not None:
        if token["posix"] not in _POSIX:
            raise ValueError(f"{token[0]}: not supported")
        return _POSIX[token["posix"]]
    return _translate_escape(token)


def _translate_group(token: re.Match[str]) -> str:
    if token["name"] is not None:
        return f"(?P<{token['name']}>"
    if token["end"] == ")" and token["flags"] and token.start() == 0:
        return token[0]
    if token["end"] == ":" and "m" not in token["flags"]:
        return token[0]
    raise ValueError(f"{token[0]}: not supported")
