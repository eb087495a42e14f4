"""The address of a key set, which may depend on who issued a token.

`https://keys.example/{{tenant}}/jwks` takes `tenant` from a named group of `issuer_regex` or `audience_regex`, hence
from a token whose signature is not verified yet: whoever writes the token would choose the server that vouches for
it. So a group that stands in an address must be a list of fixed texts, known at start; anything else never leaves
the process (CVE-2026-32301).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Final, final
from urllib.parse import unquote, urlsplit

from broker.auth.errors import TokenInvalid

__all__ = ["Endpoint"]

_PLACEHOLDER: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_MOST_TEXTS: Final = 10_000
_GROUP_START: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?P?<(?P<name>[A-Za-z_][A-Za-z0-9_]*)>", re.DOTALL)
_SPECIAL: Final = frozenset(".^$*+?{}[")


@final
class Endpoint:
    """A URL with placeholders, and the texts that each may become."""

    def __init__(self, url: str, patterns: Iterable[str], *, check: bool = True) -> None:
        """Read the template.

        Args:
            url: with `{{name}}` for each placeholder.
            patterns: the regular expressions whose named groups fill them.
            check: whether groups have to be lists of fixed texts. INSECURE without.

        Raises:
            ValueError: the URL is none, or a placeholder could become anything.
        """
        self._url = url
        self._texts: dict[str, frozenset[str] | None] = dict.fromkeys(_PLACEHOLDER.findall(url))
        for pattern in patterns:
            self._read_groups(pattern)
        if check:
            for name, texts in self._texts.items():
                if texts is None:
                    raise ValueError(f"{{{{{name}}}}} needs a named group that lists fixed texts: (?P<{name}>one|two)")
        _check_url(_PLACEHOLDER.sub("x", url))

    def resolve(self, groups: Mapping[str, str]) -> str:
        """The URL for what the groups matched.

        Raises:
            TokenInvalid: a placeholder has no text, or one that is not among those known at start.
        """
        if not self._texts:
            return self._url
        for name, texts in self._texts.items():
            if name not in groups or (texts is not None and groups[name] not in texts):
                raise TokenInvalid(f"no key set for this {name}")
        url = _PLACEHOLDER.sub(lambda placeholder: groups[placeholder[1]], self._url)
        try:
            _check_url(url)
        except ValueError as error:
            raise TokenInvalid(f"no key set: {error}") from None
        return url

    def _read_groups(self, pattern: str) -> None:
        for start in _GROUP_START.finditer(pattern):
            name = start["name"]
            if name in self._texts:
                try:
                    self._texts[name] = _Alternatives(pattern, start.end()).read()
                except ValueError:
                    self._texts[name] = None


def _check_url(url: str) -> None:
    """Let nothing into an address that changes what it points to."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("an address holds a character that does not belong there")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an address begins with http:// or https:// and a host")
    if "@" in parts.netloc:
        raise ValueError("an address holds no user name")
    segments = unquote(parts.path).split("/")[1:]
    if any(segment in (".", "..") for segment in segments) or "" in segments[:-1]:
        raise ValueError("a path with empty or dotted segments")


@final
class _Alternatives:
    """Reads the inside of a group as fixed texts: literals, groups and `|`, nothing that repeats or varies."""

    def __init__(self, pattern: str, position: int) -> None:
        self._pattern = pattern
        self._position = position

    def read(self) -> frozenset[str]:
        """All texts that the group may match.

        Raises:
            ValueError: they cannot be listed.
        """
        texts: set[str] = set()
        parts: list[Iterable[str]] = []
        while True:
            token = self._next()
            if token in ("|", ")"):
                texts.update(map("".join, itertools.product(*parts)))
                parts = []
                if token == ")":
                    return frozenset(texts)
            elif token == "(":
                parts.append(self._read_group())
            else:
                parts.append((token[-1],))
            if len(texts) + _product(parts) > _MOST_TEXTS:
                raise ValueError("too many texts")

    def _read_group(self) -> frozenset[str]:
        for opening in ("?:", "?P<", "?<"):
            if self._pattern.startswith(opening, self._position):
                end = self._pattern.find(">", self._position) if "<" in opening else self._position + 1
                self._position = end + 1
                break
        return self.read()

    def _next(self) -> str:
        token = self._pattern[self._position : self._position + 1]
        if token == "\\":
            token = self._pattern[self._position : self._position + 2]
            if token[1:].isalnum():
                raise ValueError("a class of characters")
        if not token or token in _SPECIAL:
            raise ValueError("not a fixed text")
        self._position += len(token)
        return token


def _product(parts: Iterable[Iterable[str]]) -> int:
    count = 1
    for part in parts:
        count *= len(tuple(part))
    return count
