"""Client ids are random UUIDs: unique, and nothing that one could guess."""

from __future__ import annotations

import uuid

import pytest

from tests.support.peers import INSECURE, open_house

pytestmark = pytest.mark.virtual_time


async def test_ids_are_random_uuids_and_differ() -> None:
    async with open_house(INSECURE) as house:
        ids = [(await house.connected()).hello["client"] for _ in range(64)]
    assert len(set(ids)) == 64
    for each in ids:
        parsed = uuid.UUID(each)
        assert (str(parsed), parsed.version, parsed.variant) == (each, 4, uuid.RFC_4122)
    assert len({each[19] for each in ids}) == 4, "both free bits of the variant's digit are random"
