from __future__ import annotations

import json
import operator
import random
import time
from collections.abc import Callable
from typing import TypeVar

import pytest
from centrifuge import fossil as sdk
from hypothesis import example, given
from hypothesis import strategies as st

from broker.protocol import fossil
from broker.protocol.fossil import Effort, PatchError

NOISE = random.Random(1).randbytes(65_536)


def patch_of(source: bytes, target: bytes) -> bytes:
    patch = fossil.create(source, target)
    assert patch is not None
    return patch


T = TypeVar("T", bytes, str)


@st.composite
def payloads(draw: st.DrawFn, pieces: st.SearchStrategy[T]) -> tuple[T, T]:
    """A payload and the next one, which has much of the first, and something of its own."""
    repeated = st.builds(operator.mul, pieces, st.integers(1, 40))
    source = draw(st.lists(pieces | repeated, max_size=20))
    whole = draw(pieces)[:0].join(source)
    target: list[T] = []
    for _ in range(draw(st.integers(0, 8))):
        if draw(st.booleans()):
            begin = draw(st.integers(0, len(whole)))
            target.append(whole[begin : begin + draw(st.integers(0, 200))])
        else:
            target.append(draw(pieces))
    return whole, whole[:0].join(target)


binaries = payloads(st.binary(max_size=20))
texts = payloads(st.text(max_size=20) | st.text("é🐙ab", max_size=20)).map(
    lambda pair: (pair[0].encode(), pair[1].encode())
)

# ---- making patches -------------------------------------------------------------------------------------------------


@given(binaries)
@example((b"", b""))
@example((b"x" * 99, b""))
@example((b"", b"x" * 99))
@example((b"x" * 99, b"x" * 198))
@example((b"x" * 198, b"x" * 99))
@example((b"ab" * 64, b"ba" * 64))
def test_the_sdk_and_we_make_the_target_of_every_patch(pair: tuple[bytes, bytes]) -> None:
    source, target = pair
    patch = patch_of(source, target)
    assert sdk.apply_delta(source, patch) == target
    assert fossil.apply(source, patch) == target


@given(texts)
def test_text_patches_are_text(pair: tuple[bytes, bytes]) -> None:
    source, target = pair
    patch = fossil.create_text(source, target)
    assert patch is not None
    patch.decode()
    assert sdk.apply_delta(source, patch) == target
    assert fossil.apply(source, patch) == target


@given(payloads(st.sampled_from(["é".encode(), "🐙".encode(), b"text", b"\xa9", b"\xf0\x9f"])))
def test_text_patches_need_text_for_a_target_only(pair: tuple[bytes, bytes]) -> None:
    source, target = pair
    patch = fossil.create_text(source, target)
    try:
        target.decode()
    except UnicodeDecodeError:
        assert patch is None
    else:
        assert patch is not None
        patch.decode()
        assert sdk.apply_delta(source, patch) == target


@pytest.mark.parametrize(
    ("source", "target", "patch"),
    [
        (b"", b"", b"0\n0;"),
        (b"", b"\1", b"1\n1:\00110000;"),
        (b"", b"\0\0\1\0\0\0\3", b"7\n7:\0\0\1\0\0\0\3G0;"),
        (b"x", b"\xff\xff\xff\xff" * 2, b"8\n8:\xff\xff\xff\xff\xff\xff\xff\xff3~~~~z;"),
        (b"\0" * 4096, b"\0" * 4095, b"~~\n~~@0,0;"),
        (b"\0" * 64 + b"a" * 64 + b"\0" * 8, b"\0" * 64 + b"\4" + b"\0" * 8, b"19\n10@0,1:\0048@20,40000;"),
    ],
)
def test_patches(source: bytes, target: bytes, patch: bytes) -> None:
    assert patch_of(source, target) == patch


def test_one_change_costs_a_few_bytes() -> None:
    source = json.dumps([{"price": n, "amount": n * n} for n in range(1000)]).encode()
    for target in (
        source.replace(b'"price": 500', b'"price": 501'),
        source.replace(b'{"price": 500, "amount": 250000}, ', b""),
        source[:-1] + b', {"price": 7}]',
        b"[7, " + source[1:],
    ):
        assert target != source
        assert len(patch_of(source, target)) < 50
        assert fossil.create_text(source, target) == patch_of(source, target)


def test_a_character_is_not_cut() -> None:
    # é and è differ in their second byte only
    source = ("é" * 40 + "é" + "é" * 40).encode()
    target = ("é" * 40 + "è" + "é" * 40).encode()
    with pytest.raises(UnicodeDecodeError):
        patch_of(source, target).decode()
    patch = fossil.create_text(source, target)
    assert patch is not None
    assert "2:è" in patch.decode()


# ---- making them costs little ---------------------------------------------------------------------------------------

BLOCKS = [NOISE[at : at + 16] for at in range(0, len(NOISE), 16)]
UNKIND = {
    "nothing in common": (NOISE, NOISE[::-1]),
    "all the same byte": (bytes(65_536), bytes(65_536)),
    "almost a block, again and again": (bytes(65_536), (bytes(15) + b"\1") * 4096),
    "just a block, again and again": (bytes(65_536), (bytes(16) + b"\1") * 3855),
    "blocks in another order": (NOISE, b"".join(random.Random(2).sample(BLOCKS, len(BLOCKS)))),
    "blocks in another order, apart": (NOISE, b"?".join(random.Random(2).sample(BLOCKS, len(BLOCKS)))),
    "long ways back": (b"\1" + bytes(65_535), b"".join(b"\2" + bytes(n % 47 + 16) for n in range(1600))),
    "text that has to be cut differently": ("🐙é".encode() * 10_922, "é🐙".encode() * 10_922),
    "characters apart": ("é".encode() * 32_768, ("é" * 8 + "è").encode() * 3640),
    "a long source": (NOISE * 15, NOISE[::-1]),
}


@pytest.mark.parametrize("case", UNKIND)
@pytest.mark.parametrize("make", [fossil.create, fossil.create_text])
def test_unkind_payloads(make: Callable[[bytes, bytes, Effort], bytes | None], case: str) -> None:
    source, target = UNKIND[case]
    times = []
    for _ in range(3):
        effort = Effort()
        started = time.thread_time()
        patch = make(source, target, effort)
        times.append(time.thread_time() - started)
    assert effort.left > -100
    assert min(times) < 0.05  # at most 10 ms on the machine where this was written
    if patch is not None:
        assert fossil.apply(source, patch) == target


def test_effort_is_spent_and_then_there_are_no_patches() -> None:
    source, target = UNKIND["blocks in another order, apart"]
    effort = Effort()
    made = 0
    while fossil.create(source, target, effort) is not None:
        made += 1
    assert 0 < made < 5
    assert fossil.create_text(source, target, effort) is None
    assert fossil.create(b"short" * 100, b"short" * 101, Effort(5)) is None


def test_small_payloads_cost_little_effort() -> None:
    effort = Effort()
    for _ in range(128):
        assert fossil.create(NOISE[:4096] + b"20" + NOISE[:999], NOISE[:4096] + b"21" + NOISE[:999], effort) is not None
    assert effort.left > 0


# ---- reading patches ------------------------------------------------------------------------------------------------


@given(binaries, st.data())
def test_a_damaged_patch_is_refused_or_makes_what_the_sdk_makes(pair: tuple[bytes, bytes], data: st.DataObject) -> None:
    source, target = pair
    patch = bytearray(patch_of(source, target))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(patch)))
        patch[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from([b"", b"0", b"~", b"@", b":", b";", b","])
        )
    try:
        made = fossil.apply(source, bytes(patch))
    except PatchError:
        return
    assert sdk.apply_delta(source, bytes(patch)) == made


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_anything_else_is_refused(source: bytes, patch: bytes) -> None:
    try:
        made = fossil.apply(source, patch)
    except PatchError:
        return
    assert sdk.apply_delta(source, patch) == made


@pytest.mark.parametrize(
    "patch",
    [
        b"",
        b"5",
        b"5\n",
        b"\n5:hello3Gp6B2;",
        b"5\n5:hello",
        b"5\n5:hello3Gp6B2",
        b"5\n5:hell",
        b"5\n5:hello1;",
        b"4\n5:hello3Gp6B2;",
        b"6\n5:hello3Gp6B2;",
        b"5\n5@0,0;",
        b"5\n5@0",
        b"5\n5@1,0;",
        b"5\n5@0;0;",
        b"5\n5!hello0;",
        b"~~~~~~~~~~\n~~~~~~~~~~@0,0;",
        b"~~~~~~~~~~~\n0;",
        b"1\n" + b"0" * 100_000 + b"1:x0;",
        b"~~~~~\n" + b"4@0," * 100_000 + b"0;",
    ],
)
def test_broken_patches(patch: bytes) -> None:
    with pytest.raises(PatchError):
        fossil.apply(b"four", patch)


def test_what_is_copied_is_never_more_than_was_promised() -> None:
    with pytest.raises(PatchError, match="longer"):
        fossil.apply(NOISE, b"G00\n" + b"G00@0," * 1_000_000 + b"0;")
