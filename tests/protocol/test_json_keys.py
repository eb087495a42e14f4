"""Keys in any case, for readers that know only their own spelling."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import Raw, Struct

from broker.protocol import BrokenJson, read_json, respelled


class Below(Struct, forbid_unknown_fields=True):
    code: int = 0


class Shape(Struct, forbid_unknown_fields=True):
    channel: str | None = ""
    data: Raw = Raw()
    below: Below | None = None
    each: list[Below | None] | None = None
    of_objects: list[Below] | None = None
    named: dict[str, Below] | None = None
    texts: list[str] | None = None
    tags: dict[str, str] | None = None


_read = msgspec.json.Decoder(Shape).decode
_respell = respelled(Shape)


def read(text: str) -> Shape:
    return read_json(text.encode(), _read, _respell)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ('{"Channel": "a", "DATA": {"Channel": 1}}', Shape("a", Raw(b'{"Channel": 1}'))),
        ('{"channel": "a", "other": {"Code": 1}}', Shape("a")),
        ('{"channel": "a", "Channel": "b"}', Shape("b")),
        ('{"Below": {"CODE": 3, "x": 1}}', Shape(below=Below(3))),
        ('{"below": null, "x": 1}', Shape()),
        ('{"Each": [{"Code": 1}, null]}', Shape(each=[Below(1), None])),
        ('{"of_objects": [{"Code": 1}, null]}', Shape(of_objects=[Below(1)])),
        ('{"Named": {"A": {"Code": 1}, "b": null}}', Shape(named={"A": Below(1)})),
        ('{"texts": ["A", null]}', Shape(texts=["A", ""])),
        ('{"Tags": {"K": "V", "n": null}}', Shape(tags={"K": "V", "n": ""})),
        ('{"Channel": "\\ud800", "Data": "\\ud800"}', Shape("\N{REPLACEMENT CHARACTER}", Raw(b'"\\ud800"'))),
    ],
)
def test_keys_count_in_any_case_and_unknown_ones_are_passed_over(text: str, shape: Shape) -> None:
    assert read(text) == shape


@pytest.mark.parametrize(
    "text",
    ["", "[]", "1", "null", '{"Channel": 1}', '{"Below": []}', '{"Each": {}}', '{"Named": {"a": 1}}', '{"Channel": ""'],
)
def test_what_is_wrong_in_any_spelling_is_refused(text: str) -> None:
    with pytest.raises(BrokenJson):
        read(text)
