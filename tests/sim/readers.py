"""Kinds of readers of one channel: what each asks for, and how it reads what it gets."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Protocol, final

from broker.protocol import fossil

__all__ = ["READERS", "FilterReader", "PatchReader", "PlainReader", "Reader", "payload"]

_PADDING = "what does not change is not sent again, so a patch is shorter than all of this"


def payload(id: str) -> dict[str, str]:
    """What is published as `id`."""
    return {"text": _PADDING, "id": id}


def _id(data: Any) -> str:
    """Of a payload in JSON, or as bytes in Protobuf."""
    value: str = (json.loads(data) if isinstance(data, bytes) else data)["id"]
    return value


class Reader(Protocol):
    """Made anew for each subscription."""

    asks: ClassVar[dict[str, Any]]
    """Members of its subscribe command."""
    tag: ClassVar[str]
    """It wants what is tagged so; empty: everything."""

    def read(self, pub: dict[str, Any]) -> tuple[int, str]:
        """Offset and id of a publication."""
        ...


@final
class PlainReader:
    asks: ClassVar[dict[str, Any]] = {}
    tag: ClassVar[str] = ""

    def read(self, pub: dict[str, Any]) -> tuple[int, str]:
        return pub["offset"], _id(pub["data"])


@final
class FilterReader:
    asks: ClassVar[dict[str, Any]] = {"tf": {"key": "t", "cmp": "eq", "val": "1"}}
    tag: ClassVar[str] = "1"

    def read(self, pub: dict[str, Any]) -> tuple[int, str]:
        return pub["offset"], _id(pub["data"])


@final
class PatchReader:
    """Applies patches as an SDK does: each to what came before it."""

    asks: ClassVar[dict[str, Any]] = {"delta": "fossil"}
    tag: ClassVar[str] = ""

    def __init__(self) -> None:
        self._last = b""

    def read(self, pub: dict[str, Any]) -> tuple[int, str]:
        data = pub["data"]
        data = data.encode() if isinstance(data, str) else data
        self._last = fossil.apply(self._last, data) if pub.get("delta") else data
        return pub["offset"], json.loads(self._last)["id"]


READERS: tuple[type[Reader], ...] = (PlainReader, PlainReader, FilterReader, PatchReader)
