"""Durations as Go writes them: `1h30m`, `100ms`, `-1.5s` (server API §1.3)."""

from __future__ import annotations

import re
from typing import Final

from broker.values import Duration

__all__ = ["NANOSECONDS", "format_duration", "parse_duration"]

NANOSECONDS: Final = 1_000_000_000
"""In a second. Divide by it: multiplying by its inverse is off in the last digit."""
_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # micro sign
    "\u03bcs": 1_000,  # Greek mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]+)")
_MAX: Final = (1 << 63) - 1
_MAX_DIGITS: Final = 20
"""More digits than any 64-bit number of nanoseconds has. Python refuses to read very long numbers."""


def parse_duration(text: str) -> Duration:
    """Read a Go duration; `0` is the only number that needs no unit, and days (`d`) are not a unit.

    Raises:
        ValueError: it is not a duration, or does not fit in 64 bits of nanoseconds.
    """
    body = text[1:] if text[:1] in {"-", "+"} else text
    if body == "0":
        return Duration(0.0)
    total = 0
    position = 0
    while position < len(body):
        part = _PART.match(body, position)
        if part is None or part[3] not in _UNITS or not (part[1] or part[2]) or len(part[1].lstrip("0")) > _MAX_DIGITS:
            raise ValueError("not a duration")
        unit = _UNITS[part[3]]
        total += int(part[1] or 0) * unit
        if fraction := (part[2] or "")[:_MAX_DIGITS]:
            total += int(fraction) * unit // 10 ** len(fraction)
        position = part.end()
    if not body or total > _MAX:
        raise ValueError("not a duration")
    return Duration((-total if text[0] == "-" else total) / NANOSECONDS)


def format_duration(duration: Duration) -> str:
    """Write a duration as Go prints it: `720h0m0s`, `1m30s`, `100ms`, `0s`."""
    ns = round(abs(duration) * NANOSECONDS)
    sign = "-" if duration < 0 else ""
    if ns < _UNITS["s"]:
        unit = next((unit for unit in ("ms", "us", "ns") if ns >= _UNITS[unit]), "s")
        return f"{sign}{_decimal(ns, _UNITS[unit])}{unit}"
    minutes, rest = divmod(ns, _UNITS["m"])
    text = f"{_decimal(rest, _UNITS['s'])}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{minutes}m{text}"
        if hours:
            text = f"{hours}h{text}"
    return sign + text


def _decimal(ns: int, unit: int) -> str:
    whole, rest = divmod(ns, unit)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0").rstrip(".") if rest else str(whole)
