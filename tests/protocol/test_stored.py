"""Publications as they are kept: the short way to read them gives what the long way does."""

from __future__ import annotations

import pytest

from broker.protocol import ClientInfo, Publication
from broker.protocol.stored import pack_publication, unpack_publication


@pytest.mark.parametrize("size", [1, 2, 127, 128, 129, 255, 256, 16_255, 16_256, 16_383, 16_384, 70_000])
def test_a_payload_comes_back_alone_and_with_what_goes_with_it(size: int) -> None:
    data = b"\x22\x80" * (size // 2) + b"\x22" * (size % 2)
    alone = unpack_publication(pack_publication(Publication(data)))
    assert (alone.data, alone.info, alone.tags) == (data, None, None)
    more = unpack_publication(pack_publication(Publication(data, ClientInfo("u", "c"), tags={"k": "v"})))
    assert more.info is not None
    assert (more.data, more.info.user, more.tags) == (data, "u", {"k": "v"})


@pytest.mark.parametrize("size", [2, 127, 128, 16_383, 16_384])
def test_one_that_is_cut_off_is_none(size: int) -> None:
    packed = pack_publication(Publication(b"x" * size))
    for short in (packed[:-1], packed[: len(packed) // 2]):
        with pytest.raises(ValueError, match="not a publication"):
            unpack_publication(short)
    twice = unpack_publication(packed + packed)
    assert twice.data == b"x" * size
