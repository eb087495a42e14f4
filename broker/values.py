"""Value types of options, known to every room: durations, secrets, PEM texts.

How they are read from files and variables is the business of `broker.config`.
"""

from __future__ import annotations

from typing import NewType, final

Duration = NewType("Duration", float)
"""Seconds. In configuration: a Go duration string (`1m30s`), or a bare number of nanoseconds."""


@final
class Secret:
    """A text that never shows itself: `repr` and `str` give `***`, only `reveal()` gives the value."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself. Call it where it is used, never where it could be logged."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "***" if self._text else "''"

    __str__ = __repr__


@final
class Pem(str):
    """A PEM text. In configuration: the text itself, its base64, or the path of a file that holds it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'<PEM>'" if self else "''"
