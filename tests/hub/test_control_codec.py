"""Control messages: what one node says another understands, and whatever else comes is only counted."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.hub.control import (
    Answer,
    ControlMessage,
    DisconnectUser,
    Leaving,
    NodeInfo,
    NodeMetrics,
    Question,
    RefreshUser,
    SubscribeUser,
    Target,
    UnsubscribeUser,
)
from broker.hub.control_codec import NotUnderstood, decode, encode
from broker.protocol import StreamPosition, codes
from broker.protocol.schema import control_pb2 as pb

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
data = st.binary(max_size=20)
small = st.integers(0, 2**32 - 1)
big = st.integers(0, 2**63 - 1)
targets = st.builds(Target, texts, texts, texts)
positions = st.builds(StreamPosition, st.integers(0, 2**64 - 1), texts)
numbers = st.floats(allow_nan=False)

messages: st.SearchStrategy[ControlMessage] = st.one_of(
    st.builds(
        SubscribeUser,
        targets,
        texts,
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        big,
        data,
        data,
        st.none() | positions,
    ),
    st.builds(UnsubscribeUser, targets, texts, st.builds(codes.Unsubscribe, st.integers(1, 2**32 - 1), texts)),
    st.builds(
        DisconnectUser,
        targets,
        st.builds(codes.Disconnect, st.integers(3000, 4999), texts),
        st.frozensets(texts, max_size=4),
    ),
    st.builds(RefreshUser, targets, st.booleans(), big, data),
    st.builds(
        NodeInfo,
        texts,
        texts,
        texts,
        small,
        small,
        small,
        small,
        small,
        st.none() | st.builds(NodeMetrics, numbers, st.dictionaries(texts, numbers, max_size=4)),
    ),
    st.just(Leaving()),
    st.builds(Question, st.integers(0, 2**64 - 1), texts, data),
    st.builds(Answer, st.integers(0, 2**64 - 1), small, data),
)


EVERYTHING = SubscribeUser(
    Target("u", "c", "s"),
    "ch",
    presence=True,
    join_leave=True,
    push_join_leave=True,
    positioned=True,
    recoverable=True,
    expire_at=1,
    info=b"i",
    data=b"d",
    recover_since=StreamPosition(1, "e"),
)


@given(texts.filter(bool), messages)
def test_what_is_said_is_understood(uid: str, message: ControlMessage) -> None:
    assert decode(encode(uid, message)) == (uid, message)


@given(st.binary(max_size=200))
def test_any_bytes_are_understood_or_not(garbage: bytes) -> None:
    with suppress(NotUnderstood):
        decode(garbage)


@given(messages, st.data())
def test_a_message_that_is_damaged_on_its_way_raises_nothing_else(
    message: ControlMessage, drawn: st.DataObject
) -> None:
    whole = bytearray(encode("node", message))
    at = drawn.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= drawn.draw(st.integers(1, 255))
    with suppress(NotUnderstood):
        decode(bytes(whole[: drawn.draw(st.integers(0, len(whole)))]))


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        ("", "garbage"),
        ("ff", "garbage"),
        ("2a00", "garbage"),  # from nobody
        ("0a0161", "unknown"),  # nothing in it
        ("0a01615a00", "unknown"),  # a notification
        ("0a016172020800", "unknown"),  # field 14: from the future
        ("0a016132021801", "garbage"),  # disconnect with code 1
        ("0a01612a020a00", None),
        ("0a01612a023a00", None),  # a filter by labels that is empty is none
        ("0a01612a033a0100", "labels"),
        ("0a01612a024001", "labels"),  # all users
    ],
)
def test_what_is_not_carried_out(wire: str, why: str | None) -> None:
    if why is None:
        decode(bytes.fromhex(wire))
    else:
        with pytest.raises(NotUnderstood) as raised:
            decode(bytes.fromhex(wire))
        assert raised.value.why == why


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (Leaving(), "0a016e 3a00"),
        (Question(1, "op"), "0a016e 42 06 0801 12026f70"),
        (Answer(1, 2, b"x"), "0a016e 4a 07 0801 1002 1a0178"),
        (Answer(0), "0a016e 4a 00"),
        (
            DisconnectUser(Target("u", "c"), codes.Disconnect(3000, ""), frozenset("w")),
            "0a016e 32 0c 0a0175 120177 18b817 320163",
        ),
        (
            UnsubscribeUser(Target("u"), "ch", codes.Unsubscribe(2000, "r")),
            "0a016e 2a 0d 0a026368 120175 28d00f 320172",
        ),
        (
            EVERYTHING,
            "0a016e 52 26 0a0175 12026368 1801 2001 2801 3001 3801 420169 4a0163 520164 5a05 0801 120165 620173 6801",
        ),
        (RefreshUser(Target("u", "c", "s"), True, 5, b"i"), "0a016e 62 10 0a0175 120163 1801 2005 2a0169 320173"),
        (NodeInfo("n", "m", "v", 1, 2, 3, 4, 5), "0a016e 22 13 0a016e 12016d 1a0176 2001 2802 3004 3805 5003"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_bytes_are_those_of_the_protocol(message: Any, wire: str) -> None:
    """Numbers of fields as Centrifuge has them: a node of either kind reads the other's."""
    assert encode("n", message) == bytes.fromhex(wire)


def test_a_number_that_does_not_fit_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="range"):
        encode("n", Question(2**64, "op"))


def test_an_old_node_that_gives_no_code_means_the_usual_one() -> None:
    command = pb.Command(uid="n", unsubscribe=pb.Unsubscribe(channel="a"))
    assert decode(command.SerializeToString())[1] == UnsubscribeUser(Target(""), "a")
    command = pb.Command(uid="n", disconnect=pb.Disconnect(user="u"))
    assert decode(command.SerializeToString())[1] == DisconnectUser(Target("u"))
