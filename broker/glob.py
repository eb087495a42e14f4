"""Glob patterns as Centrifugo's configuration and API use them: `*`, `?`, `[a-z]`, `[!a-z]`, `{one,two}`.

`*` spans any characters: there is no separator.
"""

from __future__ import annotations

import re

__all__ = ["compile_glob"]


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Compile `pattern`; use `fullmatch`.

    Raises:
        ValueError: brackets or braces that do not close.
    """
    out: list[str] = []
    depth = at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            out.append(".*")
        elif char == "?":
            out.append(".")
        elif char == "\\" and at < len(pattern):
            out.append(re.escape(pattern[at]))
            at += 1
        elif char == "[":
            end = pattern.find("]", at + 1)
            if end < 0:
                raise ValueError(f"[ without ] in {pattern!r}")
            body = pattern[at:end]
            negated = body.startswith("!")
            body = body[negated:].replace("\\", r"\\").replace("^", r"\^").replace("[", r"\[")
            out.append(f"[{'^' if negated else ''}{body}]")
            at = end + 1
        elif char == "{":
            depth += 1
            out.append("(?:")
        elif char == "}" and depth:
            depth -= 1
            out.append(")")
        elif char == "," and depth:
            out.append("|")
        else:
            out.append(re.escape(char))
    if depth:
        raise ValueError(f"{{ without }} in {pattern!r}")
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error as error:
        raise ValueError(f"not a pattern: {pattern!r}: {error}") from None
