"""Publications as patches: once for all groups, and never for so long that others wait."""

from __future__ import annotations

import itertools
import random

import pytest
from centrifuge import fossil as sdk

from broker.hub import patched
from broker.hub.subscription import DeltaMode, Event, GroupKey, encode
from broker.protocol import JSON, PROTOBUF, Publication, fossil
from broker.protocol.wire import DeflateWire, FrameWire
from broker.sessions.recovery import with_patches


def noise(seed: int, size: int = 65_536) -> bytes:
    return random.Random(seed).randbytes(size)


def key(wire: FrameWire | DeflateWire) -> GroupKey:
    return GroupKey(wire, DeltaMode.PATCHES, False, None)


def test_a_patch_is_made_once() -> None:
    event = Event(1, base=Publication(b"a" * 100), pub=Publication(b"a" * 99 + b"b"))
    one = event.patched(fossil.Effort(), text=True)
    assert one.delta
    assert event.patched(fossil.Effort(), text=True) is one
    assert event.patched(fossil.Effort(), text=False) is one, "ASCII may be cut anywhere"


def test_text_and_bytes_have_patches_of_their_own() -> None:
    base, target = "é" * 100, "é" * 50 + "è" + "é" * 49
    event = Event(1, base=Publication(base.encode()), pub=Publication(target.encode()))
    text, binary = (event.patched(fossil.Effort(), text=is_text) for is_text in (True, False))
    text.data.decode()
    with pytest.raises(UnicodeDecodeError):
        binary.data.decode()
    for pub in (text, binary):
        assert sdk.apply_delta(base.encode(), pub.data).decode() == target


def test_a_patch_carries_what_the_publication_does() -> None:
    pub = Publication(b"a" * 99 + b"b", offset=7, tags={"k": "v"}, version=3)
    made = patched(Publication(b"a" * 100), pub, fossil.Effort(), text=False)
    assert (made.offset, made.tags, made.delta, pub.delta) == (7, {"k": "v"}, True, False)


def test_what_would_not_be_shorter_goes_out_in_full() -> None:
    pub = Publication(b"bb")
    assert patched(Publication(b"aa"), pub, fossil.Effort(), text=False) is pub
    assert (
        patched(Publication(b"a" * 100), Publication(b"\xff" * 100), fossil.Effort(), text=True).data == b"\xff" * 100
    )


def test_a_round_makes_patches_until_its_time_is_up() -> None:
    blocks = [noise(1)[at : at + 16] for at in range(0, 65_536, 16)]
    pubs = [Publication(b"?".join(random.Random(n).sample(blocks, 2000)), offset=n) for n in range(20)]
    deltas = [pub.delta for pub in with_patches(pubs, text=False)]
    assert deltas[0] is False
    assert 0 < sum(deltas) < 10
    events = [Event(n, base=base, pub=pub, epoch="e") for n, (base, pub) in enumerate(itertools.pairwise(pubs))]
    sent = encode("a", key(FrameWire(PROTOBUF)), events)
    assert len(sent) > 15 * 30_000


def test_small_publications_are_all_patched() -> None:
    pubs = [Publication(b'{"symbol":"EURUSD","price":%d,"venue":"%b"}' % (n, b"x" * 500)) for n in range(300)]
    assert sum(pub.delta for pub in with_patches(pubs, text=True)) == 299
    events = [Event(n, base=base, pub=pub) for n, (base, pub) in enumerate(itertools.pairwise(pubs))]
    for wire in (FrameWire(JSON), FrameWire(PROTOBUF), DeflateWire(JSON, 1, 0)):
        assert 0 < len(encode("a", key(wire), events[:128])) < 128 * 150
